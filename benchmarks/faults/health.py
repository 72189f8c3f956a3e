"""Whether a training without a planted fault really went well, by its own numbers: else it is drawn again.

A rate that happens to be too high for a seed, or epochs enough to overfit, would make a "healthy" run that is not.
What is refused here is what no one would call healthy; whatever merely looks odd stays.
"""

from __future__ import annotations

import numpy as np

from benchmarks.faults.effects import level, log_noise
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.trace import Trace

__all__ = ["why_unhealthy"]

#: Highest level of the end over the lowest level of the run, for train and for eval (medians of a tenth of the rows).
RISES = {"train": 1.25, "eval": 1.06}


def why_unhealthy(trace: Trace, recipe: Recipe) -> str:
    """Empty for a training that went well; else what is wrong with it."""
    metric = "d_loss" if recipe.family == "gan" else "loss"
    if not all(np.isfinite(trace.series(metric)[1])):
        return "the loss is not finite"
    if recipe.family == "gan":
        return _why_bad_gan(trace)
    if recipe.family == "distillation":
        return ""  # its loss is another sum in every phase
    for split, most in RISES.items():
        values = trace.series("loss", split)[1]
        if len(values) >= 8 and (rise := _rise(values)) > most * _chance(values):
            return f"the {split} loss ends {rise:.2f} times above its lowest"
    first, last = trace.series("loss")[1][:3].mean(), level(trace.series("loss")[1][-5:])
    return "" if last < first else "the loss did not fall"


def _span(values: np.ndarray) -> int:
    return max(3, len(values) // 10)


def _chance(values: np.ndarray) -> float:
    """How far noise alone lifts the last of some ten medians above the lowest of them: four standard errors."""
    return float(np.exp(4 * 1.25 * log_noise(values) / np.sqrt(_span(values))))


def _rise(values: np.ndarray) -> float:
    span = _span(values)
    levels = np.array([level(values[i : i + span]) for i in range(len(values) - span + 1)])
    return float(levels[-1] / levels.min())


def _why_bad_gan(trace: Trace) -> str:
    diversity, modes = (level(trace.series(name)[1][-10:]) for name in ("diversity", "modes_covered"))
    if diversity < 0.8 or modes < 7:
        return f"the generator draws {modes:.0f} of 8 modes with {diversity:.2f} of their spread"
    return ""
