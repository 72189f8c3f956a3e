"""Shapes in numbers: the trend of a series and the noise around it, so that a fault moves one and keeps the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Parted", "parted", "ramp"]

Floats = NDArray[np.float64]

#: The trend is drawn over this share of the rows, within these bounds: long enough to leave the noise out of it.
_SHARE, _SHORTEST, _LONGEST = 0.04, 5, 51


@dataclass(frozen=True, slots=True, eq=False)
class Parted:
    """A series as trend and noise: their product where all of it is positive (`times`), else their sum."""

    trend: Floats
    noise: Floats
    times: bool

    def joined(self, trend: Floats, noise: Floats) -> Floats:
        """A series of this kind of another trend or noise."""
        return np.exp(trend + noise) if self.times else trend + noise

    def level(self, trend: Floats) -> Floats:
        """The trend in the units of the series."""
        return np.exp(trend) if self.times else trend


def parted(values: Floats) -> Parted:
    """Trend (running median, smoothed by a running mean) and noise of a series; on the logarithm where it is positive.

    What is not finite has the trend of its neighbours, and no noise; a series without a finite value is all zero.

    >>> level = parted(np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]))
    >>> bool(np.allclose(level.joined(level.trend, level.noise)[:3], [4.0, 2.0, 1.0]))
    True
    """
    from scipy.ndimage import median_filter, uniform_filter1d

    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return Parted(np.zeros(len(values)), np.zeros(len(values)), times=False)
    times = bool((values[known] > 0).all())
    # beyond 1e290 a sum of neighbours would be infinite
    told = np.log(values[known]) if times else np.clip(values[known], -1e290, 1e290)
    full = np.interp(np.arange(len(values)), known, told)
    width = int(np.clip(len(values) * _SHARE, _SHORTEST, _LONGEST)) | 1
    middle = median_filter(full, size=width, mode="nearest")
    trend = np.asarray(uniform_filter1d(middle, size=width, mode="nearest"), np.float64)
    noise = np.zeros(len(values))
    noise[known] = told - trend[known]
    return Parted(trend, noise, times)


def ramp(rows: Floats, length: float) -> Floats:
    """From 0 before the first row, over `length` rows, to 1; with a length of 1 row it is 1 from the first on.

    >>> ramp(np.array([-1.0, 0.0, 1.0, 2.0, 9.0]), 3).round(2).tolist()
    [0.0, 0.33, 0.67, 1.0, 1.0]
    """
    return np.clip((rows + 1) / max(length, 1.0), 0.0, 1.0) * (rows >= 0)
