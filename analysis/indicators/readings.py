"""The number that each indicator shows: what an analysis measured, or the late level of a series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.diagnose import Diagnosis
from analysis.indicators.trend import late_trend
from analysis.kinds import KINDS
from parsers.naming.role_layout import SeriesRole
from parsers.naming.roles import words_of
from parsers.run import Run

__all__ = ["Reading", "level_of", "measured", "similarity", "trend_of_loss"]

#: The late level of a series is the median of so much of it, at its end.
_LATE = 0.1
_SIMILARITY = ("speaker similarity", "spk sim", "secs", "speaker sim", "same speaker similarity", "cosine similarity")


@dataclass(frozen=True, slots=True)
class Reading:
    """A number with its unit and metric; `low` and `high` are its 95 % interval where it has one."""

    value: float
    unit: str
    metric: str | None = None
    low: float | None = None
    high: float | None = None


def measured(diagnosis: Diagnosis, kind: str) -> Reading | None:
    """The worst number that was judged for a kind (`Result.measures`), None where nothing was."""
    limit = KINDS[kind].limit
    found = [one for one in diagnosis.measures if one.kind == kind]
    if limit is None or not found:
        return None
    worst = (max if limit.above else min)(found, key=lambda one: one.value)
    return Reading(worst.value, limit.unit, worst.metric)


def level_of(run: Run, role: str) -> Reading | None:
    """The median of the last tenth of the series that stands for the run in a role (`run.roles`)."""
    chosen = run.roles[role].series
    values = _values(run, chosen)[1] if chosen is not None else np.array([])
    if chosen is None or not len(values):
        return None
    late = values[-max(round(_LATE * len(values)), 1) :]
    middle = 2 * float(np.median(late / 2))  # two values near the largest float have no sum
    return Reading(middle, "as logged", chosen.metric)


def trend_of_loss(run: Run) -> Reading | None:
    """By how much the training loss of the run changes over its last fifth, in per cent of its level."""
    chosen = run.roles["train_loss"].series or run.roles["generator_loss"].series
    found = late_trend(*_values(run, chosen)) if chosen is not None else None
    if chosen is None or found is None:
        return None
    unit = "% of its level over the last fifth"
    return Reading(100 * found.slope, unit, chosen.metric, 100 * found.low, 100 * found.high)


def similarity(diagnosis: Diagnosis) -> Reading | None:
    """Same minus different similarity of speakers at the last step, else a logged similarity as it stands."""
    result = diagnosis.results.get("speaker_embeddings")
    if result is not None and (frame := result.frame.drop_nulls("separation")).height:
        return Reading(float(frame["separation"][-1]), "cosine, same - different speakers")
    for one in diagnosis.source.roles:
        if words_of(one.metric) in _SIMILARITY and len(values := _values(diagnosis.source, one)[1]):
            return Reading(float(np.median(values[-max(round(_LATE * len(values)), 1) :])), "as logged", one.metric)
    return None


def _values(run: Run, chosen: SeriesRole) -> tuple[np.ndarray, np.ndarray]:
    """Steps (record numbers where some are unknown) and finite values of a series, of its first rank."""
    rows = run.series(chosen.metric, split=chosen.split)
    rows = rows.filter((pl.col("tag") == chosen.tag) & (pl.col("rank") == pl.col("rank").min()))
    rows = rows.filter(pl.col("value").is_finite())
    if rows["step"].null_count():
        return np.arange(float(rows.height)), rows["value"].to_numpy()
    return rows["step"].cast(pl.Float64).to_numpy(), rows["value"].to_numpy()
