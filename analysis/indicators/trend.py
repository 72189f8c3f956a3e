"""The trend of a series over its last part: a robust slope with its interval."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Trend", "late_trend", "theil_sen"]

Floats = NDArray[np.float64]
#: Fewer points have no trend that a line could tell.
FEWEST = 8
#: Quantile of the normal distribution for 95 % on both sides.
_Z = 1.959963984540054
#: The last part, as a share of the series, and the medians of blocks that it is told by: neighbours of a loss are
#: alike, and as single points they would make the interval too narrow, and the slopes of all pairs too many.
_PART, _BLOCKS = 0.2, 60


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope and its 95 % interval."""

    slope: float
    low: float
    high: float


def theil_sen(x: Floats, y: Floats) -> Trend:
    """The median of the slopes of all pairs of points, and Sen's interval of 95 % for it.

    `x` and `y` of shape (n,), finite; pairs at one `x` have no slope. The interval counts ties as Sen does: from the
    variance of Kendall's S. Raises `ValueError` for unlike shapes or fewer than two different `x`. Memory and time
    grow with n^2.

    P. K. Sen, 'Estimates of the regression coefficient based on Kendall's tau', JASA 63 (1968).

    >>> theil_sen(np.arange(5.0), np.array([0.0, 1.0, 2.0, 3.0, 99.0])).slope
    1.0
    """
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x and y have shapes {x.shape} and {y.shape}; give two of the same length")
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    slopes = np.sort((y[second] - y[first])[apart != 0] / apart[apart != 0])
    if not len(slopes):
        raise ValueError("all points have one x: there is no slope")
    n = len(x)
    of_ties = sum(count * (count - 1) * (2 * count + 5) for values in (x, y) for count in _ties(values))
    sigma = math.sqrt(max(n * (n - 1) * (2 * n + 5) - of_ties, 0.0) / 18.0)
    upper = min(round((len(slopes) + _Z * sigma) / 2.0), len(slopes) - 1)
    lower = max(round((len(slopes) - _Z * sigma) / 2.0) - 1, 0)
    return Trend(float(np.median(slopes)), float(slopes[lower]), float(slopes[upper]))


def _ties(values: Floats) -> list[int]:
    counts = np.unique(values, return_counts=True)[1]
    return [int(count) for count in counts if count > 1]


def late_trend(x: Floats, y: Floats) -> Trend | None:
    """By how much the level changes over the last fifth of a series, as a share of its level there.

    `x` are steps (or record numbers), `y` values of shape (n,); what is not finite is left out. None with fewer than 8
    points in the last fifth, at one step all of them, or around a level of 0. -0.05 is a fall by 5 % of the level.

    >>> late_trend(np.arange(100.0), np.linspace(2.0, 1.0, 100)).slope
    -0.175...
    """
    good = np.isfinite(x) & np.isfinite(y) & (np.abs(y) < 1e150)
    x, y = x[good], y[good]
    start = len(x) - max(round(_PART * len(x)), min(FEWEST, len(x)))
    x, y = x[start:], y[start:]
    level = float(np.median(y)) if len(y) else 0.0
    if len(x) < FEWEST or level == 0 or x.max() == x.min():
        return None
    edges = np.linspace(0, len(x), min(len(x), _BLOCKS) + 1).astype(int)
    middles = [(float(np.median(x[a:b])), float(np.median(y[a:b]))) for a, b in itertools.pairwise(edges)]
    at, value = (np.array(column) for column in zip(*middles, strict=True))
    if at.max() == at.min():
        return None
    found = theil_sen(at, value)
    scale = float(x.max() - x.min()) / abs(level)
    return Trend(found.slope * scale, found.low * scale, found.high * scale)
