"""One run of many processes: ranks started by torchrun, workers of data loaders, and four writers in one folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader

import aftertrain as at
import eventstream
from eventstream.errors import RecordingWarning
from eventstream.recorder import Recorder
from parsers.run import Run
from tests.eventstream.rank_writer import Rows, write
from tests.once import once

ROOT = Path(eventstream.__file__).parents[1]
HERE = Path(__file__).parent
#: What `ddp_script.py` is told in each launch of torchrun.
LAUNCHES = {
    "plain": ["plain"],
    "dies": ["plain", "--steps", "40", "--dies", "1"],
    "lightning": ["with_lightning", "--steps", "6"],
}


def _launch_all(folder: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    program = [sys.executable, "-W", "ignore", str(HERE / "launches.py")]
    command = [*program, str(folder), str(HERE / "ddp_script.py"), json.dumps(LAUNCHES)]
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def torchrun(name: str) -> tuple[Path, int, str]:
    """The folder of the run of that launch, the exit status of torchrun and what it said."""
    folder = once("torchrun", _launch_all) / name
    return folder / "run", int((folder / "status").read_text()), (folder / "said").read_text()


def steps(run: Run, rank: int, metric: str = "loss") -> list[int]:
    found = run.scalars.filter((pl.col("rank") == rank) & (pl.col("metric") == metric)).sort("step")
    return found["step"].to_list()


def statuses(run: Run) -> list[tuple[int, str]]:
    ends = run.events_of("end")
    return sorted((rank, json.loads(payload)["status"]) for rank, payload in ends.select("rank", "payload").rows())


def test_two_processes_of_torchrun_make_one_run() -> None:
    folder, status, said = torchrun("plain")
    assert status == 0, said
    run = at.load(folder)
    assert [steps(run, rank) for rank in (0, 1)] == [list(range(8))] * 2
    # What DDP keeps equal is equal, and the losses of different data are not.
    by_rank = run.scalars.sort("step").partition_by("rank", "metric", as_dict=True)
    assert by_rank[0, "weight"]["value"].to_list() == pytest.approx(by_rank[1, "weight"]["value"].to_list())
    assert by_rank[0, "loss"]["value"][0] != pytest.approx(by_rank[1, "loss"]["value"][0])
    assert statuses(run) == [(0, "finished"), (1, "finished")]
    assert run.config["processes"] == 2
    assert not run.rejects.height and at.diagnose(run) is not None


def test_a_process_that_is_killed_leaves_all_that_it_recorded_and_the_other_says_that_it_failed() -> None:
    folder, ended, said = torchrun("dies")
    assert ended != 0 and "Signal 9 (SIGKILL) received" in said
    run = at.load(folder)
    assert steps(run, 1) == list(range(21))
    survived = steps(run, 0)
    assert survived == list(range(len(survived))) and 20 <= len(survived) <= 22
    assert not [status for rank, status in statuses(run) if rank == 1]
    assert [status for rank, status in statuses(run) if status == "finished"] == []


def test_each_process_of_a_trainer_of_lightning_records_into_its_own_file() -> None:
    folder, status, said = torchrun("lightning")
    assert status == 0, said
    names = sorted(path.name.partition("-")[0] for path in folder.glob("rank*"))
    assert names == ["rank00000", "rank00001"]
    run = at.load(folder)
    assert steps(run, 0) == steps(run, 1) == list(range(6))
    assert set(statuses(run)) == {(0, "finished"), (1, "finished")}
    assert run.events_of("checkpoint")["rank"].unique().to_list() == [0]
    assert run.config["lightning"]["trainer"]["world_size"] == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("method", "persistent", "epochs"), [("fork", False, 2), ("fork", True, 2), ("spawn", True, 2)]
)
def test_workers_of_a_data_loader_record_nothing_and_harm_nothing(
    tmp_path: Path, method: str, persistent: bool, epochs: int
) -> None:
    seen: list[list[int]] = []
    with Recorder(tmp_path, seal=False) as rec:
        loader = DataLoader(
            Rows(rec), batch_size=2, num_workers=2, multiprocessing_context=method, persistent_workers=persistent
        )
        for epoch in range(epochs):
            for batch in loader:
                seen += torch.stack(batch, 1).tolist()
                rec.log(len(seen), {"loss": 1.0}, epoch=epoch)
        assert rec.lost == 0
    assert sorted(row for row, *_ in seen) == sorted([*range(12)] * epochs)
    workers = {process for *_, process in seen}
    assert len(workers) == (2 if persistent else 2 * epochs) and os.getpid() not in workers
    # Each worker warns once, and counts the two records of each row that it could not write.
    for worker in workers:
        told = [(said, lost) for _, said, lost, process in seen if process == worker]
        assert sum(said for said, _ in told) == 1
        assert [lost for _, lost in told] == [2 * (row + 1) for row in range(len(told))]
    assert [path.name for path in tmp_path.glob("rank*")] == ["rank00000-attempt0000-000000.jsonl"]
    run = at.load(tmp_path)
    assert run.metrics == ["loss"] and run.scalars.height == 6 * epochs
    assert not run.rejects.height


def test_a_worker_with_a_recorder_of_its_own_rank_records_beside_the_training(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(0, {"loss": 1.0})
        worker = context.Process(target=write, args=(tmp_path, 1000, 10))
        worker.start()
        worker.join(120)
        rec.log(1, {"loss": 0.5})
    run = at.load(tmp_path)
    assert steps(run, 0) == [0, 1] and steps(run, 1000) == list(range(10))


def test_ten_thousand_records_of_four_processes_are_whole_and_each_is_there_once(tmp_path: Path, lines_of: Any) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    writers = [context.Process(target=write, args=(tmp_path, rank, 2500, gate)) for rank in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    # `lines_of` refuses what is cut, interleaved or no strict JSON.
    numbers = [record["values"]["serial"] for record in lines_of(tmp_path) if record["kind"] == "metrics"]
    assert len(numbers) == 10_000 and sorted(numbers) == [float(n) for n in range(10_000)]
    run = at.load(tmp_path)
    assert not run.rejects.height
    assert [steps(run, rank) for rank in range(4)] == [list(range(2500))] * 4
    one = run.scalars.filter(pl.col("metric") == "loss").sort("rank", "step")
    assert one["value"].to_list() == [rank + step / 2500 for rank in range(4) for step in range(2500)]


def test_processes_that_torch_started_without_an_environment_have_their_rank_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    with Recorder(tmp_path, seal=False) as rec:
        assert rec.rank == 5
    monkeypatch.setenv("RANK", "2")
    with Recorder(tmp_path, seal=False) as rec:
        assert rec.rank == 2
    with Recorder(tmp_path, rank=7, seal=False) as rec:
        assert rec.rank == 7


def test_a_forked_child_may_close_and_flush_what_it_inherited_while_a_lock_is_held(tmp_path: Path) -> None:
    """A thread of the parent may be inside `close` at the fork; its lock is held in the child for ever."""
    rec = Recorder(tmp_path, seal=False)
    rec._closing.acquire()
    child = os.fork()
    if child == 0:
        rec.flush()
        rec.close("failed")
        os._exit(7 if rec.closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    rec._closing.release()
    rec.log(1, {"loss": 1.0})
    rec.close()
    assert statuses(at.load(tmp_path)) == [(0, "finished")]


def test_the_warning_in_a_worker_says_what_to_do(tmp_path: Path) -> None:
    import pickle

    with Recorder(tmp_path, seal=False) as rec:
        copied = pickle.loads(pickle.dumps(rec))
        with pytest.warns(RecordingWarning, match="record in the parent, or make a Recorder with another rank here"):
            copied.log(1, {"loss": 1.0})
