"""What cannot be recorded is refused when the recorder is made, with the reason, and not in the middle of the run."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import eventstream
from aftertrain import InputError, Recorder
from eventstream import living

ROOT = Path(eventstream.__file__).parents[1]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key != "RANK"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def impatient(monkeypatch):
    """Do not wait for another process to end."""
    monkeypatch.setattr(living, "GRACE_S", 0.0)


@contextmanager
def recording_elsewhere(folder: Path, *, rank: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to record and waits until it may end."""
    child = python(
        """
        import sys
        from eventstream.recorder import Recorder
        with Recorder(sys.argv[1], rank=int(sys.argv[2]), seal=False) as rec:
            rec.log(1, {"loss": 1.0})
            print("recording", flush=True)
            sys.stdin.readline()
        """,
        folder,
        rank,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "recording\n"
    try:
        yield child
    finally:
        if child.poll() is None:
            child.communicate("end\n")


def test_a_second_recorder_of_this_process_is_refused_until_the_first_is_closed(tmp_path):
    with Recorder(tmp_path, seal=False) as first:
        with pytest.raises(InputError, match=r"this process records here already, as rank 0 \(attempt 0\); close that"):
            Recorder(tmp_path, seal=False)
        first.log(1, {"loss": 1.0})
    with Recorder(tmp_path, seal=False) as second:
        assert second.attempt == 1
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [entry["attempt"] for entry in manifest["attempts"]] == [0, 1], "what was refused is no attempt"
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_recorder_under_another_name_of_the_folder_is_refused_too(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    with Recorder("run", seal=False):
        for other in ("link", "./run/../run", tmp_path / "run"):
            with pytest.raises(InputError, match="this process records here already"):
                Recorder(other, seal=False)


def test_ranks_of_one_process_share_a_folder(tmp_path):
    with Recorder(tmp_path, rank=0, seal=False) as first, Recorder(tmp_path, rank=1, seal=False) as second:
        assert (first.attempt, second.attempt) == (0, 0)


def test_a_recorder_that_nobody_holds_any_more_stands_in_nobodys_way(tmp_path):
    rec = Recorder(tmp_path, seal=False)
    rec.log(1, {"loss": 1.0})
    del rec
    gc.collect()
    with Recorder(tmp_path, seal=False) as second:
        assert second.attempt == 1


def test_a_second_process_of_the_same_rank_is_refused_with_the_first_ones_number(tmp_path, impatient):
    with recording_elsewhere(tmp_path / "run") as child:
        with pytest.raises(InputError) as refused:
            Recorder(tmp_path / "run", seal=False)
        assert f"process {child.pid} is recording here as rank 0 (attempt 0)" in str(refused.value)
        assert "each process of one run its rank (RANK, or rank=)" in str(refused.value)
        with Recorder(tmp_path / "run", rank=1, seal=False):
            pass
    with Recorder(tmp_path / "run", seal=False) as restarted:
        assert restarted.attempt == 1
    assert sorted(path.name for path in (tmp_path / "run").glob("*.jsonl")) == [
        "rank00000-attempt0000-000000.jsonl",
        "rank00000-attempt0001-000000.jsonl",
        "rank00001-attempt0000-000000.jsonl",
    ]


def test_where_the_system_tells_no_holder_the_refusal_says_another_process(tmp_path, impatient, monkeypatch):
    with recording_elsewhere(tmp_path / "run"):
        monkeypatch.setattr(living, "_holder", lambda segment: None)
        with pytest.raises(InputError, match=r"run: another process is recording here as rank 0"):
            Recorder(tmp_path / "run", seal=False)


def test_a_process_that_is_just_ending_is_waited_for(tmp_path, monkeypatch):
    with recording_elsewhere(tmp_path / "run") as child:
        # What would be slept is the time in which the other process ends.
        monkeypatch.setattr(living.time, "sleep", lambda seconds: child.communicate("end\n"))
        with Recorder(tmp_path / "run", seal=False) as rec:
            assert rec.attempt == 1


def test_a_sealing_that_a_dead_process_left_behind_stands_in_nobodys_way(tmp_path, impatient):
    Recorder(tmp_path, segment_bytes=200, seal=False).close()
    with Recorder(tmp_path, segment_bytes=200, seal=False) as rec:
        for step in range(5):
            rec.log(step, {"loss": 1.0})
    older = sorted(tmp_path.glob("*attempt0001*.jsonl"))[0]
    with older.open("rb") as held:
        from eventstream.locks import try_lock

        assert try_lock(held.fileno())
        with Recorder(tmp_path, seal=False) as third:
            assert third.attempt == 2


def test_where_files_have_no_locks_a_start_is_the_next_attempt(tmp_path, monkeypatch):
    monkeypatch.setattr(living, "try_lock", lambda fd: None)
    with recording_elsewhere(tmp_path / "run"), Recorder(tmp_path / "run", seal=False) as rec:
        assert rec.attempt == 1


def test_of_starts_at_one_moment_one_records_and_the_others_are_refused(tmp_path):
    code = """
        import sys
        from eventstream import living
        from eventstream.errors import InputError
        from eventstream.recorder import Recorder
        living.GRACE_S = 0.0
        sys.stdin.readline()
        try:
            with Recorder(sys.argv[1], seal=False) as rec:
                print("recording", flush=True)
                sys.stdin.readline()
        except InputError as error:
            print(error, flush=True)
    """
    children = [python(code, tmp_path / "run") for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.stdout.readline() for child in children if child.stdout is not None]
    for child in children:
        child.communicate("end\n")
    assert said.count("recording\n") == 1
    (winner,) = (child.pid for child, line in zip(children, said, strict=True) if line == "recording\n")
    assert sum(f"process {winner} is recording here" in line for line in said) == 3
    assert len(list((tmp_path / "run").glob("*.jsonl"))) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_worker_that_outlives_its_parent_holds_nothing(tmp_path, impatient):
    rec = Recorder(tmp_path, seal=False)
    read, write = os.pipe()
    begun, begin = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(begin, b".")  # here it has given up what it inherited
        os.read(read, 1)  # until the parent says so
        os._exit(0)
    os.read(begun, 1)
    rec.close()
    with Recorder(tmp_path, seal=False) as second:
        assert second.attempt == 1
    os.write(write, b".")
    assert os.waitpid(pid, 0)[1] == 0


def test_the_folder_stays_where_it_was_when_the_training_changes_its_current_folder(tmp_path, monkeypatch):
    for name in ("start", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "start")
    with Recorder("runs/a", segment_bytes=300, seal=False) as rec:
        monkeypatch.chdir(tmp_path / "elsewhere")
        for step in range(10):
            rec.log(step, {"loss": 1.0})
        rec.config({"lr": 0.1})
        rec.embeddings(1, [[1.0, 2.0]])
        (tmp_path / "elsewhere" / "m.pt").write_bytes(b"x")
        rec.checkpoint(1, "m.pt")
        rec.sample(1, "text", "m.pt")
    assert rec.path == tmp_path / "start" / "runs" / "a"
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["m.pt"]
    assert (rec.path / "embeddings").is_dir() and len(list(rec.path.glob("*.jsonl"))) > 2
    events = [json.loads(line) for path in rec.path.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    named = {event["kind"]: event["payload"] for event in events if event["kind"] in ("checkpoint", "samples")}
    outside = str(tmp_path / "elsewhere" / "m.pt")  # a relative name would say nothing after the run
    assert (named["checkpoint"]["path"], named["samples"]["files"]) == (outside, [outside])


def test_a_relative_path_without_a_current_folder_is_refused(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match=r"runs/a: is relative to a current folder that is gone"):
        Recorder("runs/a")


@contextmanager
def someone() -> Iterator[Path]:
    """A folder of this test's own, while this process has no more rights than any user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    me = os.geteuid()
    try:
        (folder / "run").mkdir()
        (folder / "run").chmod(0o555)
        (folder / "closed").mkdir(0o500)
        if me == 0:
            os.seteuid(65534)
        else:
            folder.chmod(0o555)
        yield folder
    finally:
        if me == 0:
            os.seteuid(me)
        folder.chmod(0o755)
        for place in (folder / "run", folder / "closed"):
            place.chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_may_not_be_written_is_refused_at_once():
    with someone() as folder:
        for path in (folder / "run", folder / "new", folder / "closed" / "run"):
            with pytest.raises(InputError) as refused:
                Recorder(path)
            said = f"{path}: no run can be recorded here (Permission denied); give a folder to write to"
            assert str(refused.value) == said
        assert list((folder / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "file", "is a file; a run is recorded into a folder of its own"),
        (lambda folder: folder / "file" / "run", "no run can be recorded here (Not a directory)"),
        (lambda folder: folder / ("x" * 300), "no run can be recorded here (File name too long)"),
        (lambda folder: folder.joinpath(*["x" * 200] * 30), "no run can be recorded here (File name too long)"),
        (lambda folder: f"{folder}/a\0b", "path must be the folder of the run, got"),
        (lambda folder: "", "path must be the folder of the run, got ''"),
        (lambda folder: folder / "loop" / "run", "no run can be recorded here (Too many levels of symbolic links)"),
        (lambda folder: folder / "dangling", "no run can be recorded here (File exists)"),
    ],
)
def test_a_path_that_cannot_be_a_folder_is_refused_with_the_reason(tmp_path, make, words):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(InputError) as refused:
        Recorder(make(tmp_path))
    assert words in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "loop"]


def test_a_start_whose_manifest_cannot_be_written_leaves_no_segment(tmp_path, monkeypatch):
    (tmp_path / "manifest.json.tmp").mkdir()
    with pytest.raises(InputError, match=r"no run can be recorded here \(Is a directory\)"):
        Recorder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json.tmp"]
    (tmp_path / "manifest.json.tmp").rmdir()
    with Recorder(tmp_path, seal=False) as rec:
        assert rec.attempt == 0
