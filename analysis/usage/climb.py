"""A series that climbs steadily: robust slope with its interval, told from warm-up, sawtooth and single steps."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Climb", "Slope", "climb_of", "sen_slope"]

Floats = NDArray[np.float64]
#: Fewest values in which a climb is told from a warm-up; so many blocks of equal size stand for any series.
FEWEST = 24
#: Where a climb may begin: every second block, so that at least ten are left to show it.
_STARTS = range(0, 15, 2)
#: Kendall's tau of blocks that rise nearly always. Four equal jumps stay below it, whatever their size: so few are the
#: caching of an allocator, or what the first evaluation, the first checkpoint and the longest batch each took.
_TAU = 0.85
#: The second half rises at least by this share of the first: running maxima (0.71) and warm-up to a plateau fade.
_LASTING = 0.75
#: Largest share of all growth between two neighbouring blocks, and largest fall before it, against the growth.
_JUMP, _FALL = 0.4, 0.5
#: Where most values equal the one before (a peak so far, an allocator), each rise is an event: so many make a climb,
#: and none of them is more than this share of it.
_RISES, _LARGEST = 8, 0.25
#: Two-sided confidence of the interval of the slope.
_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Slope:
    """Median of the slopes between all pairs of points, with a 99 % interval, and Kendall's tau (a) of the points."""

    slope: float
    low: float
    high: float
    tau: float


@dataclass(frozen=True, slots=True)
class Climb:
    """A climb from row `first` to the end: `slope` for one unit of x, `level` where it begins, `growth` in all."""

    first: int
    slope: Slope
    level: float
    growth: float


def sen_slope(x: Floats, y: Floats) -> Slope:
    """Slope of Theil and Sen over distinct x (Sen, JASA 63, 1968, for the interval); NaN for fewer than two points.

    >>> sen_slope(np.array([0.0, 1, 2, 3]), np.array([1.0, 3, 5, 100])).slope
    17.5
    """
    i, j = np.triu_indices(len(x), 1)
    apart = x[j] - x[i]
    slopes = np.sort((y[j] - y[i])[apart > 0] / apart[apart > 0])
    if len(slopes) == 0:
        return Slope(float("nan"), float("nan"), float("nan"), 0.0)
    n = len(x)
    reach = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2) * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(int(np.round((len(slopes) - reach) / 2)) - 1, 0)
    high = min(int(np.round((len(slopes) + reach) / 2)), len(slopes) - 1)
    tau = float(np.sign(y[j] - y[i]).sum() / max(len(i), 1))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), tau)


@np.errstate(all="ignore")  # numbers near the largest float overflow in differences, and are no climb
def climb_of(x: Floats, y: Floats) -> Climb | None:
    """The climb at the end of a series, or None.

    `x` are steps (not falling), `y` the values; what is not finite is left out, fewer than 24 values give None. The
    series becomes 24 blocks of equal size, each its median: peaks of an evaluation and the teeth of a garbage collector
    vanish in them, and a long log is judged as a short one. A climb lasts from some block to the end; of several that
    could be, the one that fits best is given. Nearly all its blocks rise, its second half as fast as the first, no
    single jump makes it, nothing before it rose faster, and nothing before it fell by half as much (which a long tooth
    of a saw does). Where most values equal the one before, it takes eight rises.

    >>> steps = np.arange(240.0)
    >>> climb = climb_of(steps, 1000 + 2 * steps)
    >>> round(climb.slope.slope, 3), climb.first
    (2.0, 0)
    >>> climb_of(steps, 1000 * (1 - np.exp(-steps / 30))) is None
    True
    """
    known = np.isfinite(x) & np.isfinite(y)
    rows = np.flatnonzero(known)
    if len(rows) < FEWEST:
        return None
    blocks = np.array_split(rows, FEWEST)
    places = np.array([np.median(x[block]) for block in blocks])
    levels = np.array([np.median(y[block]) for block in blocks])
    passing = [(start, slope) for start in _STARTS if (slope := _steady(places, levels, start)) is not None]
    passing = [(start, slope) for start, slope in passing if not _is_few_events(y[rows[rows >= blocks[start][0]]])]
    if not passing:
        return None
    start, slope = min(passing, key=lambda found: _misfit(places, levels, *found))
    first, last = int(blocks[start][0]), int(blocks[-1][-1])
    level = _level(places, levels, start, slope) + slope.slope * float(x[first] - places[start])
    return Climb(first, slope, level, slope.slope * float(x[last] - x[first]))


def _level(x: Floats, y: Floats, start: int, slope: Slope) -> float:
    """Where the climb begins, at the place of its first block."""
    return float(np.median(y[start:] - slope.slope * (x[start:] - x[start])))


def _misfit(x: Floats, y: Floats, start: int, slope: Slope) -> float:
    """How far the blocks are, in all, from a level before `start` and the climb after it."""
    line = _level(x, y, start, slope) + slope.slope * (x[start:] - x[start])
    before = np.abs(y[:start] - np.median(y[:start])).sum() if start else 0.0
    return float(before + np.abs(y[start:] - line).sum())


def _steady(x: Floats, y: Floats, start: int) -> Slope | None:
    """The slope of the blocks from `start` on, where they climb steadily; else None."""
    slope = sen_slope(x[start:], y[start:])
    growth = slope.slope * float(x[-1] - x[start])
    if not (slope.tau >= _TAU and slope.low > 0 and np.isfinite(growth) and growth > 0):
        return None
    if float(np.diff(y[start:]).max()) > _JUMP * growth or _fall(y) > _FALL * growth:
        return None
    half = (start + len(x)) // 2
    early, late = sen_slope(x[start:half], y[start:half]), sen_slope(x[half:], y[half:])
    if not late.slope >= _LASTING * early.slope:
        return None
    before = slice(max(0, 2 * start - len(x)), start)
    earlier = sen_slope(x[before], y[before]).slope
    return None if start >= 4 and slope.slope < _LASTING * earlier else slope


def _is_few_events(y: Floats) -> bool:
    """Whether a series that mostly stands still rises seldom, or by one large rise."""
    moves = np.diff(y)
    if (moves == 0).mean() < 0.5:
        return False
    rises = moves[moves > 0]
    return len(rises) < _RISES or float(rises.max()) > _LARGEST * (y[-1] - y[0])


def _fall(y: Floats) -> float:
    """The deepest fall from what was reached before."""
    return float((np.maximum.accumulate(y) - y).max())
