"""Moments of a part of a large tensor, by compiled sweeps: patterns are counted, wider numbers summed by blocks."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.weights.bit_planes import planes_of_bits
from analysis.weights.exponent_pairs import table_of_pairs
from analysis.weights.lanes import KINDS
from analysis.weights.moments import LARGEST_PLAIN, Moments, bin_of, bins_by_exponent
from analysis.weights.single_kernels import sweep_single
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
    count_zeros,
    mark_live,
    sweep_double,
    weigh,
)
from analysis.weights.values import numbers, numbers_of_patterns, read_only, smallest_normal, unsigned, zero_pattern
from parsers.checkpoints.tensors import Tensor

__all__ = ["Live", "moments_of_part", "part_length"]

#: Numbers in a part: long enough that joining parts costs nothing, short enough that all cores have some.
_COUNTED, _SWEPT, _CONVERTED = 1 << 23, 1 << 22, 1 << 18
#: From so many numbers on a table of 65,536 counts pays; below, words become single precision and are summed.
_WORDS = 1 << 17
#: Each thread's room for counts of single-precision numbers (1 MiB): to clear as much anew for each part takes longer.
_OWN = threading.local()


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
        rows, columns = (len(live) - int(np.count_nonzero(live)) for live in (self.rows, self.columns))
        return rows, columns

    def mark(self, part: NDArray[np.generic], start: int, tensor: Tensor, zeros: int) -> None:
        """Take a part that begins at number `start` and holds so many zeros."""
        width = len(self.columns) * self.inner
        if not zeros:
            self.rows[start // width : (start + len(part) - 1) // width + 1] = 1
            if len(part) >= width:
                self.columns[:] = 1
                return
        mask, zero = zero_pattern(tensor)
        mark_live(
            read_only(unsigned(part)), start, np.uint64(mask), np.uint64(zero), self.inner, self.rows, self.columns
        )


def part_length(raw: NDArray[np.generic]) -> int:
    """Numbers to take at a time of this type of stored values."""
    if raw.dtype.itemsize <= 2:
        return _COUNTED
    return _SWEPT if raw.dtype.kind == "f" else _CONVERTED


def moments_of_part(part: NDArray[np.generic], tensor: Tensor) -> Moments:
    """Moments of stored values in one dimension (complex ones as their real and imaginary parts)."""
    width = part.dtype.itemsize
    if tensor.dtype == "bfloat16" or (part.dtype.kind == "f" and width == 4):
        return _singles(part, smallest_normal(tensor.dtype))
    if width == 1 or (width == 2 and len(part) >= _WORDS):
        return _counted(part, tensor)
    if part.dtype.kind != "f" or width == 2:
        part = numbers(part, tensor)
    return _doubles(part, smallest_normal(tensor.dtype))


def _counted(part: NDArray[np.generic], tensor: Tensor) -> Moments:
    """From the count of each pattern: exact, whatever the patterns stand for."""
    patterns = unsigned(part)
    size = 1 << (8 * patterns.dtype.itemsize)
    first, second = _two_tables(size)
    head = min(-patterns.ctypes.data % 8 // patterns.dtype.itemsize, len(patterns))
    inside = (len(patterns) - head) * patterns.dtype.itemsize // 8 * 8 // patterns.dtype.itemsize
    inner = read_only(patterns[head : head + inside].view(np.uint64))
    (count_words if size > 256 else count_bytes)(inner, first, second)
    for rest in (patterns[:head], patterns[head + inside :]):
        np.add.at(first, rest.astype(np.intp), np.uint32(1))
    values, bins = _read_as(tensor.dtype, tensor.scale, tensor.zero_point)
    totals, found = np.zeros(8), Moments()
    of_values = weigh(first, second, values, bins, smallest_normal(tensor.dtype), totals, found.histogram)
    found.minimum, found.maximum, found.nan, found.inf, found.subnormal = of_values
    return _with_totals(found, totals)


@lru_cache(maxsize=64)
def _read_as(dtype: str, scale: float | None, zero_point: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What each pattern stands for, and its bin."""
    values = numbers_of_patterns(dtype, scale, zero_point)
    return values, bin_of(np.where(np.isfinite(values), values, 0.0))


def _with_totals(found: Moments, totals: NDArray[np.float64]) -> Moments:
    found.finite = int(totals[FINITE])
    found.mean, found.m2, found.m3, found.m4 = (float(totals[place]) for place in (MEAN, M2, M3, M4))
    return found


def _singles(part: NDArray[np.generic], normal: float) -> Moments:
    """Of single precision or its upper halves, whose fourth powers are in the range of double precision."""
    if not hasattr(_OWN, "room"):
        _OWN.room = table_of_pairs(), planes_of_bits()  # left as it was
    counts, totals, extremes = np.zeros(KINDS, np.uint32), np.zeros(8), np.array([np.inf, -np.inf])
    patterns = read_only(unsigned(part))
    sweep_single(patterns, counts, *_OWN.room, totals, extremes)
    return _with_exponents(counts, patterns, totals, extremes, normal)


def _doubles(x: NDArray[np.generic], normal: float) -> Moments:
    """Block by block; once more in another unit where fourth powers leave the range."""
    found = _sweep_doubles(x, normal, 1.0)
    largest = max(-found.minimum, found.maximum)
    if found.finite and largest and not 1 / LARGEST_PLAIN <= largest <= LARGEST_PLAIN:
        unit = float(np.ldexp(1.0, int(np.clip(np.frexp(largest)[1] - 1, -1000, 1000))))
        found = _sweep_doubles(x, normal, unit)
        found.unit = unit
    return found


def _sweep_doubles(x: NDArray[np.generic], normal: float, unit: float) -> Moments:
    kinds = 1 << 12
    first, second, totals = np.zeros(kinds, np.uint32), np.zeros(kinds, np.uint32), np.zeros(8)
    keys = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    x = read_only(x)
    patterns = unsigned(x)
    sweep_double(x, patterns, x.view(np.int64), 1.0 / unit, first, second, totals, keys)
    extremes = np.where(keys < 0, keys ^ np.iinfo(np.int64).max, keys).view(np.float64)
    return _with_exponents(first + second, patterns, totals, extremes, normal)


def _with_exponents(
    counts: NDArray[np.uint32],
    patterns: NDArray[np.unsignedinteger[Any]],
    totals: NDArray[np.float64],
    extremes: NDArray[np.float64],
    normal: float,
) -> Moments:
    """What the counts by sign and exponent tell; zeros are looked for only where there may be some."""
    half = len(counts) // 2
    if counts[0] or counts[half]:
        count_zeros(patterns, totals)
    plus, zeros, nan = int(totals[PLUS_ZEROS]), int(totals[ZEROS]), int(totals[NAN])
    counts[0] -= plus
    counts[half] -= zeros - plus
    # numbers below the smallest normal one, which is a power of two: all smaller exponents
    below = int(np.frexp(normal)[1]) - 2 + half // 2 if normal else 0
    found = Moments(
        minimum=float(extremes[0]) if totals[FINITE] else np.inf,
        maximum=float(extremes[1]) if totals[FINITE] else -np.inf,
        nan=nan,
        inf=int(counts[half - 1]) + int(counts[-1]) - nan,
        subnormal=int(counts[:below].sum()) + int(counts[half : half + below].sum()) if normal else 0,
        histogram=bins_by_exponent(counts, zeros),
    )
    return _with_totals(found, totals)


def _two_tables(size: int) -> NDArray[np.uint32]:
    """Room for counts, such that the same place of both is in different sets of the cache."""
    return np.zeros((2, size + 32), np.uint32)[:, :size]
