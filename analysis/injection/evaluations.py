"""Faults of generalisation, and of the evaluation itself."""

from __future__ import annotations

import numpy as np
import polars as pl

from analysis.injection.draft import Draft
from analysis.injection.fault import Fault
from analysis.injection.follow import follow
from analysis.injection.losses import RECORD_LOSS
from analysis.injection.shapes import Floats, ramp
from parsers.naming.role_layout import SeriesRole

__all__ = ["FAULTS"]

_RECORD = "record it: rec.log(step, {'loss': loss}, split='eval')"


def _eval_loss(draft: Draft) -> SeriesRole:
    """The eval loss, where the onset is set, in a run that has a training loss beside it."""
    loss = draft.wanted("eval_loss", _RECORD)
    if not draft.run.roles["train_loss"]:
        raise draft.refused(f"no training loss stands beside {loss}; {RECORD_LOSS}")
    draft.begin(loss)
    return loss


def _overfit(draft: Draft) -> None:
    loss = _eval_loss(draft)
    length = draft.length(draft.onset.rest)

    def factor(rows: Floats) -> Floats:
        return np.asarray(1 + draft.size * ramp(rows, length))

    draft.scale(loss, factor)
    follow(draft, loss, factor)


def _gap(draft: Draft) -> None:
    """Train falls further, and eval does not follow."""
    draft.wanted("eval_loss", _RECORD) if draft.metric is None else None
    loss = draft.wanted("train_loss", RECORD_LOSS)
    length = draft.length(draft.begin(loss).rest / 2)

    def factor(rows: Floats) -> Floats:
        return np.asarray(draft.size ** -ramp(rows, length))

    draft.scale(loss, factor)
    follow(draft, loss, factor)


def _summed(draft: Draft) -> None:
    loss = _eval_loss(draft)
    draft.change(loss, lambda part: part.value * draft.size)


def _leaked(draft: Draft) -> None:
    loss = _eval_loss(draft)
    length = draft.length(draft.onset.rest / 5)

    def factor(rows: Floats) -> Floats:
        return np.asarray(draft.size ** -ramp(rows, length))

    draft.scale(loss, factor)
    follow(draft, loss, factor)


def _carried(draft: Draft) -> None:
    """Every evaluation stands again on the rows that follow it, at even steps, until the next one."""
    loss = draft.wanted("eval_loss", _RECORD)
    if draft.begin(loss).step is None:
        raise draft.refused(f"{loss} has no steps at which values could stand again")
    times = int(draft.size)
    every = draft.onset.every
    own = (pl.col("metric") == loss.metric) & (pl.col("split") == loss.split) & (pl.col("tag") == loss.tag)
    repeats = pl.DataFrame({"_again": np.arange(times)}).lazy()
    spread = (pl.col("step") + pl.col("_again") * (every / times)).round().cast(pl.Int64)
    rows = draft.rows.filter(own).with_row_index("_row").join(repeats, how="cross").sort("_row", "_again")
    rows = rows.with_columns(step=spread).drop("_row", "_again")
    names = draft.rows.collect_schema().names()
    whole = pl.concat([draft.rows.filter(~own), rows.select(names)])
    if draft.table is None:
        draft.rows = whole
    else:
        draft.set_table(whole.collect())


FAULTS = (
    Fault(
        "overfitting",
        "the eval loss rises from there on, at the end by `size` of its own value, while training goes on as it was",
        _overfit, "share by which eval rises", 0.5, 0.0, 0.0, 1e3, tolerance=0.2,
    ),
    Fault(
        "train-eval-gap",
        "the training loss and its parts fall to 1 / `size` of themselves within `length` rows (half of what is left); "
        "eval stays as it was",
        _gap, "times further apart", 10.0, 1.0, 1.0, 1e6, tolerance=1.0, info=True,
    ),
    Fault(
        "train-eval-scale-mismatch",
        "every eval loss is `size` times as large, as one that is summed and not averaged",
        _summed, "times the eval loss", 32.0, 1.0, 1.0, 1e9, placed=False,
    ),
    Fault(
        "suspiciously-good",
        "the eval loss falls to 1 / `size` of itself within `length` rows (a fifth of what is left), as one of leaked "
        "data does",
        _leaked, "times smaller", 30.0, 1.0, 1.0, 1e9, tolerance=1.0, info=True,
    ),
    Fault(
        "stale-values",
        "the eval loss of every evaluation stands on `size` rows instead of one",
        _carried, "rows for each evaluation", 10.0, 1.0, 2.0, 1000.0, counted=True, placed=False, info=True,
    ),
)  # fmt: skip
