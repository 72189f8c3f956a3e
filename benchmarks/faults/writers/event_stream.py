"""The project's own event stream, written by its `Recorder` with the clock of the trace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.faults.trace import Event, Row, Trace
from eventstream.recorder import Recorder

__all__ = ["write_stream"]


class _Clock:
    """Stands in for the machine's clock while a log is written."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return round(self.now * 1e6) * 1000


@contextlib.contextmanager
def _clock() -> Iterator[_Clock]:
    clock = _Clock()
    with mock.patch.multiple(time, time=clock.time, time_ns=clock.time_ns):
        yield clock


def write_stream(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The run's folder; half of them sealed as Parquet, as a `Recorder` leaves them, half as JSON lines."""
    run = folder / "run"
    sealed = bool(rng.random() < 0.5)
    ranks = sorted({row.rank for row in trace.rows})
    attempts = sorted({row.attempt for row in trace.rows})
    for rank in ranks:
        for attempt in attempts:
            last = attempt == attempts[-1]
            _attempt(trace, run, rank, attempt, seal=sealed, last=last)
    return run


def _attempt(trace: Trace, run: Path, rank: int, attempt: int, *, seal: bool, last: bool) -> None:
    mine = [one for one in trace.in_order() if one.rank == rank and one.attempt == attempt]
    if not mine:
        return
    world = {} if trace.world is None else {"WORLD_SIZE": str(trace.world)}
    with _clock() as clock, mock.patch.dict("os.environ", world):
        clock.now = mine[0].time - 2.0
        first = {"config": trace.config, "plan": trace.plan} if attempt == 0 and rank == 0 else {}
        killed = trace.status is None or not last or rank in trace.killed
        rec = Recorder(run, **first, rank=rank, seal=seal and not killed)
        for one in mine:
            clock.now = one.time
            _record(rec, one)
        clock.now += 1.0
        if killed:
            _kill(rec)
        elif trace.status == "failed":
            rec.close(status="failed", error=trace.error)
        else:
            rec.close()


def _record(rec: Recorder, one: Row | Event) -> None:
    if isinstance(one, Row):
        rec.log(one.step, one.values, split=one.split, epoch=one.epoch)
    elif one.kind == "losses":
        payload: dict[str, Any] = one.payload
        rec.losses(one.step, payload["components"], total=payload["total"], displayed=payload["displayed"])
    elif one.kind == "curriculum":
        rec.curriculum(one.step, one.payload["phase"], one.payload["weights"], one.payload["progress"])
    elif one.kind == "resources":
        rec.resources(one.step, **one.payload)
    else:
        rec.event(one.kind, one.payload, step=one.step)


def _kill(rec: Recorder) -> None:
    """As a SIGKILL leaves the folder: records are with the system already, and no end is written."""
    path = rec.path
    before = {file: file.read_bytes() for file in path.glob("*.jsonl")}
    rec.close()
    for file in path.glob("*.jsonl"):
        if file in before:
            file.write_bytes(before[file])
