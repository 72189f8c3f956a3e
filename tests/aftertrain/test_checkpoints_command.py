"""`aftertrain checkpoints`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aftertrain.cli import main


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name, value in (("a", 1.0), ("b", 1.5)):
        save_file({"fc.weight": torch.full((3, 4), value), "fc.bias": torch.ones(3)}, tmp_path / f"{name}.safetensors")
    return tmp_path / "a.safetensors", tmp_path / "b.safetensors"


def test_a_series_is_a_table_with_what_the_log_says(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", str(samples / "classifier-healthy")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("HEALTHY  classifier-healthy: 6 saves")
    assert "  best of those kept: checkpoints/step_001000.pt (eval loss 0.3235)\n" in told
    assert "nothing wrong found" in told and "step_000250.pt" in told


def test_findings_decide_the_exit_status(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = str(samples / "classifier-frozen-layer")
    assert main(["checkpoints", frozen]) == 1
    assert main(["checkpoints", frozen, "--fail-on", "never"]) == 0
    dead = str(samples / "classifier-dead-units")
    assert main(["checkpoints", dead]) == 0 and main(["checkpoints", dead, "--fail-on", "warning"]) == 1
    assert "dead-units" in capsys.readouterr().out


def test_json_is_one_object_with_findings_in_the_common_form(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["checkpoints", str(samples / "classifier-dead-units"), "--spectra", "--format", "json"])
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["version"] == 1 and told["status"] == "warning" and len(told["saves"]) == 6
    assert [f["kind"] for f in told["findings"]] == ["dead-units"]
    assert told["tensors"] and told["changes"] and told["spectra"]


def test_a_difference_is_a_check_with_a_bar(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, pair)
    assert main(["checkpoints", b, "--against", a]) == 0
    assert main(["checkpoints", b, "--against", a, "--max-drift", "0.6"]) == 0
    assert main(["checkpoints", b, "--against", a, "--max-drift", "0.1"]) == 1
    told = capsys.readouterr().out
    assert "a.safetensors -> b.safetensors: 1 changed, 1 the same" in told and "fc.weight changed by 0.5" in told
    main(["checkpoints", b, "--against", a, "--format", "json"])
    assert json.loads(capsys.readouterr().out)["tensors"][0]["status"] == "changed"
    main(["checkpoints", b, "--against", a, "--format", "markdown"])
    assert "| tensor | status |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-drift", "0.1"], "--max-drift needs --against"),
        (["--against", "b.safetensors", "--run", "log"], "--run does not go with --against"),
        (["--against", "b.safetensors", "--spectra"], "--spectra does not go with --against"),
        (["--against", "b.safetensors", "--tensors"], "--tensors does not go with --against"),
        (["--against", "b.safetensors", "--verify"], "--verify does not go with --against"),
        (["--against", "b.safetensors", "--max-drift", "-1"], "--max-drift: max_drift: expected a ratio"),
        (["--against", "nothing.pt"], "no such file or folder"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(
    options: list[str],
    said: str,
    pair: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pair[0].parent)
    assert main(["checkpoints", "a.safetensors", *options]) == 2
    assert said in capsys.readouterr().err


def test_names_from_a_file_do_not_steer_the_terminal_or_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"a\x1b[31m|<b>": torch.full((2, 2), torch.nan)}, tmp_path / "m.safetensors")
    main(["checkpoints", str(tmp_path / "m.safetensors")])
    assert "\x1b" not in capsys.readouterr().out
    main(["checkpoints", str(tmp_path / "m.safetensors"), "--format", "markdown"])
    assert "<b>" not in capsys.readouterr().out


def test_names_of_files_do_not_steer_the_terminal_where_a_sentence_refuses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "step_1\x1b[31m\u202e.pt"
    place.write_bytes(b"no checkpoint at all")
    assert main(["checkpoints", str(place), "--against", str(place)]) == 2
    told = capsys.readouterr().err
    assert "step_1?[31m?.pt is no checkpoint" in told and told.rstrip("\n").isprintable()


def test_a_tensor_that_leaves_zero_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 0.0), ("b", 1.0)):
        state = {"fc.weight": torch.full((3, 4), value + 1), "fc.bias": torch.full((3,), value)}
        save_file(state, tmp_path / f"{name}.safetensors")
    a, b = (str(tmp_path / f"{name}.safetensors") for name in "ab")
    main(["checkpoints", b, "--against", a])
    rows = capsys.readouterr().out.split("\n")
    assert rows[3].startswith("fc.weight  changed  1 ") and rows[4].startswith("fc.bias    changed  from zero ")
    main(["checkpoints", b, "--against", a, "--format", "json"])
    ratios = [one["update_ratio"] for one in json.loads(capsys.readouterr().out)["tensors"]]
    assert ratios == [1.0, None]


def test_a_single_checkpoint_lists_its_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"fc.weight": torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "fc.bias": torch.tensor([1.0, torch.nan])}
    save_file(state, tmp_path / "m.safetensors")
    main(["checkpoints", str(tmp_path / "m.safetensors")])
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.split("\n") if "float32" in line}
    assert rows["fc.weight"] == ["float32", "2x2", "1.75", "1.785", "5", "0", "4", "50.00%", "1"]
    assert rows["fc.bias"][-2:] == ["1", "NaN"]


def test_all_tensors_are_listed_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({f"layer.{n}": torch.full((2, 2), n + 1.0) for n in range(50)}, tmp_path / "m.safetensors")
    main(["checkpoints", str(tmp_path / "m.safetensors")])
    told = capsys.readouterr().out
    assert told.count("layer.") == 40 and "(10 more tensors; --tensors lists all)" in told
    main(["checkpoints", str(tmp_path / "m.safetensors"), "--tensors"])
    assert capsys.readouterr().out.count("layer.") == 50


def test_the_tensors_of_a_series_are_those_of_its_last_save(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["checkpoints", str(samples / "classifier-healthy")])
    assert "model.first.weight" not in capsys.readouterr().out
    main(["checkpoints", str(samples / "classifier-healthy"), "--tensors"])
    assert capsys.readouterr().out.count("model.first.weight") == 1


def test_what_was_not_judged_is_said_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "m.safetensors")
    main(["checkpoints", str(tmp_path / "m.safetensors"), "--verify"])
    told = capsys.readouterr().out
    assert "not judged: weight-drift, frozen-layer (one save alone does not show what moves)" in told
    assert "not judged: checkpoint-corrupt (" in told


def test_settings_of_the_project_count(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text('[findings]\nignore = ["frozen-layer"]\n')
    frozen = str(samples / "classifier-frozen-layer")
    assert main(["checkpoints", frozen, "--config", str(tmp_path / "rules.toml")]) == 0
    assert "frozen-layer" not in capsys.readouterr().out.replace("classifier-frozen-layer", "")


def test_what_to_try_stands_once_below_findings_of_one_cause_and_one_save_is_no_plural(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        (tmp_path / f"step_{step}.pt").touch()
    assert main(["checkpoints", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert told.count("checkpoint-corrupt") == 2 and told.count("go back to the save before it") == 1
    assert main(["checkpoints", str(tmp_path / "step_1.pt"), "--format", "markdown"]) == 1
    told = capsys.readouterr().out
    assert ": 1 save\n" in told and "\n- critical checkpoint-corrupt" in told and "\n  - try:   go back" in told


def test_a_folder_that_may_not_be_read_ends_no_story_but_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"fc.weight": torch.ones(3, 4)}, tmp_path / "step_1.safetensors")
    locked, is_file = tmp_path / "step_2", Path.is_file

    def refused(self: Path) -> bool:  # whoever runs the tests may be root, whom no mode stops
        if self.parent == locked:
            raise PermissionError(13, "Permission denied", str(self))
        return is_file(self)

    locked.mkdir()
    monkeypatch.setattr(Path, "is_file", refused)
    assert main(["checkpoints", str(tmp_path)]) in (0, 1)
    told = capsys.readouterr().out
    assert "step_1.safetensors" in told and "Permission denied" in told
