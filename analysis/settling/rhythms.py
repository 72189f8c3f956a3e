"""What in a run goes round by design, so that a loss swings with it: epochs, cycles of the learning rate, evals."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.settling.signal import Signal
from analysis.settling.spectrum import detrended
from analysis.settling.swings import Swing
from parsers.run import Run

__all__ = ["known_rhythm"]

Floats = NDArray[np.float64]
#: Periods that differ by less are one, and never by more than half of what tells two frequencies of so many cycles
#: apart; a rhythm may show by its half or third as well.
_SAME, _CELL, _OVERTONES = 0.06, 0.5, (1, 2, 3)
#: Cycles from which on it is no chance that swings go round with something that has no part in the loss, or by a half
#: or third of a rhythm: of fewer, one period in ten is as long as any of these.
_MANY = 20.0
#: Part of what moves the learning rate that must lie at the period of the swings.
_WITH_RATE = 0.3


def known_rhythm(run: Run, signal: Signal, swing: Swing) -> str:
    """What recurs as often as the swings do, in words; empty where nothing that the log shows does."""
    if signal.rate is not None and _share_at(np.log(np.maximum(signal.rate, 1e-300)), swing) > _WITH_RATE:
        return f"the learning rate goes round in the same {_rows(signal, swing.period)}"
    epoch = _rows_an_epoch(run, signal)
    if epoch is not None and _fits(epoch, swing, _OVERTONES if swing.cycles >= _MANY else (1,)):
        return f"an epoch is {_rows(signal, epoch)} long: the same data come again"
    pause = _rows_between_evals(run, signal)
    if pause is not None and swing.cycles >= _MANY and _fits(pause, swing, _OVERTONES):
        return f"evaluations follow one another every {_rows(signal, pause)}"
    return ""


def _rows(signal: Signal, rows: float) -> str:
    if not np.isfinite(signal.step).all():
        return f"{rows:.3g} rows"
    return f"{rows * signal.every:,.4g} steps"


def _fits(length: float, swing: Swing, overtones: tuple[int, ...]) -> bool:
    near = min(_SAME, _CELL / swing.cycles)
    return any(abs(length / overtone / swing.period - 1) < near for overtone in overtones)


def _share_at(values: Floats, swing: Swing) -> float:
    """Part of the variance of a series that lies at the period of the swings, measured where they were seen."""
    rest = detrended(values[swing.first : swing.last + 1])
    square = float(rest @ rest)
    if square <= 1e-12 * len(rest):
        return 0.0
    taper = np.hanning(len(rest) + 2)[1:-1]
    turn = np.exp(-2j * np.pi * np.arange(len(rest)) / swing.period)
    return float(np.abs((rest * taper) @ turn) ** 2 / (square * float(taper @ taper) / 2))


def _rows_an_epoch(run: Run, signal: Signal) -> float | None:
    """Rows of the loss in one epoch, where the log counts epochs in its rows or in a metric of its own."""
    rows = run.series(signal.metric, split=signal.series.split or None, rank=signal.series.rank)
    epoch = rows["epoch"].to_numpy() if rows["epoch"].null_count() == 0 else np.empty(0)
    if len(epoch) == 0:
        named = next((m for m in run.metrics if m.lower().rsplit("/", 1)[-1] == "epoch"), None)
        if named is None:
            return None
        epoch = run.series(named, rank=signal.series.rank).drop_nulls("value")["value"].to_numpy()
        if len(epoch) < 2 or abs(len(epoch) / len(signal.value) - 1) > 0.02:
            return None
    grown = float(epoch[-1] - epoch[0])
    return (len(epoch) - 1) / grown if grown >= 2 else None


def _rows_between_evals(run: Run, signal: Signal) -> float | None:
    evals = run.catalogue.filter((pl.col("split") == "eval") & (pl.col("count") >= 4)).sort("count", descending=True)
    if evals.is_empty() or not np.isfinite(signal.step).all():
        return None
    first = evals.row(0, named=True)
    steps = run.series(first["metric"], split="eval", rank=first["rank"])["step"].drop_nulls().unique().sort()
    apart = steps.diff().drop_nulls().to_numpy()
    return float(np.median(apart)) / signal.every if len(apart) else None
