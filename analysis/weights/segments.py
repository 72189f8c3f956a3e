"""Moments of many small tensors at once, by NumPy: they stand one after another in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.weights.moments import BINS, LARGEST_PLAIN, Moments, bin_of

__all__ = ["moments_of_each"]

Floats = NDArray[np.float64]


def moments_of_each(arrays: Sequence[Floats], smallest_normals: Sequence[float]) -> list[Moments]:
    """The moments of each array; below its `smallest_normals` a number that is not zero is subnormal.

    >>> first, second = moments_of_each([np.array([1.0, 3.0]), np.array([0.0, np.nan])], [0.0, 0.0])
    >>> first.average, first.deviation, second.nan, second.finite
    (2.0, 1.0, 1, 1)
    """
    found = [Moments() for _ in arrays]
    if not arrays:
        return found
    x = np.concatenate([array.ravel() for array in arrays])
    owner = np.repeat(np.arange(len(arrays)), [array.size for array in arrays])
    finite = np.isfinite(x)
    if not finite.all():
        strange = owner[~finite]
        nan = np.bincount(strange, np.isnan(x[~finite]), len(arrays))
        infinite = np.bincount(strange, minlength=len(arrays)) - nan
        for one, missing, endless in zip(found, nan, infinite, strict=True):
            one.nan, one.inf = int(missing), int(endless)
        x, owner = x[finite], owner[finite]
    if len(x):
        _fill(found, x, owner, np.asarray(smallest_normals))
    return found


def _fill(found: list[Moments], x: Floats, owner: NDArray[np.int64], smallest_normals: Floats) -> None:
    """Moments of finite numbers, into those of their owners."""
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    owners, sizes = owner[starts], np.diff(starts, append=len(x))
    least, most = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    tallies = np.bincount(owner * BINS + bin_of(x), minlength=len(found) * BINS).reshape(-1, BINS)
    subnormal = _subnormal(x, owner, smallest_normals, len(found))
    unit = _units(np.maximum(-least, most))
    if (unit != 1).any():
        x = x / np.repeat(unit, sizes)
    mean = np.add.reduceat(x, starts) / sizes
    d = x - np.repeat(mean, sizes)
    d2 = d * d
    m2 = np.add.reduceat(d2, starts)
    d *= d2
    m3 = np.add.reduceat(d, starts)
    d2 *= d2
    m4 = np.add.reduceat(d2, starts)
    columns = (sizes, mean, m2, m3, m4, unit, least, most)
    for number, *row in zip(owners.tolist(), *(column.tolist() for column in columns), strict=True):
        one = found[number]
        one.finite, one.mean, one.m2, one.m3, one.m4, one.unit, one.minimum, one.maximum = row
        one.subnormal = int(subnormal[number])
        one.histogram = tallies[number]


def _subnormal(x: Floats, owner: NDArray[np.int64], limits: Floats, count: int) -> NDArray[np.int64]:
    small = np.flatnonzero(np.abs(x) < limits.max())
    small = small[(x[small] != 0) & (np.abs(x[small]) < limits[owner[small]])]
    return np.bincount(owner[small], minlength=count)


def _units(largest: Floats) -> Floats:
    """1 but where the fourth power of the largest number is out of range; there the power of two below it."""
    plain = (largest <= LARGEST_PLAIN) & ((largest >= 1 / LARGEST_PLAIN) | (largest == 0))
    exponent = np.clip(np.frexp(largest)[1] - 1, -1000, 1000)
    return np.where(plain, 1.0, np.ldexp(1.0, exponent))
