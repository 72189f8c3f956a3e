"""95 % confidence intervals for shares, rates, means of shares, and medians."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Interval", "mean_of_shares", "median_interval", "poisson", "wilson"]

Interval = tuple[float, float]
_LEVEL = 0.95


def wilson(hits: float, of: float) -> Interval:
    """Of a share, by its score (Wilson 1927): good at 0 and 1 and for few runs; the whole range for none."""
    if not 0 <= hits <= of:
        raise ValueError(f"{hits:g} hits of {of:g}: give 0 to {of:g} hits")
    if of == 0:
        return 0.0, 1.0
    z = 1.959963984540054  # the normal quantile at 97.5 %
    share, spread = hits / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == of else middle + half)


def poisson(count: int, exposure: int) -> Interval:
    """Of a rate of events, exact (Garwood 1936); endless above where nothing was looked at."""
    from scipy.special import chdtri

    if exposure == 0:
        return 0.0, math.inf
    tail = (1 - _LEVEL) / 2
    low = 0.0 if count == 0 else float(chdtri(2 * count, 1 - tail)) / 2  # chdtri takes the upper tail
    high = float(chdtri(2 * count + 2, tail)) / 2
    return low / exposure, high / exposure


def mean_of_shares(cells: Sequence[tuple[int, int]]) -> Interval:
    """Of the mean over cells of hits / runs: Wilson's, for as many runs as the mean stands for were all cells alike.

    That is cells squared / sum of 1 / runs. Cells that differ only make the mean surer (Cochran, "Sampling techniques",
    chapter 5: strata), so that this is no narrower than it should be. Cells without runs are left out.
    """
    filled = [(hits, of) for hits, of in cells if of]
    if not filled:
        return 0.0, 1.0
    mean = math.fsum(hits / of for hits, of in filled) / len(filled)
    runs = len(filled) ** 2 / math.fsum(1 / of for _, of in filled)
    return wilson(mean * runs, runs)


def median_interval(values: Sequence[float]) -> Interval | None:
    """Of a median, between two of the values, by the sign test; None for fewer than six, which cannot tell."""
    from scipy.special import bdtr

    ordered = sorted(values)
    n = len(ordered)
    # The r-th smallest and the r-th largest, for the largest r that keeps each tail at 2.5 %.
    rank = sum(1 for k in range(n) if bdtr(k, n, 0.5) <= (1 - _LEVEL) / 2)
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])
