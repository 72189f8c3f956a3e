"""Recording: one `log` of 12 scalars with the record handed to the operating system, against what people use today."""

from __future__ import annotations

import functools
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import orjson

from benchmarks.measure import Row
from eventstream.recorder import Recorder

VALUES = {f"train/loss_{name}": 0.123456789 * (i + 1) for i, name in enumerate("abcdefghijkl")}
Logger = Callable[[int], object]


def _ours(folder: Path, stack: ExitStack) -> Logger:
    recorder = stack.enter_context(Recorder(folder / "run", seal=False))
    return functools.partial(recorder.log, values=VALUES, split="train")


def _bare(folder: Path, stack: ExitStack) -> Logger:
    """The same record and nothing else: no check, no promise, one write."""
    fd = os.open(folder / "bare.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    stack.callback(os.close, fd)

    def log(step: int) -> None:
        record = {"kind": "metrics", "step": step, "time": time.time(), "split": "train", "values": VALUES}
        os.write(fd, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    return log


def _json(folder: Path, stack: ExitStack) -> Logger:
    file = stack.enter_context((folder / "plain.jsonl").open("w"))

    def log(step: int) -> None:
        file.write(json.dumps({"step": step, "time": time.time(), "split": "train", **VALUES}) + "\n")
        file.flush()

    return log


def _tensorboard(folder: Path, stack: ExitStack) -> Logger:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies warn of each other
        from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "board"))
    stack.callback(writer.close)

    def log(step: int) -> None:
        for name, value in VALUES.items():
            writer.add_scalar(name, value, step)

    return log


def _microseconds(loggers: list[Logger], calls: int, rounds: int) -> list[float]:
    """Median microseconds of a call of each logger; they take turns, round by round."""
    times: list[list[float]] = [[] for _ in loggers]
    for turn in range(rounds):
        for own, log in zip(times, loggers, strict=True):
            start = time.perf_counter()
            for step in range(turn * calls, (turn + 1) * calls):
                log(step)
            own.append((time.perf_counter() - start) / calls * 1e6)
    return [statistics.median(own) for own in times]


def rows(quick: bool = False) -> list[Row]:
    calls, rounds = (200, 3) if quick else (200, 401)
    slow_calls, slow_rounds = (20, 3) if quick else (50, 41)
    work = "log of 12 scalars, in the system's hands"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        made = [make(folder, stack) for make in (_ours, _bare, _json)]
        ours, bare, plain = _microseconds(made, calls, rounds)
        board = _tensorboard(folder, stack)
        again, summary = _microseconds([made[0], board], slow_calls, slow_rounds)
    later = "its file is written later, by a thread"
    return [
        Row.at_most(work, ours, "orjson.dumps and os.write", bare, 2, unit="us"),
        Row.faster(work, ours, "json.dumps, write, flush", plain, 1, unit="us", note="the alternative breaks on a NaN"),
        Row.faster(work, again, "SummaryWriter.add_scalar x 12", summary, 1, unit="us", note=later),
    ]
