"""What the files hold when processes die, disks fill up, threads race and children inherit the descriptor."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import eventstream
from eventstream.recorder import Recorder

#: Where the package under test lies: in site-packages when the wheel is tested.
ROOT = Path(eventstream.__file__).parents[1]
#: Python 3.12 and newer warn of every fork beside threads, which is what is tested.
FORK = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key != "RANK"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def steps_of(records, kind="metrics"):
    return [record["step"] for record in records if record["kind"] == kind]


def test_a_record_is_in_the_file_when_log_returns(tmp_path, lines_of):
    rec = Recorder(tmp_path, seal=False)
    for step in range(5):
        rec.log(step, {"loss": 1.0})
        assert steps_of(lines_of(tmp_path)) == list(range(step + 1))
    rec.close()


def test_sigkill_loses_nothing_that_was_logged(tmp_path):
    child = python(
        """
        import sys
        from eventstream.recorder import Recorder
        rec = Recorder(sys.argv[1])
        step = 0
        while True:
            rec.log(step, {"loss": 0.5, "name with spaces": float(step)}, split="train")
            print(step, flush=True)  # only what was said here counts as logged
            step += 1
        """,
        tmp_path,
    )
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(500)]
    child.kill()
    said += [int(text) for text in child.stdout.read().split("\n")[:-1]]
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors
    content = (tmp_path / "rank00000-attempt0000-000000.jsonl").read_bytes()
    whole = [json.loads(line)["step"] for line in content.split(b"\n")[:-1]]
    assert whole[: len(said)] == said
    assert len(whole) - len(said) in (0, 1)  # one may be written and not yet said


def test_a_restart_after_sigkill_is_the_next_attempt_and_seals_what_was_left(tmp_path, rows_of):
    code = """
        import os, signal, sys
        from eventstream.recorder import Recorder
        rec = Recorder(sys.argv[1])
        rec.log(7, {"loss": 0.25})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    for _ in range(2):
        child = python(code, tmp_path)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    with (tmp_path / "rank00000-attempt0001-000000.jsonl").open("ab") as file:
        file.write(b'{"kind":"metrics","step":8,"ti')  # as a crash of the system may cut it
    with Recorder(tmp_path) as rec:
        assert rec.attempt == 2
    assert sorted(path.name for path in tmp_path.glob("rank*")) == [
        f"rank00000-attempt000{n}-000000.parquet" for n in range(3)
    ]
    rows = rows_of(tmp_path)
    assert [(row["step"], row["value"]) for row in rows if row["tag"] == "loss"] == [(7, 0.25)] * 2
    (cut,) = [json.loads(row["payload"]) for row in rows if row["kind"] == "unreadable"]
    assert cut == {"line": 2, "text": '{"kind":"metrics","step":8,"ti'}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [entry["attempt"] for entry in manifest["attempts"]] == [0, 1, 2]


def test_two_starts_at_once_never_share_a_file(tmp_path):
    code = """
        import sys
        from eventstream.recorder import Recorder
        sys.stdin.readline()
        with Recorder(sys.argv[1], seal=False) as rec:
            rec.log(1, {"loss": 1.0})
            print(rec.attempt)
    """
    children = [python(code, tmp_path, stdin=subprocess.PIPE) for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    done = [child.communicate() for child in children]
    assert sorted(int(out) for out, _ in done) == [0, 1, 2, 3], done
    assert len(list(tmp_path.glob("*.jsonl"))) == 4
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert sorted(entry["attempt"] for entry in manifest["attempts"]) == [0, 1, 2, 3]


def test_each_rank_has_its_own_files_and_only_rank_0_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with Recorder(tmp_path, config={"lr": 1.0}, seal=False) as rec:
        assert rec.rank == 3
    assert [path.name for path in tmp_path.iterdir()] == ["rank00003-attempt0000-000000.jsonl"]
    with Recorder(tmp_path, rank=0, seal=False) as rec:
        assert (rec.rank, rec.attempt) == (0, 0)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_segment_is_followed_by_the_next_and_no_record_is_lost(tmp_path, lines_of):
    with Recorder(tmp_path, segment_bytes=400, seal=False) as rec:
        for step in range(50):
            rec.log(step, {"loss": 1.0})
    names = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert names == [f"rank00000-attempt0000-{n:06d}.jsonl" for n in range(len(names))]
    assert len(names) > 5
    assert steps_of(lines_of(tmp_path)) == list(range(50))


def test_full_segments_are_sealed_while_the_training_goes_on(tmp_path, rows_of):
    with Recorder(tmp_path, segment_bytes=3000) as rec:
        for step in range(100):
            rec.log(step, {"loss": float(step)})
    assert not list(tmp_path.glob("*.jsonl"))
    assert not list(tmp_path.glob("*.tmp"))
    assert len(list(tmp_path.glob("*.parquet"))) >= 3
    assert [row["step"] for row in rows_of(tmp_path) if row["tag"] == "loss"] == list(range(100))


def test_threads_share_a_recorder_without_mixing_lines(tmp_path, lines_of):
    with Recorder(tmp_path, segment_bytes=20_000, seal=False) as rec:

        def work(number):
            for step in range(300):
                rec.log(step, {f"loss/{number}": step * 1.0})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = lines_of(tmp_path)
    for number in range(4):
        assert [r["step"] for r in records if f"loss/{number}" in r.get("values", {})] == list(range(300))


def test_a_short_write_is_completed(tmp_path, lines_of, monkeypatch):
    rec = Recorder(tmp_path, seal=False)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
        rec.log(1, {"loss": 1.0})
    rec.close()
    assert steps_of(lines_of(tmp_path)) == [1]
    assert rec.lost == 0


def test_a_write_that_fails_halfway_leaves_no_cut_line_and_warns_once(tmp_path, lines_of, monkeypatch, caught):
    real, calls = os.write, []

    def full(fd, data):
        calls.append(1)
        if len(calls) % 2:
            return real(fd, bytes(data)[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    rec = Recorder(tmp_path, seal=False)
    rec.log(1, {"loss": 1.0})
    with caught() as texts, monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        rec.log(2, {"loss": 1.0})
        rec.log(3, {"loss": 1.0})
    rec.log(4, {"loss": 1.0})
    rec.close()
    assert len(texts) == 1
    assert "No space left on device" in texts[0]
    assert rec.lost == 2
    records = lines_of(tmp_path)
    assert steps_of(records) == [1, 4]
    assert records[-1]["payload"] == {"status": "finished", "lost": 2}


def test_where_a_cut_line_cannot_be_taken_back_the_next_record_stands_apart(tmp_path, monkeypatch, caught):
    real = os.write

    def full(fd, data):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:-10])

    def refuse(fd, size):
        raise OSError(errno.EPERM, "Operation not permitted")

    rec = Recorder(tmp_path, seal=False)
    with caught(), monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "ftruncate", refuse)
        rec.log(2, {"loss": 1.0})
    rec.log(3, {"loss": 1.0})
    rec.close()
    lines = (tmp_path / "rank00000-attempt0000-000000.jsonl").read_bytes().split(b"\n")
    assert lines[0].startswith(b'{"kind":"metrics","step":2')
    assert json.loads(lines[1])["step"] == 3


def test_a_file_size_limit_of_the_system_stops_the_record_and_not_the_training(tmp_path):
    child = python(
        """
        import resource, sys, warnings
        from eventstream.recorder import Recorder
        rec = Recorder(sys.argv[1], seal=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(100):
                rec.log(step, {"loss": 1.0})
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        rec.log(100, {"loss": 1.0})
        rec.close()
        print(len(caught), rec.lost)
        """,
        tmp_path,
    )
    out, errors = child.communicate()
    assert child.returncode == 0, errors
    warned, lost = map(int, out.split())
    content = (tmp_path / "rank00000-attempt0000-000000.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in content.splitlines()]
    kept = 100 - lost
    assert warned == 1
    assert 5 < kept < 20
    assert steps == [*range(kept), 100, None]


def test_where_no_next_segment_opens_the_old_one_grows_on(tmp_path, lines_of, monkeypatch, caught):
    rec = Recorder(tmp_path, segment_bytes=300, seal=False)
    real = os.open

    def refuse(path, *arguments):
        if str(path).endswith(".jsonl"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *arguments)

    with caught() as texts:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            for step in range(20):
                rec.log(step, {"loss": 1.0})
        rec.close()
    assert steps_of(lines_of(tmp_path)) == list(range(20))
    assert len(texts) == 1
    assert "Too many open files" in texts[0]


def _child_logs(rec, results):
    import warnings

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for step in range(3):
            rec.log(100 + step, {"loss": 1.0})
        rec.close()
    results.put((len(found), rec.lost, [str(w.message) for w in found]))


@FORK
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_refuses_to_record_and_harms_nothing(tmp_path, lines_of, method):
    if method not in multiprocessing.get_all_start_methods():
        method = "spawn"
    context = multiprocessing.get_context(method)
    results = context.Queue()
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"loss": 1.0})
        child = context.Process(target=_child_logs, args=(rec, results))
        child.start()
        warned, lost, texts = results.get(timeout=60)
        child.join()
        rec.log(2, {"loss": 1.0})
    assert child.exitcode == 0
    assert (warned, lost) == (1, 3)
    assert "inherited the recorder" in texts[0]
    records = lines_of(tmp_path)
    assert steps_of(records) == [1, 2]
    assert [record["kind"] for record in records].count("end") == 1


@FORK
def test_a_fork_while_another_thread_records_does_not_hang(tmp_path):
    with Recorder(tmp_path, seal=False) as rec:
        stop = threading.Event()

        def work():
            while not stop.is_set():
                rec.log(1, {"loss": 1.0})

        thread = threading.Thread(target=work)
        thread.start()
        codes = []
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                try:
                    rec._troubles.say = lambda kind, message: None
                    rec.log(2, {"loss": 1.0})
                finally:
                    os._exit(0 if rec.lost == 1 else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        stop.set()
        thread.join()
    assert codes == [0] * 20


def test_a_copy_records_nothing_and_the_original_goes_on(tmp_path, lines_of, caught):
    with Recorder(tmp_path, seal=False) as rec:
        copy = pickle.loads(pickle.dumps(rec))
        with caught() as texts:
            copy.log(1, {"loss": 1.0})
            copy.note("x")
            copy.close()
        rec.log(2, {"loss": 1.0})
    assert (copy.path, copy.rank, copy.attempt) == (rec.path, 0, 0)
    assert len(texts) == 1
    assert steps_of(lines_of(tmp_path)) == [2]


def test_a_signal_handler_may_record_while_the_main_thread_does(tmp_path, lines_of):
    with Recorder(tmp_path, seal=False) as rec:
        real = rec._segments._lock

        class Interrupted:
            """The lock, with a signal that arrives while it is held."""

            def __enter__(self):
                real.__enter__()
                rec._segments._lock = real
                rec.note("preempted")

            def __exit__(self, *error):
                real.__exit__(*error)

        rec._segments._lock = Interrupted()
        rec.log(1, {"loss": 1.0})
    assert [record["kind"] for record in lines_of(tmp_path)] == ["note", "metrics", "end"]


def test_importing_and_recording_need_the_standard_library_alone(tmp_path):
    child = python(
        """
        import sys
        sys.modules["orjson"] = None  # as if it were not installed
        from eventstream.recorder import Recorder
        import eventstream.records, eventstream.seal, eventstream.errors
        with Recorder(sys.argv[1], seal=False) as rec:
            rec.log(1, {"loss": float("nan"), "é": 2})
        print(sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
        """,
        tmp_path,
    )
    out, errors = child.communicate()
    assert child.returncode == 0, errors
    loaded = set(eval(out)) - {"__main__", "eventstream", "__mp_main__"}
    heavy = {"numpy", "polars", "pyarrow", "pandas", "torch", "scipy", "parsers", "analysis", "aftertrain"}
    assert not loaded & heavy, loaded
    (path,) = tmp_path.glob("*.jsonl")
    assert '"values":{"loss":null,"é":2},"nonfinite":{"loss":"NaN"}' in path.read_text(encoding="utf-8")
