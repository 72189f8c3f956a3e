"""What the log says at each save: loss, evaluation and learning rate there, and which of the saves is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.planned.log_end import BY_ONE, log_end
from parsers.naming.role_layout import SeriesRole
from parsers.run import Run

__all__ = ["JOINED", "join_log", "series_of"]

#: The loss of single batches swings; so many rows up to the save give its level (their median).
_ROWS = 20
#: What saves are compared by where a run has no evaluation loss, and of which of it more is better.
_SCORES = ("perplexity", "error_rate", "accuracy", "reward")
_HIGHER = frozenset({"accuracy", "reward"})

#: Columns of the joined frame. `eval` is the last evaluation at or before the save and `eval_step` where it was made;
#: `in_log` whether the log reaches the step (null where the step or the steps of the log are unknown).
JOINED = pl.Schema(
    {
        "step": pl.Int64,
        "in_log": pl.Boolean,
        "loss": pl.Float64,
        "eval": pl.Float64,
        "eval_metric": pl.String,
        "eval_step": pl.Int64,
        "lr": pl.Float64,
        "best": pl.Boolean,
    }
)


@dataclass(frozen=True, slots=True)
class _Series:
    """Values of one series by their steps, rising."""

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def until(self, step: int) -> int:
        """Rows up to a step; up to the next one where nothing was logged at the step itself."""
        rows = int(np.searchsorted(self.steps, step, side="right"))
        if rows and self.steps[rows - 1] == step:
            return rows
        return int(np.searchsorted(self.steps, step + BY_ONE, side="right"))


def join_log(run: Run | None, steps: Sequence[int | None], *, sound: Sequence[bool] | None = None) -> pl.DataFrame:
    """One row a save of these steps, in their order, with what the log of `run` says there (`JOINED`).

    `loss` is the median of the last 20 rows of the training loss up to the save; `eval` the last value of the
    evaluation loss (or, without one, of the score that stands for the run) up to it; `lr` the last learning rate.
    `best` marks the save with the best evaluation (lowest for a loss, highest for a score; without evaluations the
    lowest `loss`), the first of several alike, among those that the log reaches and that are `sound` (default: all).
    Everything is null without a run, without steps, and for what the log does not have. Values that are not finite are
    left out; where they are half of those 20 rows, `loss` is null.

    >>> from parsers.finish import finish
    >>> rows = {"tag": ["eval_loss"] * 3, "step": [100, 200, 300], "value": [0.5, 0.4, 0.6]}
    >>> joined = join_log(finish("demo", "demo.jsonl", "jsonl", pl.DataFrame(rows)), [100, 200, 500])
    >>> joined["eval"].to_list(), joined["best"].to_list(), joined["in_log"].to_list()
    ([0.5, 0.4, 0.6], [False, True, False], [True, True, False])
    """
    if run is None or not steps:
        return pl.DataFrame([(step, *[None] * 7) for step in steps], schema=JOINED, orient="row")
    loss = series_of(run, run.roles["train_loss"].series, finite=False)
    rate = series_of(run, run.roles["learning_rate"].series)
    judged, higher = _evaluation(run)
    end = log_end(run)
    rows: list[tuple[object, ...]] = []
    for step in steps:
        if step is None:
            rows.append((None, None, None, None, None, None, None, None))
            continue
        known = None if end is None else end.reaches(step)
        value, at = _last(judged, step)
        named = judged.name if judged is not None and at is not None else None
        rows.append((step, known, _level(loss, step), value, named, at, _last(rate, step)[0], None))
    joined = pl.DataFrame(rows, schema=JOINED, orient="row")
    return joined.with_columns(best=_best(joined, higher, [True] * len(steps) if sound is None else sound))


def series_of(run: Run, chosen: SeriesRole | None, *, finite: bool = True) -> _Series | None:
    """The values of a series that have a step, in the order of steps (of one step as logged); None where none are."""
    if chosen is None:
        return None
    rows = run.series(chosen.metric, split=chosen.split)
    kept = (pl.col("tag") == chosen.tag) & pl.col("step").is_not_null() & pl.col("value").is_not_null()
    kept &= pl.col("value").is_finite() | (not finite)
    rows = rows.filter(kept).sort("step", maintain_order=True)
    if rows.is_empty():
        return None
    return _Series(f"{chosen.split} {chosen.metric}".strip(), rows["step"].to_numpy(), rows["value"].to_numpy())


def _evaluation(run: Run) -> tuple[_Series | None, bool]:
    """The series by which saves are compared, and whether more of it is better."""
    scores = [one for one in run.roles if one.side == "eval" and one.role in _SCORES]
    scores.sort(key=lambda one: (_SCORES.index(one.role), -one.count))
    for one in (run.roles["eval_loss"].series, *scores):
        series = series_of(run, one)
        if one is not None and series is not None:
            return series, one.role in _HIGHER
    return None, False


def _last(series: _Series | None, step: int) -> tuple[float | None, int | None]:
    rows = 0 if series is None else series.until(step)
    if series is None or not rows:
        return None, None
    return float(series.values[rows - 1]), int(series.steps[rows - 1])


def _level(series: _Series | None, step: int) -> float | None:
    rows = 0 if series is None else series.until(step)
    if series is None or not rows:
        return None
    window = series.values[max(0, rows - _ROWS) : rows]
    known = window[np.isfinite(window)]
    # Where the loss is NaN there is no level: that of the steps before would make a broken save the best.
    return float(np.median(known)) if known.size > window.size / 2 else None


def _best(joined: pl.DataFrame, higher: bool, sound: Sequence[bool]) -> pl.Series:
    """Where the best value stands, judged by evaluations of their own (one carried on to later saves is no new one)."""
    rows = joined.with_row_index("row").with_columns(sound=pl.Series(list(sound), dtype=pl.Boolean))
    reached = rows.filter(pl.col("in_log") & pl.col("sound"))
    judged, column = reached.filter(pl.col("eval").is_not_null()).unique("eval_step", keep="first"), "eval"
    if judged.is_empty():
        judged, column = reached.filter(pl.col("loss").is_not_null()), "loss"
    if judged.is_empty():
        return pl.Series([None] * joined.height, dtype=pl.Boolean)
    chosen = judged.sort([column, "row"], descending=[higher and column == "eval", False])["row"][0]
    return pl.Series([row == chosen for row in range(joined.height)], dtype=pl.Boolean)
