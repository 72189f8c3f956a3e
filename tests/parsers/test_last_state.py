"""Of two branches of a resumed Trainer's checkpoints the one trained last counts, and not the one that came further."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest

from parsers.huggingface import read
from parsers.run import Run
from tests.once import once
from tests.parsers.tiny_net import tiny_net


def train(place: Path) -> None:
    """Trained to step 100, begun again from checkpoint-60 on other data, stopped at 80.

    The files of the first training are a minute old when the second begins, as a resume finds them.
    """
    import torch
    from transformers import Trainer, TrainingArguments

    folder = place / "tiny"
    for name, steps, resumed in (("first", 100, None), ("second", 80, f"{folder}/checkpoint-60")):
        torch.manual_seed(steps)
        data = [{"x": torch.randn(4), "labels": torch.randn(())} for _ in range(64)]
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch and transformers themselves
            patch.setenv("TENSORBOARD_LOGGING_DIR", f"{folder}/runs/{name}")
            args = TrainingArguments(
                str(folder), max_steps=steps, per_device_train_batch_size=4, logging_steps=5, save_steps=20,
                report_to=["tensorboard"], use_cpu=True, disable_tqdm=True,
            )  # fmt: skip
            Trainer(model=tiny_net(), args=args, train_dataset=data).train(resume_from_checkpoint=resumed)
        if resumed is None:
            for path in folder.rglob("*"):
                os.utime(path, (path.stat().st_mtime - 60,) * 2)


@pytest.fixture(scope="module")
def resumed() -> Path:
    """A real Trainer's folder, see `train`. It trains in this process: transformers takes seconds to start anew."""
    return once("resumed-trainer", train) / "tiny"


def copied(resumed: Path, folder: Path, *, times: bool, logs: bool) -> Path:
    """The same folder, with or without the event files, and with its file times or all of one moment."""
    shutil.copytree(resumed, folder / "tiny")
    if not logs:
        for path in [*folder.rglob("events.out.tfevents.*")]:
            path.unlink()
    for path in [] if times else [*folder.rglob("trainer_state.json")]:
        os.utime(path, (1.7e9, 1.7e9))
    return folder / "tiny"


def entries(folder: Path, step: int) -> list[dict[str, float]]:
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


def told(run: Run) -> list[str]:
    return [json.loads(text)["text"] for text in run.events_of("note")["payload"] if "counts" in text]


def test_the_case_is_what_it_is_meant_to_be(resumed: Path) -> None:
    assert sorted(path.name for path in resumed.glob("checkpoint-*")) == [
        f"checkpoint-{step}" for step in (100, 20, 40, 60, 80)
    ]
    dead, live = entries(resumed, 100), entries(resumed, 80)
    assert dead[:12] == live[:12] and all(a["loss"] != b["loss"] for a, b in zip(dead[12:], live[12:], strict=False))


@pytest.mark.parametrize(
    ("times", "logs", "word"),
    [(False, True, "TensorBoard's log says last"), (True, True, "TensorBoard"), (True, False, "file was written last")],
)
def test_the_branch_trained_last_counts_as_logs_or_else_file_times_tell(
    times: bool, logs: bool, word: str, resumed: Path, tmp_path: Path
) -> None:
    folder = copied(resumed, tmp_path, times=times, logs=logs)
    run = read(folder)
    live = run.series("loss", split="train")
    assert live.select("step", "value").rows() == [(e["step"], e["loss"]) for e in entries(folder, 80)]
    assert live["attempt"].to_list() == [0] * 12 + [1] * 4
    left = run.series("loss", split="train", live=False).filter(attempt=0)
    assert left.select("step", "value").rows() == [(e["step"], e["loss"]) for e in entries(folder, 100)]
    (note,) = told(run)
    assert "checkpoint-80" in note.partition(" counts")[0] and "checkpoint-100" in note and word in note
    assert run.config["max_steps"] == 80 and run.rejects.is_empty()


@pytest.mark.parametrize("mixed", [False, True])
def test_where_nothing_tells_the_furthest_counts_and_the_doubt_is_said(
    mixed: bool, resumed: Path, tmp_path: Path
) -> None:
    folder = copied(resumed, tmp_path, times=False, logs=False)
    if mixed:  # copied one after the other by name: a checkpoint is older than those that it goes on from
        for number, name in enumerate(("100", "20", "40", "60", "80")):
            os.utime(folder / f"checkpoint-{name}" / "trainer_state.json", (1.7e9 + 60 * number,) * 2)
    run = read(folder)
    assert run.series("loss", split="train")["step"].to_list() == list(range(5, 101, 5))
    (note,) = told(run)
    assert note.startswith("which was trained last cannot be told") and "checkpoint-100" in note


@pytest.mark.parametrize("anew", [False, True])
def test_the_log_of_llama_factory_tells_it_too(anew: bool, resumed: Path, tmp_path: Path) -> None:
    folder = copied(resumed, tmp_path, times=False, logs=False)
    rows = [*([] if anew else entries(folder, 100)), *entries(folder, 80)[12:]]
    lines = [{"current_steps": e["step"], "total_steps": 80, "loss": e["loss"], "percentage": 1} for e in rows]
    (folder / "trainer_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read(folder)
    assert run.series("loss", split="train")["step"].max() == 80
    (note,) = told(run)
    assert "trainer_log.jsonl says last" in note and run.rejects.is_empty()


def test_a_furthest_state_that_was_trained_last_needs_no_word(resumed: Path, tmp_path: Path) -> None:
    folder = copied(resumed, tmp_path, times=False, logs=False)
    os.utime(folder / "checkpoint-100" / "trainer_state.json", (1.8e9, 1.8e9))
    run = read(folder)
    assert run.series("loss", split="train")["step"].max() == 100
    assert told(run) == [] and run.series("loss", split="train", live=False).filter(attempt=0)["step"].max() == 80
