"""How far the learning rate lets weights go between saves: its sum over the steps, beside what they went."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.weights.joined import series_of
from parsers.run import Run

__all__ = ["with_lr_steps"]


def with_lr_steps(changes: pl.DataFrame, saves: pl.DataFrame, run: Run | None) -> pl.DataFrame:
    """`changes` with `lr_steps`: the learning rate summed over the steps from the save before to this one.

    `update_ratio / lr_steps` is how far a layer went for what the optimizer was allowed: under one rate, layers and
    stretches of a training can be compared by it, whatever the schedule. `saves` are those of `Checkpoints.saves`, with
    the steps of both ends; the rate between two logged ones is taken to go straight, and before the first and after the
    last to stay. Null without a log, a learning rate in it, or steps; with groups of parameters it is the rate of the
    role's own series.
    """
    rate = None if run is None else series_of(run, run.roles["learning_rate"].series)
    at = dict(saves.select("save", "step").iter_rows())
    pairs = changes.select("before", "save").unique(maintain_order=True).rows()
    sums = (
        {}
        if rate is None
        else {pair: _between(rate.steps, rate.values, *(at.get(one) for one in pair)) for pair in pairs}
    )
    table = pl.DataFrame(
        [(*pair, sums.get(pair)) for pair in pairs],
        schema={"before": pl.String, "save": pl.String, "lr_steps": pl.Float64},
        orient="row",
    )
    return changes.join(table, on=["before", "save"], how="left", maintain_order="left")


def _between(
    steps: NDArray[np.int64], values: NDArray[np.float64], first: int | None, last: int | None
) -> float | None:
    """Sum of the rate over the steps after `first` up to `last`; None where these are no stretch.

    >>> _between(np.array([0, 10]), np.array([1.0, 0.0]), 0, 4)  # 0.9 + 0.8 + 0.7 + 0.6
    3.0
    """
    if first is None or last is None or first >= last:
        return None
    # a step that was logged twice, before a resume and after it, counts as it was logged last
    known, place = np.unique(steps[::-1], return_index=True)
    rates = values[::-1][place]
    inside = known[(known > first) & (known < last)]
    knots = np.unique(np.concatenate([[first + 1, last], inside]))
    heights = np.interp(knots, known, rates)
    # on each straight stretch the sum over its steps is the mean of its ends times their number, the first end counted
    # with the stretch before
    parts = np.diff(knots) * (heights[:-1] + heights[1:]) / 2 + np.diff(heights) / 2
    return float(heights[0] + parts.sum())
