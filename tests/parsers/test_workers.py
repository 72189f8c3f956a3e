"""Several processes read what one would, in the same order, and are gone when the caller stops."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import joblib
import polars as pl
import psutil
import pytest
from joblib.parallel import ThreadingBackend

from eventstream.errors import InputError
from eventstream.records import FORMAT
from parsers.collection import workers
from parsers.collection.gathering import found_below
from parsers.collection.workers import came_of, workers_for
from parsers.listing import list_runs
from parsers.loading import load_all
from parsers.options import Options
from parsers.plugins import plugins
from parsers.registry import Format
from parsers.run import Run, RunSet
from parsers.tree import MOST

LOG = b"".join(b'{"step": %d, "loss": %d.5}\n' % (s, s % 7) for s in range(40))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every way to be read: alone, of two logs, packed, in an archive, on disk, many in a folder, and none."""
    root = tmp_path_factory.mktemp("workers") / "tree"
    for name in ("a", "b/x", "b/y", "two", "many", "packed"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b/x", "b/y", "two"):
        (root / name / "log.jsonl").write_bytes(LOG)
    rows = "".join(f"{s},{s % 7}.5\n" for s in range(40))
    (root / "two" / "metrics.csv").write_text("step,loss\n" + rows)
    for number in range(MOST + 5):
        (root / "many" / f"r{number:02d}.jsonl").write_bytes(LOG.replace(b".5", b".%d5" % number))
    (root / "packed" / "z.jsonl.gz").write_bytes(gzip.compress(LOG)[:-4])
    with zipfile.ZipFile(root / "runs.zip", "w") as archive:
        archive.writestr("in/log.jsonl", LOG)
    (root / "newer").mkdir()
    (root / "newer" / "manifest.json").write_text(f'{{"format": "{FORMAT}", "version": 99}}')
    (root / "bad.tar").write_bytes(b"no archive")
    return root


def same(one: RunSet, other: RunSet) -> None:
    assert [run.name for run in one] == [run.name for run in other]
    assert one.frame.equals(other.frame) and one.unread == other.unread
    for mine, theirs in zip(one, other, strict=True):
        assert mine.scalars.equals(theirs.scalars) and mine.rejects.equals(theirs.rejects)
        assert [source.path for source in mine.sources] == [source.path for source in theirs.sources]


def test_two_processes_read_what_one_reads(tree: Path, tmp_path: Path) -> None:
    alone = load_all(tree, workers=1, cache=False)
    assert len(alone) == MOST + 5 + 6 and len(alone.unread) == 2
    same(alone, load_all(tree, workers=2, cache=False))
    same(alone, load_all(tree, workers=2, cache=tmp_path))
    same(alone, load_all(tree, workers=1, cache=tmp_path))  # from what the processes left


def test_two_processes_list_what_one_lists(tree: Path) -> None:
    alone, both = (list_runs(tree, workers=count, cache=False) for count in (1, 2))
    assert alone.frame.equals(both.frame) and alone.unread == both.unread
    assert alone.frame.equals(load_all(tree, cache=False).frame)


@pytest.mark.parametrize("backend", ["threading", "sequential", "multiprocessing"])
def test_other_backends_of_joblib_are_used_where_the_caller_says_so(backend: str, tree: Path) -> None:
    alone = load_all(tree, workers=1, cache=False)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = found_below(tree, Options(), None)
        assert workers_for(found.groups, None) == (1 if backend == "sequential" else 2)
        same(alone, load_all(tree, cache=False))


class Plain(ThreadingBackend):
    """A backend that gives its results only all at once, as those of other packages may."""

    supports_return_generator = False


def test_a_backend_of_another_package_is_used(tree: Path) -> None:
    joblib.register_parallel_backend("plain", Plain)
    alone = load_all(tree, workers=1, cache=False)
    with joblib.parallel_config(backend="plain"):
        assert workers_for([], None) == joblib.cpu_count()
        same(alone, load_all(tree, cache=False))


def test_how_many_processes_read_goes_by_what_there_is(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = found_below(tree, Options(), None).groups
    assert workers_for(groups, None) == 1
    assert workers_for(groups, 3) == 3
    with joblib.parallel_config(n_jobs=1):
        assert workers_for(groups, None) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(workers, "MANY", 10)
    assert workers_for(groups, None) == 4
    assert workers_for(groups[:1], None) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert workers_for(groups, None) == 1


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_workers_that_makes_no_sense_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"workers is {count}; it must be 1 or more, or None"):
        load_all([], workers=count)
    with pytest.raises(ValueError, match=f"workers is {count}; it must be 1 or more, or None"):
        list_runs([], workers=count)


def test_an_error_of_another_process_is_the_error_of_this_one(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    raised = []
    for count in (1, 2):
        with pytest.raises(InputError, match="version 99") as caught:
            load_all([tmp_path, tree / "newer"], workers=count, cache=False)
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]


class OddError(InputError):
    """An error that pickle cannot make again: it wants two words."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


class Odd(Format):
    """A format that raises such errors."""

    def read(self, path: Path) -> Run:
        raise OddError("not", path.name)


def test_an_error_that_cannot_travel_is_raised_where_it_is_wanted(tmp_path: Path) -> None:
    with joblib.parallel_config(backend="threading"):
        came = list(came_of(groups_of(tmp_path, Odd), lambda _: None, 2))
    errors = [error for one in came for _, error in one.outcome.errors]
    assert [(type(error), str(error)) for error in errors] == [(OddError, f"not {n}.log") for n in range(3)]


class Broken(Format):
    """A format whose reader has a mistake."""

    def read(self, path: Path) -> Run:
        raise ZeroDivisionError(f"in {path.name}")


class Unkept(Format):
    """A format whose runs cannot travel, and that says so on the way."""

    def read(self, path: Path) -> Run:
        plugins().broken.append(("format 'unkept'", "is odd"))
        from parsers.finish import finish

        rows = pl.DataFrame({"tag": ["a"], "step": [1], "value": [1.0]})
        return finish(path.name, str(path), "unkept", rows, config={"a": object()})


def groups_of(tmp_path: Path, kind: type[Format]) -> list[list[Any]]:
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.log"
        path.write_text("x")
        made.append([(path, kind("odd", "parsers.text", (), "odd"))])
    return made


def test_a_mistake_in_a_reader_is_raised_as_it_is(tmp_path: Path) -> None:
    with joblib.parallel_config(backend="threading"), pytest.raises(ZeroDivisionError, match=r"in [012]\.log"):
        list(came_of(groups_of(tmp_path, Broken), lambda _: None, 2))


def test_a_run_that_cannot_travel_is_read_here_and_what_was_said_on_the_way_is_kept(tmp_path: Path) -> None:
    assert plugins().broken == []
    with joblib.parallel_config(backend="threading"):
        came = list(came_of(groups_of(tmp_path, Unkept), lambda _: None, 2))
    assert [one.outcome.runs[0].name for one in came] == ["0.log", "1.log", "2.log"]
    assert all(one.data is None for one in came)
    assert ("format 'unkept'", "is odd") in plugins().broken
    plugins().broken.clear()


@pytest.mark.parametrize("count", [1, 2])
def test_progress_is_told_in_order_with_the_number_of_logs(tree: Path, count: int) -> None:
    seen: list[tuple[int, int, str]] = []
    load_all(tree / "b", workers=count, cache=False, progress=lambda *told: seen.append(told))
    assert seen == [(0, 2, str(tree / "b/x/log.jsonl")), (1, 2, str(tree / "b/y/log.jsonl"))]


SCRIPT = """
import sys
from parsers.loading import load_all
print("begun", flush=True)
runs = load_all(sys.argv[1], workers=2, cache=False, progress=lambda done, total, path: print("at", done, flush=True))
print("read", len(runs), flush=True)
"""


def test_a_script_needs_no_main_guard(tree: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tree / "b")], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines()[0] == "begun" and told.stdout.splitlines().count("begun") == 1
    assert told.stdout.splitlines()[-1] == "read 2" and told.stderr == ""


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"{number:03d}").mkdir()
        (tmp_path / f"{number:03d}" / "log.jsonl").write_bytes(LOG * 50)
    # Where the tests themselves run in the background of a shell, interrupts are ignored: this program listens.
    listening = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{SCRIPT}"
    process = subprocess.Popen(
        [sys.executable, "-c", listening, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "at 3" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGSTOP)  # it must not be done before it is interrupted
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, told = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
