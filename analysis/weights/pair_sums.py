"""Sums over two tensors side by side that can be joined, and what follows from them: distance, angle, share changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.weights.values import dot, in_double, numbers, read_only, unsigned
from parsers.checkpoints.tensors import Tensor

__all__ = ["PairSums", "compiled_sums", "plain_sums", "units_of"]

Floats = NDArray[np.float64]
Raw = NDArray[np.generic]

#: Magnitudes whose squares, and the sums of them, are neither infinite nor subnormal.
_LARGEST, _SMALLEST = 1e140, 1e-140
#: A sum of squares below this may have lost some.
_SQUARED = 1e-200


@dataclass(slots=True)
class PairSums:
    """Sums of products over the pairs of which both are finite, in multiples of `unit` squared; d stands for b - a."""

    pairs: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    dd: float = 0.0
    ad: float = 0.0
    ab: float = 0.0
    changed: float = 0.0
    most_changed: float = 0.0
    nan_a: float = 0.0
    nan_b: float = 0.0
    inf_a: float = 0.0
    inf_b: float = 0.0
    unit: float = 1.0

    def __add__(self, other: PairSums) -> PairSums:
        """Of both together."""
        unit = max((one.unit for one in (self, other) if one.aa or one.bb), default=1.0)
        joined = PairSums(unit=unit)
        for one in (one for one in (self, other) if one.aa or one.bb):  # others may be of a unit that is far larger
            by = (one.unit / unit) ** 2
            for name in ("aa", "bb", "dd", "ad", "ab"):
                setattr(joined, name, getattr(joined, name) + getattr(one, name) * by)
        for name in ("pairs", "changed", "nan_a", "nan_b", "inf_a", "inf_b"):
            setattr(joined, name, getattr(self, name) + getattr(other, name))
        joined.most_changed = max(self.most_changed, other.most_changed)
        return joined

    def norm(self, of: str) -> float:
        """L2 norm of `a`, `b` or `d`."""
        return math.sqrt(getattr(self, of * 2)) * self.unit

    @property
    def update_ratio(self) -> float | None:
        """||b - a|| / ||a||: 0 where nothing changed, infinite where all of a was zero."""
        if not self.pairs:
            return None
        if not self.dd:
            return 0.0
        return math.sqrt(self.dd / self.aa) if self.aa else math.inf

    @property
    def rotation(self) -> float | None:
        """Angle between a and b in degrees; None where either is zero.

        From the parts of d across and along a, so that a small angle keeps its digits, which a cosine loses.
        """
        if not (self.aa and self.bb):
            return None
        if not self.dd:
            return 0.0
        across = max(self.aa * (self.dd / self.aa) - self.ad * (self.ad / self.aa), 0.0)
        return math.degrees(math.atan2(math.sqrt(across), self.ab / math.sqrt(self.aa)))

    @property
    def cosine(self) -> float | None:
        """Cosine of that angle."""
        if not (self.aa and self.bb):
            return None
        return min(1.0, max(-1.0, self.ab / math.sqrt(self.aa) / math.sqrt(self.bb)))


def plain_sums(part_a: Raw, part_b: Raw, a: Tensor, b: Tensor) -> PairSums:
    """By NumPy, for small tensors.

    >>> w = Tensor("w", "float32", (2,), None)
    >>> found = plain_sums(np.array([3.0, 4.0], "f4"), np.array([3.0, 5.0], "f4"), w, w)
    >>> found.norm("a"), found.norm("d"), found.changed
    (5.0, 1.0, 1.0)
    """
    x, y = numbers(part_a, a).ravel(), numbers(part_b, b).ravel()
    found = PairSums()
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.all():
        p, q = x[~finite], y[~finite]
        found.nan_a, found.nan_b = float(np.isnan(p).sum()), float(np.isnan(q).sum())
        found.inf_a, found.inf_b = float(np.isinf(p).sum()), float(np.isinf(q).sum())
        found.changed = float(((p != q) & ~(np.isnan(p) & np.isnan(q))).sum())
        x, y = x[finite], y[finite]
    if not len(x):
        return found
    found.pairs = float(len(x))
    found.changed += float(np.count_nonzero(x != y))
    with np.errstate(over="ignore"):
        found.most_changed = float(np.abs(y - x).max())
    found.unit = _unit(x, y)
    x, y = x / found.unit, y / found.unit
    d = y - x
    found.aa, found.bb, found.dd, found.ad, found.ab = dot(x, x), dot(y, y), dot(d, d), dot(x, d), dot(x, y)
    return found


def compiled_sums(part_a: Raw, part_b: Raw, a: Tensor, b: Tensor) -> PairSums:
    """By compiled sweeps, for large tensors; the same numbers but for rounding."""
    from analysis.weights.pair_kernels import sweep_single_pairs

    x, y = part_a, part_b
    if not a.dtype == b.dtype == "bfloat16":
        x, y = _floats(x, a), _floats(y, b)
    if x.dtype != y.dtype:
        x, y = in_double(x), in_double(y)
    if x.dtype.itemsize < 8:
        sums = np.zeros(12)
        sweep_single_pairs(read_only(unsigned(x)), read_only(unsigned(y)), sums)
        return PairSums(*sums.tolist())
    found = _swept(x, y, 1.0)
    if not found.pairs or _SQUARED < found.aa + found.bb < math.inf:
        return found
    unit = _unit(x, y)
    if unit == 1:
        return found
    scaled = _swept(x, y, unit)
    # what is small beside the unit is lost in it, but for the sums
    scaled.changed, scaled.most_changed = found.changed, found.most_changed
    return scaled


def _swept(x: Raw, y: Raw, unit: float) -> PairSums:
    from analysis.weights.pair_kernels import sweep_double_pairs

    sums = np.zeros(12)
    sweep_double_pairs(read_only(x), read_only(y), 1.0 / unit, sums)
    found = PairSums(*sums.tolist())
    found.unit = unit
    return found


def _floats(part: Raw, tensor: Tensor) -> Raw:
    """In the narrowest of single and double precision that is at hand without loss."""
    if tensor.dtype == "bfloat16":
        return (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return part if part.dtype.kind == "f" and part.dtype.itemsize >= 4 else numbers(part, tensor)


def _unit(x: Raw, y: Raw) -> float:
    """A power of two by which the finite numbers come into range; 1 where they are."""
    magnitudes = (np.abs(one[np.isfinite(one)]) for one in (x, y))
    largest = max(float(one.max(initial=0.0)) for one in magnitudes)
    return float(units_of(np.array([largest]))[0])


def units_of(largest: Floats) -> Floats:
    """1 but where squares of the largest of some numbers are out of range; there the power of two below it.

    >>> units_of(np.array([0.0, 3.0, 2.0**600])).tolist() == [1.0, 1.0, 2.0**600]
    True
    """
    plain = (largest == 0) | ((largest >= _SMALLEST) & (largest <= _LARGEST))
    exponent = np.clip(np.frexp(largest)[1] - 1, -1000, 1000)
    return np.where(plain, 1.0, np.ldexp(1.0, exponent))
