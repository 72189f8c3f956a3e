"""The settings of a project: where they are found, what they say, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from eventstream.errors import InputError
from parsers.finish import finish
from parsers.loading import load, load_all
from parsers.run import Run, RunSet
from parsers.settings import Settings, find_settings, read_settings


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def run_of(*tags: str) -> Run:
    return finish("r", "r", "jsonl", pl.DataFrame({"tag": tags, "step": [1] * len(tags), "value": [1.0] * len(tags)}))


def test_the_nearest_file_counts_and_no_other(tmp_path: Path) -> None:
    written(tmp_path / "aftertrain.toml", '[roles]\na = "loss"\n')
    near = written(tmp_path / "one" / "aftertrain.toml", '[roles]\nb = "memory"\n')
    deep = tmp_path / "one" / "two" / "three"
    deep.mkdir(parents=True)
    assert find_settings(deep) == Settings(near, {"b": "memory"})
    assert find_settings(tmp_path).roles == {"a": "loss"}


def test_the_current_folder_is_where_the_search_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "aftertrain.toml", "[roles]\n")
    monkeypatch.chdir(tmp_path)
    assert find_settings() == Settings(path, {})


def test_a_current_folder_that_is_gone_has_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert find_settings() == Settings()


def test_its_own_file_goes_before_that_of_the_project(tmp_path: Path) -> None:
    written(tmp_path / "pyproject.toml", '[tool.aftertrain.roles]\na = "loss"\n')
    assert find_settings(tmp_path).roles == {"a": "loss"}
    written(tmp_path / "aftertrain.toml", '[roles]\na = "memory"\n')
    assert find_settings(tmp_path).roles == {"a": "memory"}


def test_a_project_that_says_nothing_of_aftertrain_is_passed_by(tmp_path: Path) -> None:
    above = written(tmp_path / "aftertrain.toml", '[roles]\na = "loss"\n')
    written(tmp_path / "sub" / "pyproject.toml", '[project]\nname = "x"\n[tool.ruff]\nline-length = 99\n')
    assert find_settings(tmp_path / "sub").path == above


def test_no_file_anywhere_is_no_settings(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path / "aftertrain.toml", "")).roles == {}
    assert read_settings(written(tmp_path / "pyproject.toml", '[project]\nname = "x"\n')).roles == {}
    assert find_settings("/") == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[roels]\n", "unknown table 'roels'; did you mean 'roles'"),
        ("roles = 3\n", r"\[roles\] is 3; a table of metrics and their roles was expected"),
        ('[roles]\nmy_loss = "los"\n', r"\[roles\] 'my_loss': unknown role 'los'; did you mean 'loss'"),
        ("[roles]\nmy_loss = 3\n", r"\[roles\] roles maps names of metrics to roles, both text, not 'my_loss' to 3"),
        ('[roles]\nval.loss = "loss"\n', r"\[roles\] val.loss is read as a table in a table; put names with dots in"),
        ("[roles\n", r"no TOML \("),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path / "aftertrain.toml", text)
    with pytest.raises(InputError, match=f"^{path}: {said}"):
        find_settings(tmp_path)


def test_a_mistake_in_a_pyproject_is_said_with_its_whole_name(tmp_path: Path) -> None:
    path = written(tmp_path / "pyproject.toml", "[tool.aftertrain.role]\n")
    with pytest.raises(InputError, match=r"unknown table 'tool.aftertrain.role'; did you mean 'tool.aftertrain.roles'"):
        read_settings(path)
    written(path, '[tool.aftertrain.roles]\na = "b"\n')
    with pytest.raises(InputError, match=r"pyproject.toml: \[tool.aftertrain.roles\] 'a': unknown role 'b'"):
        read_settings(path)


def test_a_file_that_is_not_there_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.toml: cannot be read \(No such file or directory\)"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "aftertrain.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"aftertrain\.toml: no TOML"):
        find_settings(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "aftertrain.toml").write_bytes(b'\xef\xbb\xbf[roles]\na = "loss"\n')
    assert find_settings(tmp_path).roles == {"a": "loss"}


def test_settings_count_for_every_run_and_name_where_they_were_said(tmp_path: Path) -> None:
    path = written(tmp_path / "aftertrain.toml", '[roles]\n"val/*" = "eval_loss"\nother_project = "memory"\n')
    runs, unused = read_settings(path).applied(RunSet((run_of("loss", "val/energy"), run_of("loss"))))
    assert runs[0].roles["eval_loss"].tag == "val/energy" and not runs[1].roles["eval_loss"]
    assert runs[0].roles["eval_loss"].why == f'set in {path}: "val/*" is eval_loss'
    assert unused == [f"{path}: roles: 'other_project' names no series; there are energy, loss, val/energy"]


def test_settings_without_roles_leave_the_runs_as_they_are() -> None:
    runs = RunSet((run_of("loss"),))
    assert Settings().applied(runs) == (runs, [])


def logged(path: Path, *tags: str) -> Path:
    lines = [json.dumps({"step": step, **dict.fromkeys(tags, 1.0)}) for step in range(3)]
    return written(path, "\n".join(lines) + "\n")


def test_a_run_is_loaded_with_its_roles(tmp_path: Path) -> None:
    log = logged(tmp_path / "a.jsonl", "energy", "loss")
    assert load(log, roles={"energy": "train_loss"}).roles["train_loss"].metric == "energy"
    assert load(log).roles["train_loss"].metric == "loss"
    with pytest.raises(InputError, match="a: roles: 'enrgy' names no series; did you mean 'energy'"):
        load(log, roles={"enrgy": "train_loss"})
    with pytest.raises(ValueError, match="unknown role 'train-loss'; did you mean 'train_loss'"):
        load(log, roles={"energy": "train-loss"})


def test_a_run_is_loaded_with_the_roles_of_a_file_that_is_named_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logged(tmp_path / "a.jsonl", "energy", "loss")
    file = written(tmp_path / "aftertrain.toml", '[roles]\nenergy = "train_loss"\n')
    monkeypatch.chdir(tmp_path)
    assert load(log, roles=file).roles["train_loss"].metric == "energy"
    assert load(log, roles=str(file)).roles["train_loss"].metric == "energy"
    assert load(log).roles["train_loss"].metric == "loss", "code sees what it is given"
    written(file, '[roles]\nelsewhere = "train_loss"\n')
    with pytest.warns(
        UserWarning, match=r"aftertrain\.toml: roles: 'elsewhere' names no series; there are energy, loss"
    ):
        assert load(log, roles=file).roles["train_loss"].metric == "loss"


def test_of_all_runs_loaded_one_must_have_the_series(tmp_path: Path) -> None:
    logged(tmp_path / "a.jsonl", "energy", "x")
    logged(tmp_path / "b.jsonl", "loss", "x")
    runs = load_all(tmp_path, roles={"energy": "loss"}, cache=False)
    assert [run.roles["train_loss"].metric for run in runs] == ["energy", "loss"]
    with pytest.raises(InputError, match="in none of 2 runs"):
        load_all(tmp_path, roles={"nothing": "loss"}, cache=False)
