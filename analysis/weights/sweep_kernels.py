"""Compiled sweeps over large tensors: moments of double precision, patterns, which rows and columns hold anything.

Importing this module loads numba; it is imported for large checkpoints only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.tables.compiled import compiled

__all__ = ["count_bytes", "count_words", "count_zeros", "join_block", "mark_live", "sums_of", "sweep_double", "weigh"]

Floats = NDArray[np.floating[Any]]
Totals = NDArray[np.float64]
Patterns = NDArray[np.unsignedinteger[Any]]
Tallies = NDArray[np.uint32]

#: Numbers that are swept while they lie in the first-level cache.
_BLOCK = 4096
#: So many of a block tell about where its mean lies: the sums are taken about there, so that nothing cancels.
_PILOT = 256
_ONE = np.uint32(1)
#: Of double precision: bits below the exponent, all bits but the sign, and the pattern of plus infinity.
_MANTISSA, _REST, _ENDLESS = np.uint64(52), np.int64((1 << 63) - 1), np.int64(0x7FF << 52)
#: Where what stands in the array of totals.
FINITE, MEAN, M2, M3, M4, ZEROS, PLUS_ZEROS, NAN = range(8)


@partial(compiled, relaxed=("reassoc", "contract", "nsz", "nnan"))
def sums_of(x: Floats) -> tuple[float, ...]:  # pragma: no cover - compiled
    """Pilot mean, and sums of the first four powers about it, of finite numbers."""
    pilot = min(len(x), _PILOT)
    shift = 0.0
    for i in range(pilot):
        shift += np.float64(x[i])
    shift /= pilot
    s1 = s2 = s3 = s4 = 0.0
    for i in range(len(x)):
        d = np.float64(x[i]) - shift
        d2 = d * d
        s1 += d
        s2 += d2
        s3 += d2 * d
        s4 += d2 * d2
    return shift, s1, s2, s3, s4


@compiled
def _extremes(bits: NDArray[np.int64]) -> tuple[np.int64, np.int64]:  # pragma: no cover - compiled
    """Least and largest number, as integers in the same order: `bits` are theirs. NaN lies beyond the infinities.

    Comparisons of floats are not vectorised, because of NaN; those of integers are.
    """
    low = high = bits[0] ^ ((bits[0] >> 63) & _REST)
    for i in range(len(bits)):
        key = bits[i] ^ ((bits[i] >> 63) & _REST)
        low = min(low, key)
        high = max(high, key)
    return low, high


@compiled
def join_block(totals: Totals, n: int, sums: tuple[float, ...]) -> None:  # pragma: no cover - compiled
    """Add a block to the totals: its sums about the pilot mean become central ones, then as in `Moments.__add__`."""
    shift, s1, s2, s3, s4 = sums
    e = s1 / n
    mean = shift + e
    b2 = s2 - s1 * e
    b3 = s3 - 3 * e * s2 + 2 * e * e * s1
    b4 = s4 - 4 * e * s3 + 6 * e * e * s2 - 3 * e * e * e * s1
    p, q = totals[FINITE], float(n)
    both = p + q
    d = mean - totals[MEAN]
    u, v = p / both, q / both
    totals[M4] += (
        b4
        + d * d * d * d * u * v * ((p * p - p * q + q * q) / both)
        + 6 * d * d * (u * u * b2 + v * v * totals[M2])
        + 4 * d * (u * b3 - v * totals[M3])
    )
    totals[M3] += b3 + d * d * d * u * v * (p - q) + 3 * d * (u * b2 - v * totals[M2])
    totals[M2] += b2 + d * d * p * v
    totals[MEAN] += d * v
    totals[FINITE] = both


@compiled
def _finite_of(x: Floats, into: Floats, totals: Totals) -> int:  # pragma: no cover - compiled
    kept = 0
    for i in range(len(x)):
        if np.isfinite(x[i]):
            into[kept] = x[i]
            kept += 1
        elif np.isnan(x[i]):
            totals[NAN] += 1
    return kept


@compiled
def sweep_double(  # pragma: no cover - compiled
    x: Totals,
    patterns: NDArray[np.uint64],
    bits: NDArray[np.int64],
    scale: float,
    first: Tallies,
    second: Tallies,
    totals: Totals,
    extremes: NDArray[np.int64],
) -> None:
    """Take numbers into `totals`, and count them by sign and exponent in two tables of which the sum counts.

    `patterns` and `bits` are the numbers as unsigned and as signed integers, `extremes` the least and the largest as
    integers (see `_extremes`). Zeros are not told apart (see `count_zeros`).
    """
    clean = np.empty(_BLOCK)
    for start in range(0, len(x), _BLOCK):
        block, signed = x[start : start + _BLOCK], bits[start : start + _BLOCK]
        n = len(block)
        low, high = _extremes(signed)
        if high >= _ENDLESS or low <= -1 - _ENDLESS:  # minus infinity is as far below -1 as plus infinity above 0
            n = _finite_of(block, clean, totals)
            block = clean[:n]
            if n:
                low, high = _extremes(block.view(np.int64))
        if n:
            if scale != 1:  # by itself, as all others need not pay for it
                for i in range(n):
                    clean[i] = block[i] * scale
                block = clean[:n]
            join_block(totals, n, sums_of(block))
            extremes[0] = min(extremes[0], low)
            extremes[1] = max(extremes[1], high)
    _count_exponents(patterns, first, second)


@compiled
def _count_exponents(  # pragma: no cover - compiled
    patterns: NDArray[np.uint64], first: Tallies, second: Tallies
) -> None:
    """In turn into two tables, so that two equal ones in a row do not wait for each other."""
    n = len(patterns) // 2
    for i in range(n):
        first[patterns[2 * i] >> _MANTISSA] += _ONE
        second[patterns[2 * i + 1] >> _MANTISSA] += _ONE
    if len(patterns) % 2:
        first[patterns[2 * n] >> _MANTISSA] += _ONE


@compiled
def count_zeros(patterns: Patterns, totals: Totals) -> None:  # pragma: no cover - compiled
    """Count zeros, and those without a sign."""
    zeros = plus = 0
    kind = patterns.dtype.type
    for i in range(len(patterns)):
        plus += patterns[i] == 0
        zeros += kind(patterns[i] << kind(1)) == 0
    totals[ZEROS] += zeros
    totals[PLUS_ZEROS] += plus


@compiled
def count_words(quads: NDArray[np.uint64], first: Tallies, second: Tallies) -> None:  # pragma: no cover - compiled
    """Count the four patterns of 16 bits in each number of 64, in two tables (their sum counts)."""
    for i in range(len(quads)):
        four = quads[i]
        first[np.uint16(four)] += _ONE
        second[np.uint16(four >> np.uint64(16))] += _ONE
        first[np.uint16(four >> np.uint64(32))] += _ONE
        second[four >> np.uint64(48)] += _ONE


@compiled
def count_bytes(octets: NDArray[np.uint64], first: Tallies, second: Tallies) -> None:  # pragma: no cover - compiled
    """Count the eight patterns of 8 bits in each number of 64, in two tables (their sum counts)."""
    for i in range(len(octets)):
        eight = octets[i]
        for _ in range(4):
            first[np.uint8(eight)] += _ONE
            second[np.uint8(eight >> np.uint64(8))] += _ONE
            eight >>= np.uint64(16)


@compiled
def weigh(  # pragma: no cover - compiled
    first: Tallies,
    second: Tallies,
    values: Totals,
    bins: NDArray[np.int64],
    normal: float,
    totals: Totals,
    histogram: NDArray[np.int64],
) -> tuple[Any, ...]:
    """Moments from the counts of patterns (the sum of two tables) and what each stands for; gives the extremes and the
    counts of NaN, infinities and subnormal numbers.
    """
    seen = np.empty(len(values), np.int64)
    left = 0
    finite = nan = inf = subnormal = np.int64(0)
    least, most, total = np.inf, -np.inf, 0.0
    for p in range(len(values)):
        count = np.int64(first[p]) + np.int64(second[p])
        if count == 0:
            continue
        v = values[p]
        if np.isnan(v):
            nan += count
        elif np.isinf(v):
            inf += count
        else:
            seen[left] = p
            left += 1
            finite += count
            total += count * v
            least, most = min(least, v), max(most, v)
            histogram[bins[p]] += count
            if v != 0 and abs(v) < normal:
                subnormal += count
    mean = total / finite if finite else 0.0
    s1 = s2 = s3 = s4 = 0.0
    for k in range(left):
        p = seen[k]
        weight = np.float64(first[p]) + np.float64(second[p])
        d = values[p] - mean
        s1 += weight * d
        s2 += weight * d * d
        s3 += weight * d * d * d
        s4 += weight * d * d * d * d
    if finite:
        join_block(totals, finite, (mean, s1, s2, s3, s4))
    return least, most, nan, inf, subnormal


@compiled
def mark_live(  # pragma: no cover - compiled
    bits: Patterns,
    start: int,
    mask: np.uint64,
    zero: np.uint64,
    inner: int,
    live_rows: NDArray[np.uint8],
    live_columns: NDArray[np.uint8],
) -> None:
    """Mark rows and columns that hold anything but zeros; `bits` are the tensor's patterns from number `start` on.

    The tensor has rows of `len(live_columns) * inner` numbers, `inner` to a column. A row is left at its first number
    that is not zero, and a column is not looked at again, so that a tensor without zeros costs one look a row.
    """
    width = len(live_columns) * inner
    open_columns = np.empty(len(live_columns), np.int64)
    left = 0
    for c in range(len(live_columns)):
        if not live_columns[c]:
            open_columns[left] = c
            left += 1
    at = 0
    while at < len(bits):
        row = (start + at) // width
        begin = row * width - start
        stop = min(begin + width, len(bits))
        for i in range(at, stop):
            if (np.uint64(bits[i]) & mask) != zero:
                live_rows[row] = 1
                break
        kept = 0
        for k in range(left):
            c = open_columns[k]
            live = False
            for i in range(max(at, begin + c * inner), min(stop, begin + (c + 1) * inner)):
                if (np.uint64(bits[i]) & mask) != zero:
                    live = True
                    break
            if live:
                live_columns[c] = 1
            else:
                open_columns[kept] = c
                kept += 1
        left = kept
        at = stop
