"""What else the log shows where an episode begins: gradient norm, learning rate, weights, a restart, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.anomaly.episodes import Episode
from analysis.anomaly.log_series import Series

__all__ = ["LOST", "causes_of", "is_planned"]

#: A rise that stays at or above this factor has lost what training had reached.
LOST = 2.0
#: A learning rate has risen from this factor on.
_RISEN = 1.2

#: Rows of the episode's own log before its beginning in which a cause may lie, and before that, what is usual.
_BEFORE, _USUAL = 20, 100
#: Rows after it: a spike's row is exact, while the beginning of a new level is found to within some rows.
_AFTER = {"spike": 3, "jump": 8}
#: A level that is another from one row to the next has its cause right there (the row is found to within seven rows in
#: noise of 8 % and twice as much of a jump). A rate that rose long before, as in each of its cycles, did nothing then.
_TOLD_TO = {"jump": 8}


def causes_of(episode: Episode, context: Sequence[Series]) -> tuple[str, ...]:
    """Causes for which the log holds evidence, the most telling first; else what to record in order to know."""
    changes = [change.text for change in _changes(episode, context)]
    causes = [*_restart(episode), *changes, *_gradient(episode, context)]
    if episode.shape == "spike" and episode.rows == 1 and episode.recovery is not None:
        causes.append("one step alone, and back at the next: likely a single bad batch")
    if causes:
        return tuple(causes)
    roles = {s.role for s in context}
    missing = [name for name, role in (("grad_norm", "grad_norm"), ("lr", "learning_rate")) if role not in roles]
    advice = f"; record {' and '.join(missing)} to know" if missing else ""
    return (f"cannot tell from this log{advice}",)


def is_planned(episode: Episode, context: Sequence[Series]) -> bool:
    """Whether a learning rate or a loss weight changed where the episode begins: the run was told to change.

    A rate that rises beyond all that it was before, where the loss is then twice as high, is the fault and no plan; one
    that comes back to what it was, as in each cycle of restarts, is told to.
    """
    lost = episode.factor >= LOST
    return any(not (lost and change.beyond) for change in _changes(episode, context))


def _restart(episode: Episode) -> list[str]:
    attempts = episode.series.frame["attempt"]
    first, before = episode.first, max(0, episode.first - _BEFORE)
    if attempts[first] == attempts[before]:
        return []
    step = episode.series.step_at(int(np.flatnonzero(attempts.to_numpy() == attempts[first])[0]))
    return [f"the run was resumed at step {step} (attempt {attempts[first]}): state may not have been restored"]


@dataclass(frozen=True, slots=True)
class _Change:
    """A change in words; `beyond` says that a learning rate rose above all that it had been."""

    text: str
    beyond: bool


def _changes(episode: Episode, context: Sequence[Series]) -> list[_Change]:
    """Learning rates that rose, and weights that changed, about where the episode begins."""
    found = []
    for series in context:
        role = series.role
        if role not in ("learning_rate", "weight"):
            continue
        low, high = _window(episode, _TOLD_TO.get(episode.shape, _BEFORE))
        earlier = _before(series, low)
        part = np.concatenate([earlier[-1:], _between(series, low, high)])
        if len(part) < 2:
            continue
        old, new = float(part[0]), float(part[np.argmax(np.abs(part - part[0]))])
        if not (np.isfinite(old) and np.isfinite(new)) or new == old:
            continue
        changed = new > _RISEN * old if role == "learning_rate" else abs(new - old) > 0.1 * max(abs(old), abs(new))
        if changed:
            what = "learning rate" if role == "learning_rate" else "weight"
            beyond = role == "learning_rate" and len(earlier) > 0 and new > _RISEN * _highest(series, low)
            text = f"{what} {series.metric} went from {old:.4g} to {new:.4g} about step {episode.steps[0]}"
            found.append(_Change(text, beyond))
    return found[:3]


def _gradient(episode: Episode, context: Sequence[Series]) -> list[str]:
    found = []
    low, high = _window(episode)
    for series in context:
        if series.role != "grad_norm" or series.rank != episode.series.rank:
            continue
        peak = _between(series, low, high)
        usual = _before(series, low)
        if len(peak) == 0 or len(usual) < 10 or not np.isfinite(peak).any():
            continue
        norm, level = float(np.nanmax(peak[np.isfinite(peak)])), float(np.median(usual))
        if level > 0 and norm > 3 * level and norm > 1.5 * float(np.max(usual)):
            found.append(
                (norm / level, f"{series.metric} peaked at {norm:.4g}, {norm / level:.1f} times its usual {level:.4g}")
            )
    return [text for _, text in sorted(found, reverse=True)[:2]]


def _window(episode: Episode, before: int = _BEFORE) -> tuple[int, int]:
    """Steps around the beginning of the episode in which a cause would lie."""
    series, first = episode.series, episode.first
    early, late = max(0, first - before), min(first + _AFTER.get(episode.shape, _BEFORE), series.frame.height - 1)
    low, high = series.step_at(early), series.step_at(late)
    return (early if low is None else low), (late if high is None else high)


def _between(series: Series, low: int, high: int) -> NDArray[np.float64]:
    return series.frame.filter(pl.col("step").is_between(low, high))["value"].to_numpy()


def _highest(series: Series, low: int) -> float:
    values = series.frame.filter(pl.col("step") < low)["value"].to_numpy()
    return float(np.max(values[np.isfinite(values)], initial=-np.inf))


def _before(series: Series, low: int) -> NDArray[np.float64]:
    values = series.frame.filter(pl.col("step") < low)["value"].tail(_USUAL).to_numpy()
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)
