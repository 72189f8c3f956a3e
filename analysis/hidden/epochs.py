"""Logs that count epochs and nothing finer."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.findings import Finding
from analysis.hidden.facts import Drawn, Fact, Series, catalogue, read_series, training
from parsers.naming.roles import LOSSES
from parsers.run import Run

__all__ = ["epoch_only", "steps_are_epochs"]

KIND = "epoch-only"
#: Fewest rows that show how a log counts.
_ROWS = 3
#: Nobody logs so seldom: farther apart, the numbers count samples (MLPerf's BERT) or tokens.
_FAR = 100


def steps_are_epochs(step: np.ndarray[Any, np.dtype[np.float64]], epoch: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether the steps are the epochs: the same whole numbers, or numbers that differ by one all along.

    >>> steps_are_epochs(np.arange(5.0), np.arange(1.0, 6.0)), steps_are_epochs(np.arange(5.0), np.arange(5.0) / 5)
    (True, False)
    """
    apart = step - epoch
    whole = bool((epoch == np.floor(epoch)).all())
    return whole and len(step) >= _ROWS and float(np.ptp(apart)) == 0 and abs(float(apart[0])) <= 1


def epoch_only(run: Run) -> list[Fact] | str:
    """The fact of the run's axis, or why it cannot be told."""
    rows = catalogue(run)
    if not rows:
        return "no number was logged"
    row = training(rows, "loss") or max(rows, key=lambda r: (r["role"] in LOSSES, int(r["count"])))
    series = read_series(run, row)
    points = len(series.value)
    stepped = any(r["first_step"] is not None for r in rows)
    if points < _ROWS:
        return f"{points} row{'s' if points != 1 else ''}: too few to see how the log counts"
    if not stepped and not np.isfinite(series.epoch).all():
        return "the log counts neither steps nor epochs"
    if stepped and not steps_are_epochs(series.step, _epochs_beside(run, rows, series)):
        return [Fact(KIND, "clear", series.split, series.metric, points, points, None, "the log counts steps")]
    epochs = series.step if stepped else series.epoch
    if not (epochs == np.floor(epochs)).all():
        detail = "epochs are counted in fractions, which are finer than epochs"
        return [Fact(KIND, "clear", series.split, series.metric, points, points, None, detail)]
    count = len(np.unique(epochs))
    if (
        count < _ROWS or points >= 2 * count
    ):  # several rows an epoch: something finer than the epoch, though not counted
        detail = f"{points} rows in {count} epochs"
        return [Fact(KIND, "clear", series.split, series.metric, points, count, None, detail)]
    every = int(np.median(np.diff(np.unique(epochs))))
    if every > _FAR:
        return f"what is called an epoch goes in steps of {every:,}: it counts samples, or something else"
    finding = _finding(run, series, count, every, stepped)
    drawn = Drawn(epochs, series.value, np.ones(points, bool), "epoch", series.name, "one value an epoch")
    return [
        Fact(KIND, "found", series.split, series.metric, points, count, float(every), finding.message, finding, drawn)
    ]


def _epochs_beside(run: Run, rows: list[dict[str, Any]], series: Series) -> Any:
    """The epochs of the rows: their own, else those of a metric called `epoch` at the same steps, else NaN."""
    if np.isfinite(series.epoch).all():
        return series.epoch
    named = next((r for r in rows if str(r["metric"]).lower() == "epoch"), None)
    if named is not None and series.axis == "step":
        counted = read_series(run, named)
        if np.array_equal(counted.step, series.step):
            return counted.value
    return np.full(len(series.step), np.nan)


def _finding(run: Run, series: Series, count: int, every: int, stepped: bool) -> Finding:
    rows = "one value an epoch" if every == 1 else f"one value every {every} epochs"
    how = "steps are the numbers of epochs" if stepped else "there are no steps"
    return Finding(
        KIND,
        "info",
        run.name,
        f"the log has {rows} ({count:,} in all) and nothing finer: {how}; a spike, a NaN that passed or a "
        "stall inside an epoch cannot be seen",
        metric=series.metric,
        evidence={"epochs": count, "epochs_per_row": every, "rows": len(series.value), "steps_are_epochs": stepped},
        causes=("only means or ends of epochs are logged, as CSV loggers of epochs do (epochs, rows)",),
        suggestions=(
            "log the training loss every few steps, with the optimiser step",
            "mind that a training value of an epoch is often its mean, an eval value that of the weights at its end",
        ),
    )
