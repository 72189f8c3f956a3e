"""Faults of the log itself: holes, a step or a clock that goes back, a standstill, a cut, an early end."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.faults.planting import ANY, ONE_LOSS, TIMED, Draw, NotPlantedError, Planted, plants
from benchmarks.faults.trace import Trace

__all__ = ["clock_skew", "missing_steps", "stall", "step_regression", "truncated", "unfinished"]

FAMILIES = (*ONE_LOSS, "gan")


def _steps(trace: Trace) -> list[int]:
    return sorted({row.step for row in trace.where("train")})


@plants("missing-steps", pooled=True, families=FAMILIES, formats=ANY, points=(120, 300, 800, 1500))
def missing_steps(draw: Draw) -> Planted:
    """One hole: neither rows nor events of the steps in it."""
    trace = draw.base()
    steps = _steps(trace)
    count = int(draw.size) if draw.size >= 1 else max(3, round(draw.size * len(steps)))
    start = int(draw.rng.integers(len(steps) // 5, len(steps) - count - 5))
    first, last = steps[start], steps[start + count - 1]
    trace.rows = [row for row in trace.rows if not first <= row.step <= last]
    trace.events = [event for event in trace.events if event.step is None or not first <= event.step <= last]
    return Planted(trace, float(count), first, last, None, extra={"rows": count})


@plants(
    "step-regression", pooled=True, families=FAMILIES, formats=("event-stream", "jsonl", "text"), points=(120, 300, 800)
)
def step_regression(draw: Draw) -> Planted:
    """The counter is set back within one attempt while everything else goes on (the clock, the loss, the data)."""
    trace = draw.base()
    steps = _steps(trace)
    back = int(draw.size) if draw.size >= 1 else max(2, round(draw.size * len(steps)))
    at = int(draw.rng.integers(max(back + 1, len(steps) // 2), len(steps) - 5))
    first, offset = steps[at], steps[at] - steps[at - back]
    for record in (*trace.rows, *trace.events):
        if record.step is not None and record.step >= first:
            record.step -= offset
    return Planted(trace, float(back), first - offset, None, None, extra={"rows": back, "at_step": first})


@plants("clock-skew", pooled=True, families=FAMILIES, formats=TIMED, points=(60, 120, 300, 800))
def clock_skew(draw: Draw) -> Planted:
    """From one row on all times are earlier by so much: the clock of the machine was set back."""
    trace = draw.base()
    steps = _steps(trace)
    times = np.array([row.time for row in trace.where("train")])
    usual = float(np.median(np.diff(times)))
    seconds = max(draw.size, 3 * usual)
    first = steps[int(draw.rng.integers(len(steps) // 4, 3 * len(steps) // 4))]
    for record in (*trace.rows, *trace.events):
        if record.step is not None and record.step >= first:
            record.time -= seconds
    return Planted(trace, seconds, first, None, None, extra={"usual_interval_s": usual})


@plants("stall", pooled=True, families=FAMILIES, formats=TIMED, points=(60, 120, 300, 800))
def stall(draw: Draw) -> Planted:
    """Between two rows nothing is written for so long."""
    trace = draw.base()
    steps = _steps(trace)
    times = np.array([row.time for row in trace.where("train")])
    usual = float(np.median(np.diff(times)))
    least = draw.ladder.noise[draw.magnitude - 1] * usual if draw.ladder.noise else 0.0
    seconds = max(draw.size, least)
    first = steps[int(draw.rng.integers(len(steps) // 5, 4 * len(steps) // 5))]
    for record in (*trace.rows, *trace.events):
        if record.step is not None and record.step >= first:
            record.time += seconds
    return Planted(trace, seconds, first, first, None, extra={"usual_interval_s": usual})


@plants("unfinished-run", pooled=True, families=ONE_LOSS, formats=ANY, points=(60, 120, 300, 800))
def unfinished(draw: Draw) -> Planted:
    """The process is killed between two records; the steps that were meant stand in plan and configuration."""
    trace = draw.base()
    steps = _steps(trace)
    last = steps[max(2, round(draw.size * len(steps))) - 1]
    keep_before(trace, last)
    return Planted(trace, last / trace.steps, last, None, None)


def keep_before(trace: Trace, last: int) -> None:
    """Leaves what stands up to a step, as a kill does."""
    trace.rows = [row for row in trace.rows if row.step <= last]
    trace.events = [event for event in trace.events if event.step is None or event.step <= last]
    trace.status = None


@plants("truncated-stream", pooled=True, families=FAMILIES, formats=ANY, points=(60, 120, 300, 800))
def truncated(draw: Draw) -> Planted:
    """The file is cut inside a record at that share of its bytes, after it was written."""
    trace = draw.base()
    trace.status = None
    return Planted(trace, draw.size, -1, None, None, extra={"cut": draw.size})


def cut(path: Path, share: float) -> int:
    """Cuts the largest file of a log inside a record; returns how many bytes are left.

    A line is cut after a third of it, so that it cannot pass for a whole one; a binary record wherever the share falls.
    """
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name not in _BESIDE]
    file = max(files, key=lambda one: one.stat().st_size)
    data = file.read_bytes()
    at = int(share * len(data))
    if file.suffix in (".jsonl", ".csv", ".log"):
        begin = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", begin)
        if end < 0 or end - begin < 6:
            raise NotPlantedError("no whole line at the place of the cut")
        at = begin + (end - begin) // 3
    file.write_bytes(data[:at])
    return at


_BESIDE = {"config.json", "config.yaml", "hparams.yaml", "training_args.json", "manifest.json"}
