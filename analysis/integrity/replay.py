"""Whether a stretch of a loss repeats an earlier one: batches leave a fingerprint in the loss, however far it fell.

A batch that is harder than others is so in every epoch: the loss less its trend, step by step, is a fingerprint of the
order of the data. Where batches come again, the fingerprints correlate at the lag at which they come again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHANCE",
    "LEAST_CORRELATION",
    "LEAST_PAIRS",
    "Match",
    "best_match",
    "correlation_at",
    "correlations",
    "fingerprint",
]

Floats = NDArray[np.float64]

#: Fewest pairs of records that are compared: below, chance correlates too well among the many lags that are tried.
LEAST_PAIRS = 32
#: Below this correlation the order of the data explains less than a tenth of the noise: nothing to act on.
LEAST_CORRELATION = 0.3
#: Probability that the resume of a healthy run passes for one that repeats data.
CHANCE = 1e-3
#: Records of a rolling median, at most: long enough to keep the noise, short enough to follow a trend.
_WINDOW = 31
#: Residuals are cut at so many robust standard deviations, else two spikes that meet would look like an order.
_CUT = 3.0
#: How far a series is looked at for correlation with itself (a loss that is logged as a running mean).
_OWN_LAGS = 64
_MAD = 1.4826
#: Share of the records that may be their own running median (of noise, one in 31 is).
_FOLLOWED = 0.3


@dataclass(frozen=True, slots=True)
class Match:
    """The best of `lags` lags: how far back, over how many pairs, with which correlation.

    `by_chance` is the correlation that unrelated series of this kind reach at the best of so many lags, hardly ever.
    """

    lag: int
    pairs: int
    correlation: float
    by_chance: float
    lags: int

    @property
    def found(self) -> bool:
        """Whether it is beyond chance, and large enough to mean something."""
        return self.correlation > max(self.by_chance, LEAST_CORRELATION)


def fingerprint(values: Floats) -> Floats:
    """The loss less its trend, on the log scale where all is positive, in robust standard deviations.

    The trend is the running median of up to 31 records; where the loss falls so steeply that its median follows it
    record by record, the running mean of that. Cut at three; NaN where the value is not finite, and all NaN where more
    than half of it does not move.

    >>> fingerprint(np.array([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0])).round(1).tolist()
    [0.0, 0.7, -0.7, 0.0, 1.3, -1.6, 0.0]
    """
    known = np.isfinite(values)
    if known.sum() < 3:
        return np.full(len(values), np.nan)
    level = np.log(values, where=known, out=np.zeros(len(values))) if (values[known] > 0).all() else values
    places = np.flatnonzero(known)
    whole = np.interp(np.arange(len(values)), places, level[places])
    left = whole - _trend(whole)
    left = np.where(known, left - np.median(left[known]), np.nan)
    spread = _MAD * float(np.median(np.abs(left[known])))
    if not spread > 1e-12:
        return np.full(len(values), np.nan)
    return np.clip(left / spread, -_CUT, _CUT)


def _trend(values: Floats) -> Floats:
    """The running median, or the running mean of it where too many values are their own median."""
    from scipy.ndimage import median_filter, uniform_filter1d

    half = min(_WINDOW, 2 * (len(values) // 6) + 1) // 2
    if half == 0:
        return np.full(len(values), float(np.median(values)))
    middle = np.asarray(median_filter(values, size=2 * half + 1, mode="nearest"), np.float64)
    if (middle == values).mean() <= _FOLLOWED:
        return middle
    # beyond the ends the series goes on as its mirror image, turned round: a slope stays a slope
    long = np.pad(middle, half, mode="reflect", reflect_type="odd")
    return np.asarray(uniform_filter1d(long, size=2 * half + 1)[half:-half], np.float64)


def correlations(after: Floats, before: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Pearson's correlation of `after` with `before` from each of its places on, and the pairs that it is over.

    At place s the pairs are `after[j]` and `before[s + j]`, as many as there are; where either is NaN there is no pair.
    NaN where fewer than three pairs or no spread. All places at once by FFT: n log n.

    >>> r, pairs = correlations(np.array([1.0, 3.0, 2.0]), np.array([0.0, 1.0, 3.0, 2.0]))
    >>> r.round(2).tolist(), pairs.tolist()
    ([0.33, 1.0, nan, nan], [3, 3, 2, 1])
    """
    size = 1 << max(len(before) + len(after) - 1, 1).bit_length()
    masks = [np.isfinite(part) for part in (after, before)]
    parts = [np.where(mask, part, 0.0) for mask, part in zip(masks, (after, before), strict=True)]

    def spectrum(values: NDArray[np.generic]) -> NDArray[np.complex128]:
        return np.fft.rfft(np.asarray(values, np.float64), size)

    def sums(x: NDArray[np.complex128], y: NDArray[np.complex128]) -> Floats:
        return np.fft.irfft(np.conj(x) * y, size)[: len(before)]

    ones_x, x, squares_x = (spectrum(v) for v in (masks[0], parts[0], parts[0] ** 2))
    ones_y, y, squares_y = (spectrum(v) for v in (masks[1], parts[1], parts[1] ** 2))
    count = np.rint(sums(ones_x, ones_y))
    safe = np.maximum(count, 1)
    mean_x, mean_y = sums(x, ones_y) / safe, sums(ones_x, y) / safe
    spread_x = sums(squares_x, ones_y) / safe - mean_x**2
    spread_y = sums(ones_x, squares_y) / safe - mean_y**2
    both = np.sqrt(np.maximum(spread_x, 0) * np.maximum(spread_y, 0))
    good = (count >= 3) & (both > 1e-9)
    r = np.full(len(before), np.nan)
    np.divide(sums(x, y) / safe - mean_x * mean_y, both, out=r, where=good)
    return np.clip(r, -1, 1), count.astype(np.int64)


def correlation_at(first: Floats, second: Floats) -> tuple[float, int]:
    """Correlation of two series of one length, pair by pair, and the number of pairs; NaN below `LEAST_PAIRS`.

    >>> correlation_at(np.arange(40.0), np.arange(40.0))
    (1.0, 40)
    """
    both = np.isfinite(first) & np.isfinite(second)
    pairs = int(both.sum())
    if pairs < LEAST_PAIRS or not (np.ptp(first[both]) > 0 and np.ptp(second[both]) > 0):
        return math.nan, pairs
    return float(np.corrcoef(first[both], second[both])[0, 1].round(12)), pairs


def best_match(after: Floats, before: Floats, *, likely: Sequence[int] = (0,), chance: float = CHANCE) -> Match | None:
    """The lag at which `after`, which follows `before`, repeats it best; None where no lag has enough pairs.

    Both are fingerprints, on one grid without holes. `chance` is the probability that unrelated series pass: half of
    it is for the `likely` places of `before` (its start, by default: where an order that begins anew begins), half for
    all others. The bar rises with the number of places tried (Bonferroni), the pairs are counted as fewer where both
    series are smooth (Bartlett 1946, "On the theoretical specification of sampling properties of autocorrelated time
    series"), and the spread over all lags counts where it is larger than theory has it.

    >>> rng = np.random.default_rng(0)
    >>> before = rng.normal(size=500)
    >>> match = best_match(before[100:200] + 0.5 * rng.normal(size=100), before)
    >>> match.lag, match.pairs, match.found
    (400, 100, True)
    """
    r, pairs = correlations(after, before)
    usable = np.flatnonzero((pairs >= LEAST_PAIRS) & np.isfinite(r))
    if not len(usable):
        return None
    free = np.maximum(pairs[usable] / _inflation(after, before) - 3, 1)
    z = np.arctanh(np.clip(r[usable], -0.999999, 0.999999)) * np.sqrt(free)
    spread = max(1.0, _MAD * float(np.median(np.abs(z - np.median(z)))))
    awaited = np.isin(usable, np.asarray(likely, np.int64))
    bars = np.where(awaited, bar(int(awaited.sum()), chance / 2), bar(len(usable), chance / 2)) * spread
    best = int(np.argmax(z - bars))
    place = int(usable[best])
    return Match(
        lag=len(before) - place,
        pairs=int(pairs[place]),
        correlation=float(r[place]),
        by_chance=float(np.tanh(bars[best] / np.sqrt(free[best]))),
        lags=len(usable),
    )


def bar(lags: int, chance: float) -> float:
    """Standard deviations that the best of so many unrelated lags passes with this probability.

    >>> round(bar(1, 0.05), 2), round(bar(1000, 1e-4), 2)
    (1.64, 5.2)
    """
    from scipy.special import ndtri

    return float(-ndtri(chance / max(lags, 1)))


def _inflation(first: Floats, second: Floats) -> float:
    """By how much correlation of each series with itself widens the correlation of the two."""
    product = _own(first) * _own(second)
    return max(1.0, 1.0 + 2.0 * float(product.sum()))


def _own(values: Floats) -> Floats:
    """Correlation of a series with itself at lags 1 to `_OWN_LAGS`, zero beyond a quarter of its length."""
    known = np.where(np.isfinite(values), values, 0.0)
    known = known - known.mean()
    power = float(known @ known)
    most = min(_OWN_LAGS, len(values) // 4)
    found = np.zeros(_OWN_LAGS)
    if power > 0:
        found[:most] = [float(known[lag:] @ known[:-lag]) / power for lag in range(1, most + 1)]
    return found
