"""How a series moves: robust slope with its interval, means of equal blocks, noise told from its own neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["Slope", "block_edges", "block_means", "neighbour_noise", "theil_sen"]

Floats = NDArray[np.float64]
#: Pairs grow with the square of the points; 400 block means keep the slope and its interval to within noise.
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Slope:
    """Slope of y per unit of x with the bounds of its confidence interval; NaN where there is none."""

    value: float
    low: float
    high: float


def theil_sen(x: Floats, y: Floats, *, confidence: float = 0.95) -> Slope:
    """Median slope of all pairs of points, with Sen's confidence interval: up to 29 % of wild points do not move it.

    `x` and `y` are of one length; pairs of equal x are left out, ties enter the variance. Series of more than 400
    points are first averaged in 400 equal blocks. Fewer than two distinct x give NaN. Values that are not finite are
    left out. Raises `ValueError` for a confidence outside 0 to 1. Source: P. K. Sen, "Estimates of the regression
    coefficient based on Kendall's tau", JASA 63 (1968).

    >>> theil_sen(np.arange(10.0), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 900.0])).value
    1.0
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a number between 0 and 1, for example 0.95")
    good = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x, np.float64)[good], np.asarray(y, np.float64)[good]
    if len(x) > _MOST_POINTS:
        edges = block_edges(len(x), _MOST_POINTS)
        x, y = block_means(x, edges), block_means(y, edges)
    first, second = _pairs(len(x))
    run = x[second] - x[first]
    apart = run != 0
    if not apart.any():
        return Slope(np.nan, np.nan, np.nan)
    slopes = np.sort((y[second] - y[first])[apart] / run[apart])
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * _kendall_deviation(x, y)
    last = len(slopes) - 1
    low = max(int(np.round((len(slopes) - reach) / 2)) - 1, 0)
    high = min(int(np.round((len(slopes) + reach) / 2)), last)
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))


@lru_cache(maxsize=2)  # 1.3 MB for the most points
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the first and of the second of each pair of points; whoever uses them only reads."""
    first, second = np.triu_indices(count, 1)
    return first, second


def _kendall_deviation(x: Floats, y: Floats) -> float:
    """Standard deviation of Kendall's S for independent x and y, with ties in both."""

    def pairs(count: NDArray[np.int64]) -> float:
        return float((count * (count - 1) * (2 * count + 5)).sum())

    ties = [pairs(np.unique(v, return_counts=True)[1]) for v in (x, y)]
    return float(np.sqrt(max(pairs(np.array([len(x)])) - sum(ties), 0.0) / 18))


def block_edges(length: int, blocks: int) -> NDArray[np.int64]:
    """Borders that cut `length` points into at most `blocks` blocks of equal size, none of them empty.

    >>> block_edges(10, 4).tolist(), block_edges(2, 4).tolist()
    ([0, 2, 5, 7, 10], [0, 1, 2])
    """
    count = max(min(length, blocks), 1)
    return (np.arange(count + 1) * length) // count


def block_means(values: Floats, edges: NDArray[np.int64]) -> Floats:
    """Mean of each block between `edges` (of `block_edges`).

    >>> block_means(np.array([1.0, 3.0, 5.0, 7.0]), block_edges(4, 2)).tolist()
    [2.0, 6.0]
    """
    if len(values) == 0:
        return np.empty(0)
    means: Floats = np.add.reduceat(np.asarray(values, np.float64), edges[:-1]) / np.diff(edges)
    return means


def neighbour_noise(values: Floats, *, apart: int = 1) -> float:
    """Standard deviation of the noise of a smooth series, from each point's distance to the mean of two neighbours.

    The neighbours are those `apart` places before and after: 1 suits independent noise, more sees noise that goes
    together over some places. A straight trend cancels and a few kinks do not count (median of the distances, scaled
    for normal noise). Zero where the series is too short (`2 * apart + 1` points).

    >>> noise = np.random.default_rng(0).normal(0, 0.1, 2000)
    >>> round(neighbour_noise(np.linspace(5, 1, 2000) + noise), 2)
    0.1
    """
    if len(values) <= 2 * apart:
        return 0.0
    away = values[apart:-apart] - (values[: -2 * apart] + values[2 * apart :]) / 2
    return float(np.median(np.abs(away)) * 1.4826 / np.sqrt(1.5))
