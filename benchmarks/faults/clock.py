"""When each row was written, how much memory was in use and how fast the training went: drawn, not measured.

A small model takes a fraction of a millisecond a step, unlike the trainings whose logs people keep. Times are those
of a job with steps of a tenth of a second to some seconds, with the unevenness of real ones: lognormal steps, now and
then a slow one, and pauses for evals and checkpoints.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from benchmarks.faults.trace import Row, Trace

__all__ = ["Pace", "draw_pace", "stamp", "with_memory", "with_speed"]

#: 2026-01-05 09:00 UTC: where the clocks of all runs begin, some days apart.
START = 1_767_603_600.0


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, the spread of their logarithm, seconds of an eval, and of a checkpoint every so many rows."""

    step_s: float
    spread: float
    eval_s: float
    checkpoint_rows: int
    checkpoint_s: float
    start: float


def draw_pace(rng: np.random.Generator) -> Pace:
    """A pace as jobs have it."""
    step = float(np.exp(rng.uniform(np.log(0.05), np.log(3.0))))
    rows = int(rng.choice([0, 100, 250, 500]))
    pause = float(rng.choice([0.5, 5.0, 15.0]))
    start = START + 86_400.0 * float(rng.integers(0, 200))
    return Pace(step, float(rng.choice([0.01, 0.05, 0.15])), pause, rows, 2 * pause, start)


def stamp(trace: Trace, pace: Pace, rng: np.random.Generator) -> None:
    """Sets the times of rows and events in their order; those of one step and split have the same step's time."""
    at, before, rows, attempt = pace.start, 0, 0, 0
    times: dict[tuple[int, int], float] = {}
    for row in trace.rows:
        if row.attempt != attempt:
            at, attempt, before = at + 120.0 + 30.0 * float(rng.random()), row.attempt, row.step - trace.every
        passed = max(0, row.step - before)
        if passed:
            at += float(np.sum(pace.step_s * np.exp(pace.spread * rng.standard_normal(min(passed, 50))))) * (
                passed / min(passed, 50)
            )
            rows += 1
            if pace.checkpoint_rows and rows % pace.checkpoint_rows == 0:
                at += pace.checkpoint_s
        if row.split == "eval" and not (trace.carried and row.step in trace.carried):
            at += pace.eval_s * float(np.exp(0.05 * rng.standard_normal()))
        before = row.step
        row.time = round(at, 6)
        times.setdefault((row.attempt, row.step), row.time)
    known = sorted(times)
    for event in trace.events:
        place = bisect.bisect_right(known, (event.attempt, -1 if event.step is None else event.step))
        event.time = times[known[max(0, place - 1)]]


def training_rows(trace: Trace) -> list[Row]:
    """Rows of the split `train`."""
    return [row for row in trace.rows if row.split == "train"]


def with_memory(trace: Trace, rng: np.random.Generator, *, name: str = "gpu_memory_mb") -> None:
    """Adds memory that warms up within a few rows and stays, with the small steps of an allocator."""
    level = float(rng.uniform(2_000, 60_000))
    for i, row in enumerate(training_rows(trace)):
        warm = 1 - 0.4 * np.exp(-i / 2)
        row.values[name] = round(level * warm * (1 + 0.002 * float(rng.choice([-1, 0, 0, 0, 1]))), 1)


def with_speed(trace: Trace, batch: int, pace: Pace, rng: np.random.Generator, *, spread: float = 0.04) -> None:
    """Adds the throughput of each row, slow in the first (compilation, caches)."""
    usual = batch / pace.step_s
    for i, row in enumerate(training_rows(trace)):
        slow = 0.5 if i == 0 else 1.0
        row.values["samples_per_second"] = round(usual * slow * float(np.exp(spread * rng.standard_normal())), 3)
