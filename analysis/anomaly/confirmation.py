"""A second look at flagged rows: a spike stands out from what is before and from what is after, and it leaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.residuals import is_scheduled, span_of

__all__ = ["confirmed"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: A flagged run must contain a step of at least this many robust spreads of such steps, by the number of rows whose
#: means are compared: single steps are the common case, means have fewer independent chances but more to choose from.
_LEAP = {1: 3.0, 5: 4.0, 20: 4.0}


def confirmed(flagged: Flags, lone: Flags, scaled: Floats, apart: Floats, window: int, causal: bool) -> Flags:
    """Flagged rows without the foot of a step, the bend of a schedule and the crest of a slow wave.

    A running median has an edge at a level shift and lags in a bend: rows there are far from the trend and yet like the
    rows on one side. So a row must differ from what the window before it leads to, and from what the window after it
    leads back to, both by half its distance from the trend. A row that is not `lone`, but flagged for the mean of its
    neighbours, is replaced by the mean of five and must differ by three quarters. What such a row stands among is
    kept with it. Slow waves (losses logged as moving averages) differ from both sides but never leap: within a spike,
    some step between neighbours, or between the means of 5 or 20 neighbours, is large for this series. In a series that
    follows a rule (see `is_scheduled`) only rows that stand off their next neighbours on both sides remain.
    """
    rows = np.flatnonzero(flagged)
    if len(rows) == 0:
        return flagged
    if not causal:
        rows = _runs_with(rows, _stands_out(rows, lone, scaled, apart, span_of(len(scaled), window)))
    if is_scheduled(scaled):
        rows = rows[np.abs(scaled - _neighbours(scaled))[rows] >= 0.5 * np.abs(apart[rows])]
    else:
        rows = _runs_with(rows, _leaps(rows, scaled))
    kept = np.zeros(len(flagged), bool)
    kept[rows] = True
    return kept


def _runs_with(rows: NDArray[np.int64], wanted: Flags) -> NDArray[np.int64]:
    """Rows of those runs (gaps of up to 3 rows joined) of which some row is wanted."""
    if len(rows) == 0:
        return rows
    run = np.cumsum(np.r_[False, np.diff(rows) > 4])
    return np.asarray(rows[np.bincount(run, wanted)[run] > 0], dtype=np.int64)


def _stands_out(rows: NDArray[np.int64], lone: Flags, scaled: Floats, apart: Floats, arm: int) -> Flags:
    found = np.zeros(len(rows), bool)
    for place, row in enumerate(rows):
        near = 0 if lone[row] else 2
        here = scaled[max(0, row - near) : row + near + 1]
        before, after = scaled[max(0, row - near - arm) : max(0, row - near)][::-1], scaled[row + near + 1 :][:arm]
        sides = [_led_to(side) for side in (before, after)]
        value = np.mean(here[~np.isnan(here)])
        off = [(value - side) * np.sign(apart[row]) for side in sides if np.isfinite(side)]
        share = 0.5 if lone[row] else 0.75
        found[place] = len(off) > 0 and min(off) >= share * abs(apart[row])
    return found


def _led_to(side: Floats) -> float:
    """Value to which a stretch of rows leads, nearest row first: a line through the medians of its two halves."""
    side = side[~np.isnan(side)]
    if len(side) < 6:
        return float(np.median(side)) if len(side) else float("nan")
    half = len(side) // 2
    near, far = np.median(side[:half]), np.median(side[half:])
    return float(near + (near - far) * (half + 1) / len(side))


def _neighbours(scaled: Floats) -> Floats:
    padded = np.pad(scaled, 2, mode="edge")
    found: Floats = np.median(np.stack([padded[:-4], padded[1:-3], padded[3:-1], padded[4:]]), axis=0)
    return found


def _leaps(rows: NDArray[np.int64], scaled: Floats) -> Flags:
    """Whether a large step leads to a row or away from it, between neighbours or between means of neighbours."""
    found = np.zeros(len(rows), bool)
    seen = np.where(np.isfinite(scaled), scaled, np.nanmedian(scaled))
    total = np.concatenate([[0.0], np.cumsum(seen - np.median(seen))])
    for k in (1, 5, 20):
        means = (total[k:] - total[:-k]) / k
        if len(means) < 3 * k:
            break
        steps = np.abs(means[k:] - means[:-k])
        usual = 1.482602218505602 * float(np.median(steps))
        if usual == 0.0:
            return np.ones(len(rows), bool)
        large = np.concatenate([[0], np.cumsum(steps >= _LEAP[k] * usual)])
        # the step from the k rows before row r to the k rows from r on stands at r - k
        first = np.clip(rows - k, 0, len(steps))
        last = np.clip(rows - k + 2, 0, len(steps))
        found |= large[last] > large[first]
    return found
