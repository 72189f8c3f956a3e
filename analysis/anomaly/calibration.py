"""Thresholds out of a false-alarm budget: how far a healthy residual may go, given how its own tail falls."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["lone_leap", "normal_threshold", "tail_threshold"]

Floats = NDArray[np.float64]
#: Tails that are told apart: degrees of freedom of Student's t, and its scale against the one that the robust spread
#: asks for, since the upper tail may be wider or narrower than the lower.
_DEGREES = np.array([2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0, 200.0, 1e6])
_SCALES = np.geomspace(0.6, 1.7, 9)
#: Beliefs before looking: 1 over the degrees of freedom is exponential with this mean (15 degrees), the logarithm of
#: the scale normal with this deviation.
_MEAN_INVERSE, _SCALE_DEVIATION = 1.0 / 15.0, 0.2
#: The tail is measured between these scores, and never from the uppermost rows, where the spikes are.
_EDGES = np.concatenate([np.arange(0.0, 3.0, 0.25), np.arange(3.0, 6.0, 0.5), np.geomspace(6.0, 100.0, 10)])
_UPPERMOST, _MOST_DROPPED, _LEAST_DROPPED = 40, 0.03, 0.003
_REACH = np.geomspace(1.0, 1e6, 300)
_SAMPLE = 50_000
#: Leaps that are looked for beyond the tail: how many, how far (spreads, logarithm), how much farther than the rest,
#: and rows that one lasts.
_LEAPS, _FAR, _HIGH, _ALONE, _BRIEF = 3, 10.0, float(np.log(1.3)), 5.0, 5
#: Rows that it may take, after those, for the loss to come down again.
_TAIL = 20
#: How much farther than the rest several rows together must lie at least.
_TOGETHER = 2.5


def tail_threshold(scores: Floats, chance: float, *, lone: bool = False) -> float:
    """Score that a healthy series exceeds anywhere, upward, with probability `chance`; for downward give `-scores`.

    `scores` are residuals over their robust spread. Student's t is fitted to those above the median; of the uppermost
    40 rows (at most 3 %, at least 0.3 % of all; with `lone` always of the first) only the number counts and not how far
    they go, so that the spikes one looks for have no say in what is normal. The bound is where the predictive
    probability, averaged over all degrees of freedom and scales by how well they explain the scores, falls to `chance`
    over the number of scores. So it grows with the length of a log as its extremes do, with the weight of the tail, and
    with what is not known about the tail of a short log. Fewer than 4 finite scores give infinity.

    The idea of extrapolating a fitted tail is that of Siffer et al., KDD 2017 (SPOT); Student's t in place of the
    generalised Pareto keeps it stable on 60 rows.

    >>> rng = np.random.default_rng(0)
    >>> normal, heavy = rng.normal(size=20_000), rng.standard_t(3, size=20_000)
    >>> bool(4.5 < tail_threshold(normal, 0.01) < 6), bool(60 < tail_threshold(heavy, 0.01) < 200)
    (True, True)
    """
    seen = scores[np.isfinite(scores)]
    if len(seen) < 4:
        return float("inf")
    survival = _predictive(_posterior(seen[:: max(1, len(seen) // _SAMPLE)], lone))
    wanted = np.log(chance / len(seen))
    if survival[-1] > wanted:
        return float("inf")
    return float(np.exp(np.interp(-wanted, -survival, np.log(_REACH))))


def lone_leap(score: Floats, apart: Floats) -> float:
    """Score above which up to three leaps lie that nothing else in a series comes near; infinity where there are none.

    A leap goes to 1.3 times the expected value or more (`apart` holds logarithms), by ten spreads at least, and five
    times as far as the next row that is no part of it (on either side). In a short log the tail of the noise is not
    known well enough to tell by it; but the largest of many values of even a heavy tail is rarely much larger than the
    next: with an index of 3, five times as large in 1 of 125 series (Renyi's representation of spacings). By the same,
    the least of the j largest is r times the next in a share of r ** -(3 j): where j neighbouring rows leap, the j-th
    root of five is enough, but never less than 2.5.

    >>> noise = np.random.default_rng(0).normal(size=100)
    >>> noise[40:42] = 50.0
    >>> 5.0 < lone_leap(noise, 0.03 * noise) < 50.0, lone_leap(noise[:40], 0.03 * noise[:40])
    (True, inf)
    """
    size = np.where(np.isfinite(score), np.abs(score), 0.0)
    for _ in range(_LEAPS):
        top = int(np.argmax(size))
        largest = float(size[top])
        if not (score[top] > 0 and apart[top] >= _HIGH and largest >= _FAR):
            return float("inf")
        first, last = top, top
        while first > 0 and size[first - 1] > largest / _ALONE:
            first -= 1
        while last + 1 < len(size) and size[last + 1] > largest / _ALONE:
            last += 1
        while last + 1 < len(size) and last - first < _TAIL - 1 and score[last + 1] > 0:
            last += 1  # the way down belongs to it
        together = size[first : last + 1]
        high = together[together > largest / 2]
        least, needed = float(high.min()), max(_TOGETHER, _ALONE ** (1 / len(high)))
        size[max(0, first - 1) : last + 2] = 0.0
        following = float(size.max())
        brief = len(high) <= _BRIEF and last - first < _TAIL
        if brief and (largest > _ALONE * following or least > needed * following):
            return max(1.5 * following, 0.2 * largest, _FAR / 2)
    return float("inf")


def normal_threshold(chance: float, independent: int) -> float:
    """The same for means of many rows, whose tail is known: Student's t with as many degrees as independent means.

    >>> round(normal_threshold(0.01, 100), 2)
    3.86
    """
    from scipy.special import stdtrit

    return float(stdtrit(max(independent, 2), 1.0 - chance / max(independent, 1)))


def _posterior(seen: Floats, lone: bool) -> Floats:
    """Weight of each tail (scale by degrees, flat) after looking at the scores above the median."""
    dropped = float(np.clip(_UPPERMOST / len(seen), _LEAST_DROPPED, _MOST_DROPPED))
    centre, cap = np.quantile(seen, [0.5, 1.0 - dropped])
    if lone:
        cap = min(cap, np.sort(seen)[-2])
    above = seen[seen > centre] - centre
    bins = int(np.searchsorted(_EDGES, cap - centre, side="right")) - 1
    belief = np.add.outer(-0.5 * (np.log(_SCALES) / _SCALE_DEVIATION) ** 2, -1.0 / _DEGREES / _MEAN_INVERSE).ravel()
    if bins >= 1:
        counts = np.histogram(above, bins=_EDGES[: bins + 1])[0]
        belief = belief + np.append(counts, len(above) - counts.sum()) @ _log_shares(bins)
    weight: Floats = np.exp(belief - belief.max())
    weight /= weight.sum()
    return weight


def _upper(reach: Floats) -> Floats:
    """Probability beyond each reach (rows) for each tail (columns)."""
    from scipy.special import stdtr, stdtrit

    scale = _SCALES[:, None] * 0.6744897501960817 / stdtrit(_DEGREES, 0.75)[None, :]
    found: Floats = stdtr(_DEGREES[None, None, :], -reach[:, None, None] / scale[None, :, :])
    return found.reshape(len(reach), -1)


@lru_cache(maxsize=64)
def _log_shares(bins: int) -> Floats:
    """Logarithm of each tail's share in the first bins, and beyond them."""
    beyond = _upper(_EDGES[: bins + 1])
    shares = np.vstack([-np.diff(beyond, axis=0), beyond[-1:]]) * 2.0
    found: Floats = np.log(np.maximum(shares, 1e-300))
    return found


@lru_cache(maxsize=1)
def _beyond_reach() -> Floats:
    return _upper(_REACH)


def _predictive(weight: Floats) -> Floats:
    """Logarithm of the probability beyond each reach."""
    found: Floats = np.log(np.maximum(_beyond_reach() @ weight, 1e-300))
    return found
