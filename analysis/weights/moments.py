"""Sums over the numbers of a tensor that can be joined: counts, mean, central moments, extremes, a histogram."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "LARGEST_PLAIN", "LOWEST_EXPONENT", "ZERO_BIN", "Moments", "bin_of", "bins_by_exponent"]

Counts = NDArray[np.int64]

#: The histogram has a bin for each power of two and sign: 2**k <= |x| < 2**(k + 1), k from -48 to 15. The outermost
#: hold all that is larger, the innermost all that is smaller but zero, which has a bin of its own in the middle.
#: From the most negative numbers to the most positive ones.
LOWEST_EXPONENT, _EXPONENTS = -48, 64
BINS = 2 * _EXPONENTS + 1
ZERO_BIN = _EXPONENTS
#: Between this and its inverse the sums of fourth powers need no other unit.
LARGEST_PLAIN = 1e70


@dataclass(slots=True)
class Moments:
    """What is known of some numbers. `mean` and the central sums (`m2`: of squares, ...) are in multiples of `unit`.

    NaN and infinities are counted and are no part of anything else. `unit` is a power of two other than 1 only where
    fourth powers would leave the range of double precision.
    """

    finite: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    unit: float = 1.0
    minimum: float = np.inf
    maximum: float = -np.inf
    nan: int = 0
    inf: int = 0
    subnormal: int = 0
    histogram: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @classmethod
    def zeros(cls, count: int) -> Moments:
        """Of numbers that are all zero."""
        found = cls(finite=count, minimum=0.0, maximum=0.0) if count else cls()
        found.histogram[ZERO_BIN] = count
        return found

    def __add__(self, other: Moments) -> Moments:
        """Of both together (Pebay 2008, SAND2008-6212, equations 2.1 and 3.1)."""
        a, b = self, other
        if not (a.finite or a.nan or a.inf):
            return b
        joined = Moments(
            nan=a.nan + b.nan,
            inf=a.inf + b.inf,
            subnormal=a.subnormal + b.subnormal,
            histogram=a.histogram + b.histogram,
            minimum=min(a.minimum, b.minimum),
            maximum=max(a.maximum, b.maximum),
            finite=a.finite + b.finite,
            unit=max((one.unit for one in (a, b) if one.finite), default=1.0),
        )
        if not (a.finite and b.finite):
            only = a if a.finite else b
            joined.mean, joined.m2, joined.m3, joined.m4 = only.mean, only.m2, only.m3, only.m4
            return joined
        ma, a2, a3, a4 = a._in(joined.unit)
        mb, b2, b3, b4 = b._in(joined.unit)
        p, q, n = float(a.finite), float(b.finite), float(joined.finite)
        d = mb - ma
        joined.mean = ma + d * (q / n)
        joined.m2 = a2 + b2 + d * d * (p * q / n)
        joined.m3 = a3 + b3 + d**3 * (p / n) * (q / n) * (p - q) + 3 * d * (p * b2 - q * a2) / n
        joined.m4 = (
            a4
            + b4
            + d**4 * (p / n) * (q / n) * ((p * p - p * q + q * q) / n)
            + 6 * d * d * ((p / n) ** 2 * b2 + (q / n) ** 2 * a2)
            + 4 * d * (p * b3 - q * a3) / n
        )
        return joined

    def _in(self, unit: float) -> tuple[float, float, float, float]:
        by = self.unit / unit
        return self.mean * by, self.m2 * by**2, self.m3 * by**3, self.m4 * by**4

    @property
    def constant(self) -> bool:
        """Whether all finite numbers are the same one; rounding of their mean must not make a spread of it."""
        return self.minimum == self.maximum

    @property
    def average(self) -> float | None:
        """Mean of the finite numbers."""
        if not self.finite:
            return None
        return self.minimum if self.constant else self.mean * self.unit

    @property
    def deviation(self) -> float | None:
        """Standard deviation, divisor n."""
        if not self.finite:
            return None
        return 0.0 if self.constant else float(np.sqrt(self.m2 / self.finite)) * self.unit

    @property
    def norm(self) -> float | None:
        """L2 norm: square root of the sum of squares."""
        if not self.finite:
            return None
        if self.constant:
            return abs(self.minimum) * float(np.sqrt(self.finite))
        return float(np.sqrt(self.m2 + self.finite * self.mean**2)) * self.unit

    @property
    def kurtosis(self) -> float | None:
        """Excess kurtosis without correction for small samples (`scipy.stats.kurtosis`); None without any spread."""
        if not self.finite or self.constant or not self.m2:
            return None
        return self.finite * self.m4 / self.m2**2 - 3.0


def bin_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each finite number.

    >>> (bin_of(np.array([-1.0, 0.0, 1.0, 2.0])) - ZERO_BIN).tolist()
    [-49, 0, 49, 50]
    """
    # the exponent as it is stored: that of subnormal numbers comes out too small, below the lowest bin as they are
    exponent = ((np.ascontiguousarray(values).view(np.int64) >> 52) & 0x7FF) - 1023
    place = np.clip(exponent - LOWEST_EXPONENT, 0, _EXPONENTS - 1) + 1
    return ZERO_BIN + np.where(values == 0, 0, np.where(values < 0, -place, place))


def bins_by_exponent(counts: NDArray[np.integer[Any]], zeros: int) -> Counts:
    """The histogram from counts of numbers by sign and stored exponent, of which so many were zeros; the largest
    exponent is that of numbers that are not finite.

    All subnormal numbers lie below the lowest bin's edge, so that they need no exponent of their own.
    """
    # the sums of weights are exact: there are fewer than 2**53 numbers
    found = np.bincount(_bins_of_exponents(len(counts)), counts, BINS + 1)[:BINS].astype(np.int64)
    found[ZERO_BIN] = zeros
    return found


@lru_cache(maxsize=2)
def _bins_of_exponents(kinds: int) -> Counts:
    """Bin of each sign and exponent, and one beyond for the largest exponent."""
    exponents = kinds // 2
    place = np.clip(np.arange(exponents) - (exponents // 2 - 1) - LOWEST_EXPONENT, 0, _EXPONENTS - 1) + 1
    found = np.stack([ZERO_BIN + place, ZERO_BIN - place])
    found[:, -1] = BINS
    return found.ravel()
