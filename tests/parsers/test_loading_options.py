"""What the caller may say beside the path: dialects, histograms, which run, and whether progress is shown."""

from __future__ import annotations

import io
import sqlite3
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftertrain.cli import main
from eventstream.errors import InputError
from parsers.collection import progress as progress_module
from parsers.collection.progress import shown
from parsers.listing import list_runs
from parsers.loading import load, load_all
from parsers.options import options
from parsers.text_logs.dialect import Dialect, Pattern
from parsers.text_logs.dialect_toml import from_toml

LOG = b"".join(b'{"step": %d, "loss": %d.5}\n' % (s, s % 7) for s in range(40))
TOML = r"""
[[dialect]]
name = "mine"
[[dialect.pattern]]
regex = '^\[(?P<step>[0-9]+)\] (?P<loss>[0-9.]+) bits$'
"""
SPOKEN = "begin\n" + "".join(f"[{s}] {1 / (s + 1):.4f} bits\n" for s in range(30))


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A folder with a text that no dialect of the table knows, and a log of another format."""
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "odd.log").write_text(SPOKEN)
    (folder / "known.jsonl").write_bytes(LOG)
    (tmp_path / "mine.toml").write_text(TOML)
    return folder


def test_a_text_that_nobody_knows_is_read_in_the_callers_dialect(spoken: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load(spoken / "odd.log")
    given: list[Any] = [tmp_path / "mine.toml", str(tmp_path / "mine.toml"), [tmp_path / "mine.toml"]]
    given += [from_toml(tmp_path / "mine.toml"), from_toml(tmp_path / "mine.toml")[0]]
    for dialects in given:
        run = load(spoken / "odd.log", dialects=dialects)
        assert run.series("loss")["step"].to_list() == list(range(30)) and run.format == "text"


def test_a_tree_is_read_in_the_callers_dialects_by_any_number_of_processes_and_from_the_cache(
    spoken: Path, tmp_path: Path
) -> None:
    toml, cache = tmp_path / "mine.toml", tmp_path / "cache"
    assert [run.name for run in load_all(spoken, cache=cache)] == ["known"]
    for count in (1, 2):
        runs = load_all(spoken, dialects=toml, workers=count, cache=False)
        assert [run.name for run in runs] == ["known", "odd"]
    for _ in range(2):
        assert load_all(spoken, dialects=toml, cache=cache).frame.equals(runs.frame)
        assert list_runs(spoken, dialects=toml, cache=cache).frame.equals(runs.frame)
    toml.write_text(TOML.replace("<loss>", "<bits>"))
    assert load_all(spoken, dialects=toml, cache=cache)["odd"].metrics == ["bits"]
    assert [run.name for run in load_all(spoken, cache=cache)] == ["known"]


def test_the_callers_dialect_goes_before_what_the_table_would_take(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"step: {s} loss: {s}.5 hidden {s}.25\n" for s in range(20)))
    assert "loss" in load(path).metrics
    mine = Dialect("mine", "", (Pattern("hidden", r"^step: (?P<step>[0-9]+) .* hidden (?P<hidden>[0-9.]+)$"),))
    assert load(path, dialects=mine).metrics == ["hidden"]
    other = Dialect("other", "", (Pattern("absent", r"^absent (?P<step>[0-9]+) (?P<x>[0-9.]+)$"),))
    assert load(path, dialects=other).scalars.equals(load(path).scalars)


@pytest.mark.parametrize("given", [3, [3], object()])
def test_what_is_no_dialect_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"dialects is .*; it must be a TOML file, a Dialect, or a list of these"):
        options(given)


def test_a_toml_file_that_is_not_there_or_declares_nothing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        load_all([], dialects=tmp_path / "none.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(InputError, match=r"no \[\[dialect\]\] in it"):
        load_all([], dialects=tmp_path / "empty.toml")


def test_histograms_become_scalars_where_they_are_asked_for(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in range(3):
            writer.add_scalar("loss", 0.5, step)
            writer.add_histogram("weights", np.array([float(step), 2.0, 3.0]), step)
    cache = tmp_path / "cache"
    for _ in range(2):
        plain = load_all(tmp_path / "tb", cache=cache)[0]
        more = load_all(tmp_path / "tb", cache=cache, histograms=True)[0]
        assert plain.metrics == ["loss"] and {"loss", "weights/min", "weights/max"} < set(more.metrics)
    assert load(tmp_path / "tb", histograms=True).scalars.equals(more.scalars)
    assert load_all(tmp_path / "tb", cache=False, histograms=True, workers=2)[0].scalars.equals(more.scalars)
    with pytest.raises(ValueError, match="histograms is 'yes'; it must be True or False"):
        load(tmp_path / "tb", histograms="yes")  # type: ignore[arg-type]


@pytest.fixture
def several(tmp_path: Path) -> Path:
    root = tmp_path / "sweep"
    for name in ("seed1", "seed2", "x/seed2"):
        (root / name).mkdir(parents=True)
        (root / name / "log.jsonl").write_bytes(LOG.replace(b".5", b".%d" % (len(name) + int(name[-1]))))
    return root


def test_one_of_several_runs_is_chosen_by_name_and_by_path(several: Path) -> None:
    with pytest.raises(InputError, match=r"3 runs here .*; name one of them with run=, or use load_all"):
        load(several)
    runs = load_all(several, cache=False)
    for run in runs:
        for wanted in (run.name, run.path, run.path.removeprefix(f"{several}/")):
            assert load(several, run=wanted).path == run.path, wanted


def test_a_run_that_is_not_there_is_told_with_the_nearest_names(several: Path) -> None:
    with pytest.raises(InputError, match=r"sweep: unknown run 'sed1/log'; did you mean '.*1.*'\? known: "):
        load(several, run="sed1/log")


def test_a_name_that_fits_several_runs_is_told_with_their_paths(several: Path) -> None:
    name = load(several / "seed1").name
    assert load(several / "seed2").name == name
    with pytest.raises(InputError, match=rf"3 runs fit '{name}' \(seed1/log.jsonl, .*\); name one by its path"):
        load(several, run=name)


def test_a_run_of_an_archive_and_one_beside_what_cannot_be_read_are_chosen(several: Path, tmp_path: Path) -> None:
    path = tmp_path / "sweep.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/log.jsonl", LOG)
        archive.writestr("b/log.jsonl", LOG.replace(b".5", b".75"))
    assert load(path, run="b/log.jsonl").path == f"{path}/b/log.jsonl"
    assert load(path, run="b/log").path == f"{path}/b/log.jsonl"
    (several / "bad.tar").write_bytes(b"no archive")
    assert load(several, run="seed1/log.jsonl").path == str(several / "seed1/log.jsonl")


def test_a_run_in_a_database_is_chosen_by_its_identifier(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as base:
        base.executescript(
            """
            create table experiments (experiment_id integer primary key, name text, lifecycle_stage text);
            create table runs (run_uuid text, name text, experiment_id integer, status text, start_time integer,
                end_time integer, lifecycle_stage text, artifact_uri text, user_id text, source_type text,
                source_name text, entry_point_name text, source_version text);
            create table metrics (key text, value real, timestamp integer, run_uuid text, step integer, is_nan integer);
            create table params (key text, value text, run_uuid text);
            create table tags (key text, value text, run_uuid text);
            insert into experiments values (1, 'e', 'active');
            """
        )
        for name in ("abc", "def"):
            base.execute("insert into runs (run_uuid, name, experiment_id, status, start_time, lifecycle_stage) "
                         "values (?, ?, 1, 'FINISHED', 1, 'active')", (name, f"run-{name}"))  # fmt: skip
            rows = [("loss", 0.5, 1000 + s, name, s, 0) for s in range(5)]
            base.executemany("insert into metrics values (?, ?, ?, ?, ?, ?)", rows)
    base.close()
    by_id, by_name = load(path, run="def"), load(path, run=load_all(path)[1].name)
    assert by_id.scalars.equals(by_name.scalars) and by_id.name == by_name.name


def test_the_command_line_takes_dialects_and_a_run(
    spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = str(tmp_path / "mine.toml")
    assert main(["ls", str(spoken)]) == 0 and "odd" not in capsys.readouterr().out
    assert main(["ls", "--dialects", toml, str(spoken)]) == 0 and "odd" in capsys.readouterr().out
    assert main(["check", "--dialects", toml, str(spoken)]) == 0 and "odd" in capsys.readouterr().out
    out = tmp_path / "out.csv"
    assert main(["convert", str(spoken), "--dialects", toml, "--run", "odd", "-o", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 31
    assert main(["convert", str(spoken), "--dialects", toml, "--run", "od", "-o", str(out)]) == 2
    assert "unknown run 'od'; did you mean 'odd'? known: odd, known" in capsys.readouterr().err


def test_progress_true_is_a_bar_on_standard_error(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_all(several, progress=True, cache=False)
    told = capsys.readouterr()
    assert told.out == "" and "reading" in told.err and "/3" in told.err


@pytest.mark.parametrize("value", [None, False])
def test_no_progress_is_silent(value: Any, several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_all(several, progress=value, cache=False)
    assert capsys.readouterr() == ("", "")


def test_what_is_no_progress_is_refused() -> None:
    with pytest.raises(ValueError, match="progress is 'bar'; it must be True, False, None or a function"):
        load_all([], progress="bar")  # type: ignore[arg-type]


class ZMQInteractiveShell:
    """Named as the shell of a notebook."""


def test_in_a_notebook_the_bar_is_a_widget_only_where_widgets_are_installed(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = types.SimpleNamespace(get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(progress_module, "find_spec", lambda name: None)
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    load_all(several, progress=True, cache=False)  # a warning of tqdm would be an error here
    assert "reading" in err.getvalue()
    monkeypatch.setattr(progress_module, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", types.SimpleNamespace(tqdm="the widget"))
    assert progress_module._bar() == "the widget"


def test_a_path_that_would_break_the_bar_is_shown_in_signs_that_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(True, "reading") as told:
        assert told is not None
        told(1, 2, "a\n\x1b[31mb")
        told(2, 2, "b")
    assert "\x1b[31m" not in capsys.readouterr().err
