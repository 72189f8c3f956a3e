"""The power law in the tail of positive values: its exponent, and from which value on it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PowerLaw", "fit_power_law"]

#: Values below which WeightWatcher takes the exponent without its bias and lets long tails win ties.
_FEW = 20
#: Shortest tail of which an exponent is taken where there are few values.
_SHORTEST = 8
#: What is taken off a distance of few values, by 1/sqrt(tail): WeightWatcher's constant, near the median of
#: Kolmogorov's statistic times sqrt(n) (0.828).
_EASE = 0.868
#: Points of each tail at which the distance is first bounded from below.
_PROBES = 64
#: Values that differ by less than this share are one value, as rounding left it (an orthogonal matrix): no tail.
_FLAT = 1e-5


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """p(x) ~ x^-alpha for x >= x_min: `distance` is that of Kolmogorov and Smirnov, `tail` the number of values.

    `error` is the standard error of alpha, (alpha - 1) / sqrt(tail).
    """

    alpha: float
    x_min: float
    distance: float
    tail: int
    error: float


def fit_power_law(values: NDArray[np.float64]) -> PowerLaw | None:
    """The power law that fits the tail of `values` best; None where there is none to fit.

    The exponent is the maximum-likelihood one, and `x_min` the value from which on the distance between the fitted
    and the observed distribution is least (Clauset, Shalizi and Newman 2009, SIAM Review 51, sections 3.1 and 3.3).
    The distance is taken at i/n as WeightWatcher 0.7.7 does, so that both choose the same tail; below 20 values the
    exponent is the unbiased one and a longer tail is preferred, as there. All candidates are searched and the result
    is that of the full search: most are ruled out by a lower bound of their distance at 64 points of their tail.

    `values` need no order. None for fewer than two values, and for values that are all the same but for rounding.
    Raises ValueError for values that are not finite and positive.

    >>> u = (np.arange(2000) + 0.5) / 2000
    >>> fit = fit_power_law(u ** (-1 / 1.5))  # quantiles of x^-2.5
    >>> round(fit.alpha, 1), fit.tail > 1000
    (2.5, True)
    """
    x = np.sort(np.asarray(values, np.float64).ravel())
    if x.size and not (x[0] > 0 and math.isfinite(x[-1])):
        raise ValueError("values must be finite and positive; leave out the others before the fit")
    if x.size < 2 or x[-1] / x[0] - 1 < _FLAT:
        return None
    logs = np.log(x)
    tails = x.size - np.arange(x.size - 1)
    above = np.cumsum(logs[::-1])[::-1][:-1] - tails * logs[:-1]  # sum of ln(x_j / x_min) of each candidate's tail
    few = x.size < _FEW
    usable = above > 1e-12 * tails
    if few:
        usable &= tails >= min(_SHORTEST, x.size)
    if not usable.any():
        return None
    alphas = np.full(x.size - 1, np.inf)
    alphas[usable] = 1 + (tails[usable] - few) / above[usable]
    best, distance = _search(logs, alphas, _EASE / np.sqrt(tails) if few else np.zeros(tails.size), usable)
    alpha, tail = float(alphas[best]), int(tails[best])
    return PowerLaw(alpha, float(x[best]), distance, tail, (alpha - 1) / math.sqrt(tail))


def _search(
    logs: NDArray[np.float64], alphas: NDArray[np.float64], ease: NDArray[np.float64], usable: NDArray[np.bool_]
) -> tuple[int, float]:
    """The candidate of the least distance (less its ease), the first of equals, and its distance."""
    bound = np.where(usable, _lower_bounds(logs, alphas) - ease, np.inf)
    best, least, found = -1, math.inf, math.nan
    for i in np.argsort(bound, kind="stable").tolist():
        if bound[i] > least:
            break
        distance = _distance(logs[i:], alphas[i])
        score = distance - ease[i]
        if score < least or (score == least and i < best):
            best, least, found = i, score, distance
    return best, found


def _distance(logs: NDArray[np.float64], alpha: float) -> float:
    """Largest gap between the fitted distribution and the share of the tail that lies below each value."""
    fitted = -np.expm1((1 - alpha) * (logs - logs[0]))
    return float(np.abs(fitted - np.arange(logs.size) / logs.size).max())


def _lower_bounds(logs: NDArray[np.float64], alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same gap at `_PROBES` places of each candidate's tail: never more than the whole of it.

    A rounding's worth is taken off, so that a candidate is never ruled out by how a sum was rounded.
    """
    n = logs.size
    bounds = np.empty(n - 1)
    for start in range(0, n - 1, 4096):  # of 100,000 values the table of all probes would take 50 MB
        first = np.arange(start, min(start + 4096, n - 1))
        tails = (n - first)[:, None]
        probe = (np.arange(_PROBES) * tails) // _PROBES
        slope = np.where(np.isfinite(alphas[first]), 1 - alphas[first], 0.0)
        fitted = -np.expm1(slope[:, None] * (logs[first[:, None] + probe] - logs[first][:, None]))
        bounds[first] = np.abs(fitted - probe / tails).max(axis=1)
    return bounds - 1e-12
