"""What a log holds besides the numbers of the training: times, and in many logs memory and throughput."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.faults.clock import Pace, draw_pace, stamp, with_memory, with_speed
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.trace import Trace

__all__ = ["dress", "is_dressed"]


def is_dressed(trace: Trace) -> bool:
    """Whether the rows have their times."""
    return bool(trace.rows) and trace.rows[0].time != 0.0


def dress(
    trace: Trace, recipe: Recipe, rng: np.random.Generator, *, memory: bool | None = None, speed: bool | None = None
) -> Pace:
    """Gives the rows their times and, unless said otherwise in a third of the logs each, memory and throughput."""
    pace = draw_pace(rng)
    if recipe.get("slow_evals", False):
        pace = replace(pace, eval_s=float(rng.uniform(20, 200)) * pace.step_s * recipe.every)
    stamp(trace, pace, rng)
    if memory if memory is not None else rng.random() < 0.35:
        with_memory(trace, rng)
    if speed if speed is not None else rng.random() < 0.35:
        with_speed(trace, recipe.batch, pace, rng)
    return pace
