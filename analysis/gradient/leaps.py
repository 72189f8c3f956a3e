"""A norm that leaps once, within few rows, to where it never was, and stays there to the end of the log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.gradient.levels import ROWS, Rise, levels_of

__all__ = ["lasting_leap"]

_Floats = NDArray[np.float64]
#: Rows within which a leap is over: three windows of a level. What grows more slowly may be the training itself.
_WITHIN = 3 * ROWS
#: Rows whose median is the level that it leaves, and rows after it that there have to be.
_BESIDE = 2 * ROWS
#: Decades by which the lowest level after it lies above the highest before it.
_APART = 1.0
#: Decades above the level before it (twofold) at which a row is out of it, unless its rows vary by more than that.
_OUT = 0.3


def lasting_leap(logs: _Floats, least: float) -> Rise | None:
    """The step by which a series (decimal logarithms) left its past for good; None where there is none.

    All levels (medians of 7 rows) after it lie `least` decades above that just before it, and a decade above every
    level before; it takes 21 rows at most, and 14 follow. Each level counts at its worst, so that more rows, of
    a longer log, make a leap of noise less likely and not more. `up` is the first row out of the level before, which
    is where a leap sets out. Rows that are not finite are left out; a log that ends in them has no level there: None.

    >>> rows = np.r_[np.tile([0.0, 0.1], 30), 0.8, 1.4, np.full(40, 2.0)]
    >>> found = lasting_leap(rows, 1.5)
    >>> (found.up, round(found.low, 2), found.high) if found else None
    (60, 0.05, 2.0)
    >>> lasting_leap(np.r_[rows, np.zeros(20)], 1.5) is None
    True
    """
    rows = np.flatnonzero(np.isfinite(logs))
    known = logs[rows]
    if len(known) < 2 * _BESIDE or np.all(logs[-3:] == np.inf):
        return None
    levels = levels_of(known)
    # of each row: the highest level that ended before it, and the lowest that begins after a leap from there
    highest, lowest = np.maximum.accumulate(levels), np.minimum.accumulate(levels[::-1])[::-1]
    at = np.arange(_BESIDE, len(known) - _BESIDE + 1)
    later = lowest[np.minimum(at + _WITHIN, len(levels) - 1)]
    found = at[(later - highest[at - ROWS] >= _APART) & (later - levels[at - ROWS] >= least)]
    return _placed(known, rows, int(found[-1]), least) if len(found) else None


def _placed(known: _Floats, rows: NDArray[np.intp], last: int, least: float) -> Rise | None:
    """The rise around the last row before which nothing, and after which everything, is up; None for a slow one."""
    up = last + int(np.argmax(known[last:] >= np.median(known[last - _BESIDE : last]) + least))
    start = max(up - _WITHIN, _BESIDE)
    past = known[start - _BESIDE : start]
    low = float(np.median(past))
    spread = 1.4826 * float(np.median(np.abs(past - low)))
    inside = np.flatnonzero(known[start - 1 : up] <= low + max(_OUT, 3 * spread))
    if len(inside) == 0 or len(known) - up < _BESIDE:
        return None
    out, after = start + int(inside[-1]), known[up:]
    marks = (start - _BESIDE, out - 1, out, min(up + _WITHIN, len(known) - 1))
    valley, left, first, peak = (int(rows[row]) for row in marks)
    return Rise(valley, left, first, peak, low, float(np.median(after)), float(after.max()), lasts=True, ends=False)
