"""Ablation folders: one run a configuration, all of one group, with checkpoints and samples beside the log."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path
from typing import Any

import pytest

from eventstream.errors import InputError
from parsers.ablations import read, sniff
from parsers.loading import load, load_all
from parsers.run import Run


def log(loss: float, count: int = 20) -> str:
    return "".join(f"epoch: {s // 5} step: {s} loss: {loss / s:.6f}\n" for s in range(1, count + 1))


def ablation(folder: Path, name: str, loss: float = 3.0, config: str = "", text: str | None = None) -> Path:
    """One ablation as the runner of the founding document lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"config_{name}.json").write_text(config or json.dumps({"lambda_adv": loss, "epochs": 10}, indent=2))
    (folder / f"logs_{name}.log").write_text(log(loss) if text is None else text)
    inner = folder / f"checkpoints_{name}"
    inner.mkdir(exist_ok=True)
    (inner / "epoch_3.pt").write_bytes(b"x" * 100)
    (inner / "step_0040.pt").write_bytes(b"x" * 200)
    return folder / f"config_{name}.json"


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * 10)


def payloads(run: Run, kind: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in run.events_of(kind)["payload"]]


def test_every_configuration_is_one_run_of_one_group(tmp_path: Path) -> None:
    for k, name in enumerate(("baseline", "no_gan", "segment_1s"), 1):
        ablation(tmp_path / "ablations" / "phase4", name, loss=float(k))
    (tmp_path / "ablations" / "phase4" / "ablation_comparison.png").write_bytes(b"\x89PNG")
    runs = load_all(tmp_path)
    assert [run.name for run in runs] == ["baseline", "no_gan", "segment_1s"] and runs.unread == ()
    assert {run.config["group"] for run in runs} == {"phase4"} and {run.format for run in runs} == {"ablation"}
    for k, run in enumerate(runs, 1):
        rows = run.series("loss")
        assert rows["step"].to_list() == list(range(1, 21)) and rows["value"][0] == k and run.config["lambda_adv"] == k
        assert set(run.scalars["run"]) == set(run.events["run"]) == {run.name}


def test_the_log_leads_to_the_same_run_as_its_configuration(tmp_path: Path) -> None:
    config = ablation(tmp_path / "phase4", "baseline")
    by_log, by_config = load(tmp_path / "phase4" / "logs_baseline.log"), load(config)
    assert by_log.scalars.equals(by_config.scalars) and by_log.events.equals(by_config.events)
    assert by_log.config == by_config.config and by_log.path == by_config.path
    assert load(tmp_path / "phase4").name == "baseline"


def test_checkpoints_are_events_with_their_size(tmp_path: Path) -> None:
    events = load(ablation(tmp_path / "phase4", "baseline")).events_of("checkpoint")
    assert [json.loads(p) for p in events["payload"]] == [
        {"path": "checkpoints_baseline/epoch_3.pt", "bytes": 100},
        {"path": "checkpoints_baseline/step_0040.pt", "bytes": 200},
    ]
    assert events["epoch"].to_list() == [3.0, None] and events["step"].to_list() == [None, 40]


def test_a_group_that_the_configuration_names_counts(tmp_path: Path) -> None:
    config = ablation(tmp_path / "phase4", "baseline", config='{"group": "mine"}')
    assert load(config).config == {"group": "mine"}


def test_samples_are_events_of_their_epoch_with_files_and_metadata(tmp_path: Path) -> None:
    config = ablation(tmp_path / "phase4", "baseline")
    for epoch in (10, 5):
        place = tmp_path / "phase4" / "samples" / f"epoch_{epoch}"
        for name in ("original", "reconstruction", "converted_to_p225"):
            sound(place / f"{name}.wav")
        (place / "metadata.json").write_text(json.dumps({"epoch": epoch, "similarity": 0.7, "speaker": "p225"}))
    run = load(config)
    assert run.events_of("samples")["epoch"].to_list() == [5.0, 10.0]
    assert payloads(run, "samples")[1] == {
        "kind": "audio",
        "files": [f"samples/epoch_10/{n}.wav" for n in ("converted_to_p225", "original", "reconstruction")],
        "metadata": {"epoch": 10, "similarity": 0.7, "speaker": "p225"},
    }
    assert [found.name for found in load_all(tmp_path)] == ["baseline"]  # the metadata is no run of its own


def test_samples_with_folders_of_their_own_are_events_of_their_own(tmp_path: Path) -> None:
    config = ablation(tmp_path / "phase4", "baseline")
    for k in (1, 2):
        place = tmp_path / "phase4" / "samples_baseline" / "step_40" / f"sample_{k}"
        sound(place / "original.wav")
        (place / "tune.mid").write_bytes(b"MThd")
        (place / "metadata.json").write_text(json.dumps({"id": k, "step": 40}))
    run = load(config)
    assert [p["metadata"]["id"] for p in payloads(run, "samples")] == [1, 2]
    assert run.events_of("samples")["step"].to_list() == [40, 40]


def test_shared_samples_belong_to_the_run_that_their_metadata_names(tmp_path: Path) -> None:
    for name in ("baseline", "no_gan"):
        ablation(tmp_path / "phase4", name)
        place = tmp_path / "phase4" / "samples" / f"epoch_{1 + (name == 'no_gan')}"
        sound(place / "original.wav")
        (place / "metadata.json").write_text(json.dumps({"ablation": name}))
    runs = load_all(tmp_path)
    assert [run.events_of("samples")["epoch"].to_list() for run in runs] == [[1.0], [2.0]]


def test_damaged_metadata_is_a_reject_and_the_files_are_kept(tmp_path: Path) -> None:
    config = ablation(tmp_path / "phase4", "baseline")
    place = tmp_path / "phase4" / "samples" / "epoch_1"
    sound(place / "original.wav")
    (place / "metadata.json").write_text('{"epoch": 1, ')
    run = load(config)
    assert payloads(run, "samples")[0]["files"] == ["samples/epoch_1/original.wav"]
    assert run.rejects["file"][0].endswith("metadata.json")


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("nothing to see\n", "not a format that is known")])
def test_a_log_that_cannot_be_read_is_a_reject_and_the_rest_stands(tmp_path: Path, text: str, said: str) -> None:
    run = load(ablation(tmp_path / "phase4", "baseline", text=text))
    assert run.scalars.is_empty() and run.config["epochs"] == 10 and run.events_of("checkpoint").height == 2
    assert said in run.rejects["reason"][0] and run.rejects["file"][0].endswith("logs_baseline.log")


def test_every_cut_of_a_configuration_keeps_the_numbers_of_the_log(tmp_path: Path) -> None:
    path = ablation(tmp_path / "phase4", "baseline")
    whole = path.read_text()
    for cut in range(1, len(whole) - 1):
        path.write_text(whole[:cut])
        run = load(path)
        assert run.series("loss").height == 20 and run.rejects.height >= 1
    path.write_text(whole)
    assert load(path).rejects.is_empty()


def test_a_run_with_checkpoints_alone_is_a_run_without_numbers(tmp_path: Path) -> None:
    path = ablation(tmp_path / "phase4", "baseline")
    (tmp_path / "phase4" / "logs_baseline.log").unlink()
    run = load(path)
    assert run.format == "ablation" and run.scalars.is_empty() and run.events_of("checkpoint").height == 2


def test_a_link_that_leads_back_up_is_not_followed(tmp_path: Path) -> None:
    path = ablation(tmp_path / "phase4", "baseline")
    (tmp_path / "phase4" / "checkpoints_baseline" / "loop").symlink_to(tmp_path / "phase4", target_is_directory=True)
    assert load(path).events_of("checkpoint").height == 2


def test_configurations_alone_and_metadata_elsewhere_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "config_a.json").write_text("{}")
    (tmp_path / "metadata.json").write_text("{}")
    assert not sniff(tmp_path / "config_a.json", b"{}") and not sniff(tmp_path / "metadata.json", b"{}")
    with pytest.raises(InputError, match=r"neither config_<name>\.json"):
        read(tmp_path / "metadata.json")


def test_a_packed_folder_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    for name in ("baseline", "no_gan"):
        ablation(tmp_path / "phase4", name)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "phase4"))
    plain, found = load_all(tmp_path / "phase4"), load_all(packed)
    assert [run.name for run in found] == [run.name for run in plain] == ["baseline", "no_gan"]
    for one, other in zip(plain, found, strict=True):
        assert one.scalars.equals(other.scalars) and one.events.equals(other.events) and one.config == other.config
