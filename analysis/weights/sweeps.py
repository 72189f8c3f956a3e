"""Moments of a part of a large tensor, by compiled sweeps: patterns are counted, wider numbers summed by blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.weights.moments import LARGEST_PLAIN, Moments, bin_of, bins_by_exponent
from analysis.weights.sweep_kernels import (
    FINITE,
    M2,
    M3,
    M4,
    MEAN,
    NAN,
    PLUS_ZEROS,
    ZEROS,
    count_bytes,
    count_words,
    mark_live,
    sweep,
)
from analysis.weights.values import numbers, numbers_of_patterns, smallest_normal, unsigned, zero_pattern
from parsers.checkpoints.tensors import Tensor

__all__ = ["Live", "moments_of_part", "part_length"]

#: Numbers in a part: long enough that joining parts costs nothing, short enough that all cores have some.
_COUNTED, _SWEPT, _CONVERTED = 1 << 23, 1 << 21, 1 << 18
#: From so many numbers on a table of 65,536 counts pays; below, words become single precision and are summed.
_WORDS = 1 << 17


class Live:
    """Which rows and columns of a tensor hold anything but zeros; parts are marked from several threads.

    Rows are the first dimension, columns the second with all that comes after it (input channels of a convolution).
    """

    def __init__(self, shape: tuple[int, ...], parts: int) -> None:
        self.rows = np.zeros(shape[0], np.uint8)
        self.columns = np.zeros(shape[1], np.uint8)
        self.inner = parts * int(np.prod(shape[2:]))

    def dead(self) -> tuple[int, int]:
        """Rows and columns that no part marked."""
        return int((self.rows == 0).sum()), int((self.columns == 0).sum())

    def mark(self, part: NDArray[np.generic], start: int, tensor: Tensor, zeros: int) -> None:
        """Take a part that begins at number `start` and holds so many zeros."""
        width = len(self.columns) * self.inner
        if not zeros:
            self.rows[start // width : (start + len(part) - 1) // width + 1] = 1
            if len(part) >= width:
                self.columns[:] = 1
                return
        mask, zero = zero_pattern(tensor)
        bits = np.require(unsigned(part), requirements="A")
        bits.flags.writeable = False  # compiled once, for mapped arrays too
        mark_live(bits, start, np.uint64(mask), np.uint64(zero), self.inner, self.rows, self.columns)


def part_length(raw: NDArray[np.generic]) -> int:
    """Numbers to take at a time of this type of stored values."""
    if raw.dtype.itemsize <= 2:
        return _COUNTED
    return _SWEPT if raw.dtype.kind == "f" else _CONVERTED


def moments_of_part(part: NDArray[np.generic], tensor: Tensor) -> Moments:
    """Moments of stored values in one dimension (complex ones as their real and imaginary parts)."""
    width = part.dtype.itemsize
    if width == 1 or (width == 2 and len(part) >= _WORDS):
        return _counted(part, tensor)
    if tensor.dtype == "bfloat16":
        part = (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif part.dtype.kind != "f" or width == 2:
        part = numbers(part, tensor)
    return _swept(part, smallest_normal(tensor.dtype))


def _counted(part: NDArray[np.generic], tensor: Tensor) -> Moments:
    """From the count of each pattern: exact, whatever the patterns stand for."""
    patterns = unsigned(part)
    size = 1 << (8 * patterns.dtype.itemsize)
    first, second = _two_tables(size)
    head = min(-patterns.ctypes.data % 8 // patterns.dtype.itemsize, len(patterns))
    inside = (len(patterns) - head) * patterns.dtype.itemsize // 8 * 8 // patterns.dtype.itemsize
    (count_words if size > 256 else count_bytes)(patterns[head : head + inside].view(np.uint64), first, second)
    counts = first.astype(np.int64) + second
    for rest in (patterns[:head], patterns[head + inside :]):
        np.add.at(counts, rest.astype(np.intp), 1)
    seen = np.flatnonzero(counts)
    return _weighted(
        numbers_of_patterns(tensor.dtype, tensor.scale, tensor.zero_point)[seen],
        counts[seen],
        smallest_normal(tensor.dtype),
    )


def _weighted(values: NDArray[np.float64], counts: NDArray[np.int64], normal: float) -> Moments:
    finite = np.isfinite(values)
    nan = int(counts[np.isnan(values)].sum())
    found = Moments(nan=nan, inf=int(counts[~finite].sum()) - nan)
    x, n = values[finite], counts[finite].astype(np.float64)
    found.finite = int(n.sum())
    if not found.finite:
        return found
    found.minimum, found.maximum = float(x.min()), float(x.max())
    found.subnormal = int(n[(x != 0) & (np.abs(x) < normal)].sum())
    found.histogram = np.bincount(bin_of(x), n, len(found.histogram)).astype(np.int64)
    found.mean = float(n @ x) / found.finite
    d = x - found.mean
    found.mean += float(n @ d) / found.finite
    d = x - found.mean
    d2 = d * d
    found.m2, found.m3, found.m4 = float(n @ d2), float(n @ (d2 * d)), float(n @ (d2 * d2))
    return found


def _swept(x: NDArray[np.generic], normal: float) -> Moments:
    """Block by block; once more in another unit where fourth powers leave the range."""
    found = _sweep(x, normal, 1.0)
    largest = max(-found.minimum, found.maximum)
    if found.finite and largest and not 1 / LARGEST_PLAIN <= largest <= LARGEST_PLAIN:
        found = _sweep(x, normal, float(np.ldexp(1.0, int(np.clip(np.frexp(largest)[1] - 1, -1000, 1000)))))
    return found


def _sweep(x: NDArray[np.generic], normal: float, unit: float) -> Moments:
    info = np.finfo(np.float32 if x.dtype.itemsize == 4 else np.float64)
    first, second = _two_tables(1 << (info.bits - info.nmant))
    totals = np.zeros(8)
    extremes = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    x = np.require(x, requirements="A")
    x.flags.writeable = False  # compiled once, for mapped arrays too
    signed = x.view(f"i{x.dtype.itemsize}")
    sweep(x, unsigned(x), signed, np.uint32(info.nmant), 1.0 / unit, first, second, totals, extremes)
    least, most = _of_keys(extremes, signed.dtype).view(x.dtype)
    by_sign = (first.astype(np.int64) + second).reshape(2, -1)
    bias = 1 - int(info.minexp)
    plus, zeros, nan = int(totals[PLUS_ZEROS]), int(totals[ZEROS]), int(totals[NAN])
    by_sign[:, 0] -= (plus, zeros - plus)
    # numbers below the smallest normal one, which is a power of two: all smaller exponents
    below = int(np.frexp(normal)[1]) - 1 + bias if normal else 0
    histogram = bins_by_exponent(by_sign, zeros, bias)
    return Moments(
        finite=int(totals[FINITE]),
        mean=totals[MEAN],
        m2=totals[M2],
        m3=totals[M3],
        m4=totals[M4],
        unit=unit,
        minimum=float(least) if totals[FINITE] else np.inf,
        maximum=float(most) if totals[FINITE] else -np.inf,
        nan=nan,
        inf=int(by_sign[:, -1].sum()) - nan,
        subnormal=int(by_sign[:, :below].sum()),
        histogram=histogram,
    )


def _of_keys(keys: NDArray[np.int64], signed: np.dtype[np.signedinteger[Any]]) -> NDArray[np.generic]:
    """Patterns of numbers from the integers in whose order they are."""
    rest = np.iinfo(signed).max
    return np.where(keys < 0, keys ^ rest, keys).astype(signed)


def _two_tables(size: int) -> NDArray[np.uint32]:
    """Room for counts, such that the same place of both is in different sets of the cache."""
    return np.zeros((2, size + 32), np.uint32)[:, :size]
