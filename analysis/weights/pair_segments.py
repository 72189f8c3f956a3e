"""Sums over many small pairs of tensors at once, by NumPy: they stand one after another in two arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.weights.pair_sums import PairSums, units_of

__all__ = ["sums_of_each"]

Floats = NDArray[np.float64]


def sums_of_each(pairs: Sequence[tuple[Floats, Floats]]) -> list[PairSums]:
    """The sums of each pair of arrays of one length, as `pair_sums.plain_sums` has them of one.

    >>> pairs = [([3.0, 4.0], [3.0, 5.0]), ([0.0], [np.nan])]
    >>> first, second = sums_of_each([(np.array(a), np.array(b)) for a, b in pairs])
    >>> first.norm("a"), first.norm("d"), first.changed, second.pairs, second.nan_b, second.changed
    (5.0, 1.0, 1.0, 0.0, 1.0, 1.0)
    """
    found = [PairSums() for _ in pairs]
    if not pairs:
        return found
    x, y = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    owner = np.repeat(np.arange(len(pairs)), [pair[0].size for pair in pairs])
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.all():
        _tally(found, x[~finite], y[~finite], owner[~finite])
        x, y, owner = x[finite], y[finite], owner[finite]
    if len(x):
        _fill(found, x, y, owner)
    return found


def _tally(found: list[PairSums], x: Floats, y: Floats, owner: NDArray[np.int64]) -> None:
    """Counts of the pairs of which one is not finite, into the sums of their owners."""
    nan_a, nan_b = np.isnan(x), np.isnan(y)
    of_each = (nan_a, nan_b, np.isinf(x), np.isinf(y), (x != y) & ~(nan_a & nan_b))
    counts = np.stack([np.bincount(owner, marks, len(found)) for marks in of_each], axis=1)
    for number in np.unique(owner).tolist():
        one = found[number]
        one.nan_a, one.nan_b, one.inf_a, one.inf_b, one.changed = counts[number].tolist()


def _fill(found: list[PairSums], x: Floats, y: Floats, owner: NDArray[np.int64]) -> None:
    """Sums of finite numbers, into those of their owners."""
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    sizes = np.diff(starts, append=len(x))
    changed = np.add.reduceat(x != y, starts, dtype=np.int64)
    with np.errstate(over="ignore"):
        most_changed = np.maximum.reduceat(np.abs(y - x), starts)
    unit = units_of(np.maximum.reduceat(np.maximum(np.abs(x), np.abs(y)), starts))
    if (unit != 1).any():
        by = np.repeat(unit, sizes)
        x, y = x / by, y / by
    d = y - x
    sums = (np.add.reduceat(p * q, starts) for p, q in ((x, x), (y, y), (d, d), (x, d), (x, y)))
    columns = (owner[starts], sizes, changed, most_changed, unit, *sums)
    for number, pairs, differing, most, scale, *products in zip(*(one.tolist() for one in columns), strict=True):
        one = found[number]
        one.pairs, one.most_changed, one.unit = float(pairs), most, scale
        one.changed += differing
        one.aa, one.bb, one.dd, one.ad, one.ab = products
