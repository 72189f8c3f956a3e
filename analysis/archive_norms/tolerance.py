"""Upper tolerance bounds: what a stated share of all healthy runs stays below, at a stated confidence, from a few."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Bound", "fewest_without_a_form", "upper_bound"]

Floats = NDArray[np.float64]
#: Runs below which nothing is learned: the spread of fewer is itself not known within a factor of two.
FEWEST = 8
#: Share of values that equal the lowest (mostly: nothing was there to measure) from which on no distribution fits them.
_MIXED = 0.25


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of positive numbers, and how it was found: `lognormal`, `order` (no form assumed), or `highest` (many
    are equal: no distribution fits, and no more than the highest seen is known).
    """

    value: float
    how: str


def fewest_without_a_form(coverage: float, confidence: float) -> int:
    """Values of which the highest covers that share of all, at that confidence, whatever their distribution.

    Wilks (Annals of Mathematical Statistics 12, 1941): the least n with 1 - coverage^n at or above the confidence.

    >>> fewest_without_a_form(0.95, 0.95), fewest_without_a_form(0.99, 0.95)
    (59, 299)
    """
    return int(np.ceil(np.log1p(-confidence) / np.log(coverage)))


def upper_bound(values: Floats, coverage: float, confidence: float, nothing: float) -> Bound | None:
    """The upper tolerance bound of numbers that are not negative, never below the highest; None for fewer than 8.

    Where there are enough of them, the order statistic that needs no form (Wilks 1941); else that of a lognormal
    distribution, mean + k x standard deviation of the logarithms with k from the non-central t distribution (Hahn and
    Meeker, Statistical Intervals, 1991, section 4.6). Values up to `nothing` are equal to it; where a quarter or more
    equal the lowest, no distribution is fitted.

    >>> seen = np.exp(np.random.default_rng(0).normal(0, 0.1, 24))
    >>> found = upper_bound(seen, 0.99, 0.95, 1e-3)
    >>> found.how, round(found.value, 2)
    ('lognormal', 1.3)
    """
    if len(values) < FEWEST:
        return None
    clipped = np.sort(np.maximum(values, nothing))
    needed = fewest_without_a_form(coverage, confidence)
    if len(clipped) >= needed:
        return Bound(float(clipped[-_rank(len(clipped), coverage, confidence)]), "order")
    if np.mean(clipped <= clipped[0] * (1 + 1e-9)) >= _MIXED:
        return Bound(float(clipped[-1]), "highest")
    logs = np.log(clipped)
    reach = float(logs.mean() + _factor(len(logs), coverage, confidence) * logs.std(ddof=1))
    return Bound(max(float(np.exp(reach)), float(clipped[-1])), "lognormal")


def _factor(n: int, coverage: float, confidence: float) -> float:
    """Standard deviations above the mean: Hahn and Meeker's g' of a one-sided tolerance bound."""
    from scipy.stats import nct

    root = float(np.sqrt(n))
    return float(nct.ppf(confidence, n - 1, NormalDist().inv_cdf(coverage) * root)) / root


def _rank(n: int, coverage: float, confidence: float) -> int:
    """Which of the largest values may be taken: the r-th, as long as r or more surely lie above the quantile."""
    from scipy.stats import binom

    ranks = np.arange(1, n + 1)
    sure = 1 - binom.cdf(ranks - 1, n, 1 - coverage) >= confidence
    return int(ranks[sure][-1]) if sure.any() else 1
