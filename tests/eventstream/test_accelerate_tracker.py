"""A real Accelerator on the CPU with `AccelerateTracker`: what stands in the stream, and how the run ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import GeneralTracker
from torch import nn

import aftertrain as at
from eventstream.accelerate_tracker import TrackerCore
from eventstream.errors import InputError
from parsers.run import Run


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._shared_state.clear()


def accelerator(*trackers: Any, **changes: Any) -> Accelerator:
    return Accelerator(cpu=True, log_with=list(trackers), **changes)


def train(made: Accelerator, steps: int = 20) -> list[float]:
    """A straight line, as a script for Accelerate has it; gives the losses."""
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    model, optimizer = nn.Linear(4, 1), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model, optimizer = made.prepare(model, optimizer)
    losses = []
    for step in range(steps):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        made.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        made.log({"train_loss": loss.detach(), "epoch": step // 8}, step=step)
        if step % 8 == 7:
            made.log({"loss": loss.item()}, step=step, log_kwargs={"aftertrain": {"split": "eval"}})
    return losses


def payloads(run: Run, kind: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in run.events_of(kind)["payload"]]


def test_a_training_stands_under_its_names_splits_steps_and_epochs(tmp_path: Path) -> None:
    made = accelerator(at.AccelerateTracker(tmp_path / "run", plan={"max_steps": 20}))
    made.init_trackers("project", config={"lr": 0.05, "hf_token": "x"})
    losses = train(made)
    made.end_training()
    run = at.load(tmp_path / "run")
    frame = run.series("loss", split="train")
    assert frame["step"].to_list() == list(range(20))
    assert frame["value"].to_list() == pytest.approx(losses)
    assert run.scalars.filter(run.scalars["split"] == "train")["epoch"].unique().sort().to_list() == [0.0, 1.0, 2.0]
    assert run.series("loss", split="eval")["step"].to_list() == [7, 15]
    assert (run.config, run.plan) == ({"lr": 0.05}, {"max_steps": 20})
    assert [end["status"] for end in payloads(run, "end")] == ["finished"]


def test_several_trackers_get_the_same_numbers(tmp_path: Path) -> None:
    made = accelerator("tensorboard", at.AccelerateTracker(tmp_path / "run"), project_dir=tmp_path)
    made.init_trackers("board", config={"lr": 0.05})
    train(made, 8)
    made.end_training()
    ours = at.load(tmp_path / "run").series("loss", split="train")
    theirs = at.load(tmp_path / "board").series("loss", split="train")
    assert theirs["step"].to_list() == ours["step"].to_list() == list(range(8))
    assert theirs["value"].to_list() == pytest.approx(ours["value"].to_list(), rel=1e-6)


def test_the_recorder_is_what_get_tracker_gives(tmp_path: Path) -> None:
    made = accelerator(at.AccelerateTracker(tmp_path / "run"))
    made.init_trackers("project")
    recorder = made.get_tracker("aftertrain", unwrap=True)
    recorder.losses(3, {"kd": (1.0, 0.5)}, total=0.5)
    (tmp_path / "weights.bin").write_bytes(b"weights")
    recorder.checkpoint(3, tmp_path / "weights.bin")
    made.end_training()
    run = at.load(tmp_path / "run")
    assert run.series("losses/total")["value"].to_list() == [0.5]
    assert payloads(run, "checkpoint")[0]["bytes"] == 7


def test_a_recorder_that_is_given_stays_open(tmp_path: Path) -> None:
    with at.Recorder(tmp_path) as recorder:
        made = accelerator(at.AccelerateTracker(recorder))
        made.init_trackers("project", config={"lr": 0.1})
        train(made, 2)
        made.end_training()
        assert not recorder.closed
        recorder.log(2, {"train_loss": 0.0})
    run = at.load(tmp_path)
    assert run.series("loss", split="train")["step"].to_list() == [0, 1, 2]
    assert len(payloads(run, "end")) == 1


def test_other_processes_record_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = at.AccelerateTracker(tmp_path / "run")
    made = accelerator(tracker)
    monkeypatch.setitem(PartialState._shared_state, "process_index", 1)
    made.init_trackers("project", config={"lr": 0.1})
    made.log({"loss": 1.0}, step=0)
    tracker.start()
    tracker.log({"loss": 1.0}, step=0)
    tracker.finish()
    made.end_training()
    assert tracker.tracker is None
    assert not (tmp_path / "run").exists()


def test_each_process_records_its_own_file_where_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = at.AccelerateTracker(tmp_path)
    tracker.main_process_only = False
    accelerator(tracker)
    monkeypatch.setitem(PartialState._shared_state, "process_index", 3)
    tracker.log({"loss": 1.0}, step=0)
    tracker.finish()
    assert [path.name[:18] for path in tmp_path.glob("rank*")] == ["rank00003-attempt0"]


def test_a_step_that_is_not_given_is_not_invented(tmp_path: Path) -> None:
    made = accelerator(at.AccelerateTracker(tmp_path))
    made.init_trackers("project")
    made.log({"train_loss": 1.0})
    made.log({"train_loss": 0.5, "step": 7})
    made.log({"train_loss": 0.25, "step": 7}, step=9)
    made.end_training()
    run = at.load(tmp_path)
    assert run.scalars.sort("value", descending=True)["step"].to_list() == [None, 7, 9]
    assert at.diagnose(run) is not None


def test_an_exception_under_way_is_the_end_of_the_run_and_one_before_it_is_not(tmp_path: Path) -> None:
    made = accelerator(at.AccelerateTracker(tmp_path))
    made.init_trackers("project")
    try:
        try:
            raise ValueError("the loss went away")
        finally:
            made.end_training()
    except ValueError:
        made.trackers.clear()
        made.init_trackers("project")
        train(made, 2)
        made.end_training()
    first, second = payloads(at.load(tmp_path), "end")
    assert (first["status"], first["error"]) == ("failed", "ValueError: the loss went away")
    assert second["status"] == "finished"


def test_begun_again_it_is_the_next_attempt(tmp_path: Path) -> None:
    for _ in range(2):
        made = accelerator(at.AccelerateTracker(tmp_path))
        made.init_trackers("project")
        train(made, 3)
        made.end_training()
    assert at.load(tmp_path).scalars["attempt"].to_list() == [0, 0, 0, 1, 1, 1]


def test_it_is_a_tracker_of_accelerate_and_refuses_what_is_no_folder(tmp_path: Path) -> None:
    tracker = at.AccelerateTracker(tmp_path / "run")
    assert isinstance(tracker, GeneralTracker) and isinstance(tracker, TrackerCore)
    assert tracker.name == "aftertrain" and not tracker.requires_logging_directory
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="a Recorder or the folder of the run, got NoneType"):
        at.AccelerateTracker(None)
