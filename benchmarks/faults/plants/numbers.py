"""Faults in single numbers: a value that is out, a NaN."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.faults.effects import level, log_noise
from benchmarks.faults.planting import ANY, NAMED, ONE_LOSS, Draw, NotPlantedError, Planted, plants
from benchmarks.faults.trace import Row, Trace

__all__ = ["non_finite", "outlier"]


@plants("outlier", reps=2, pooled=True, families=ONE_LOSS, formats=ANY)
def outlier(draw: Draw) -> Planted:
    """One row of the gradient norm or of the eval loss that is out, up or down (a faulty sum, a misread number)."""
    trace = draw.base()
    choices = [("grad_norm", "train")] + ([("loss", "eval")] if len(trace.where("eval")) >= 12 else [])
    metric, split = choices[int(draw.rng.integers(len(choices)))]
    rows = trace.where(split, metric)
    values = np.array([row.values[metric] for row in rows])
    factor = draw.factor(log_noise(values))
    up = bool(draw.rng.random() < 0.7)
    at = int(draw.rng.integers(int(0.35 * len(rows)), int(0.85 * len(rows))))
    usual = level(np.delete(values[max(0, at - 7) : at + 8], min(7, at)))
    if not usual > 0:
        raise NotPlantedError("the neighbours are 0")
    rows[at].values[metric] = usual * factor if up else usual / factor
    accepted = ("exploding-gradient",) if metric == "grad_norm" and up else ("loss-spike",) if up else ()
    step = rows[at].step
    return Planted(trace, factor, step, step, metric, accepted, {"up": up, "split": split})


@plants("non-finite", reps=2, pooled=True, families=ONE_LOSS, formats=NAMED, points=(60, 120, 300, 800))
def non_finite(draw: Draw) -> Planted:
    """1: from the middle to the end; 2 to 4: 20 rows, 5 rows, 1 row of the loss; 5: 3 rows of the gradient norm;
    6: one row of an eval metric or the gradient norm.
    """
    trace = draw.base()
    metric, split = ("loss", "train") if draw.magnitude <= 4 else ("grad_norm", "train")
    if draw.magnitude == 6 and trace.where("eval"):
        metric, split = next(iter(trace.metrics("eval"))), "eval"
    rows = trace.where(split, metric)
    count = len(rows) // 2 if draw.magnitude == 1 else int(draw.size)
    start = len(rows) - count if draw.magnitude == 1 else int(draw.rng.integers(len(rows) // 4, len(rows) - count))
    value = math.nan if draw.rng.random() < 0.6 else math.inf
    for row in rows[start : start + count]:
        row.values[metric] = value
    beside = _beside(trace, rows[start : start + count], metric) if draw.magnitude == 1 else ()
    end = None if draw.magnitude == 1 else rows[start + count - 1].step
    return Planted(trace, float(count), rows[start].step, end, metric, beside, {"split": split})


def _beside(trace: Trace, rows: list[Row], metric: str) -> tuple[str, ...]:
    """Weights that are NaN make every number of the model NaN, on eval too."""
    first = rows[0].step
    for row in trace.rows:
        for name in row.values:
            of_model = name in ("loss", "grad_norm", "eer", "param_norm") or "_loss" in name or "norm/" in name
            if row.step >= first and of_model:
                row.values[name] = math.nan
            elif row.step >= first and name == "accuracy":
                row.values[name] = 0.125
    # an accuracy that falls to chance with the weights is no mistake
    return ("level-shift", "outlier") if any("accuracy" in row.values for row in trace.rows) else ()
