"""Compiled sweep over numbers of single precision or bfloat16: sums, extremes and counts of exponents, by blocks.

Importing this module loads numba; it is imported for large checkpoints only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.weights.bit_planes import (
    ASTRAY,
    GROUP,
    MOST_BLOCKS,
    MOST_GROUPS,
    UNIT,
    count_planes,
    set_right,
    window_of,
)
from analysis.weights.exponent_pairs import take_pairs, take_pairs_about_zero
from analysis.weights.exponent_window import WINDOWS, take_window, take_window_about_zero
from analysis.weights.lanes import CHUNK, MANTISSA
from analysis.weights.sweep_kernels import NAN, join_block, sums_of
from parsers.tables.compiled import compiled

__all__ = ["sweep_single", "widen"]

Totals = NDArray[np.float64]
Patterns = NDArray[np.unsignedinteger[Any]]
Planes = NDArray[np.uint8]
Tallies = NDArray[np.uint32]

#: Numbers about whose mean sums are taken, and of which that mean is guessed, so that nothing cancels.
_BLOCK, _PILOT = MOST_GROUPS * GROUP, 64
#: Share of a mean's square in the mean square up to which sums about 0 serve as well as about the mean.
_NEAR = 0.1
#: Units of a block with exponents outside the window above which the window is given up, and blocks whose exponents
#: are counted in pairs before another one is looked for.
_MANY, _PAUSE = _BLOCK // UNIT // 16, 8
#: Mean squares between which fourth powers of single precision neither leave its range nor lose digits at its end.
_SMALLEST, _LARGEST = 2.0**-60, 2.0**40
#: The bits of single precision that bfloat16 has.
_UPPER = np.uint32(0xFFFF0000)
_ONE = np.uint32(1)


@compiled
def sweep_single(  # pragma: no cover - compiled
    patterns: Patterns, singles: Tallies, pairs: Tallies, planes: Planes, totals: Totals, extremes: Totals
) -> bool:
    """Take numbers into `totals`, their least and largest into `extremes`, and count them by sign and exponent in
    `singles`, and in `pairs` two at a time where their exponents are far apart; whether there are any such ones, so
    that `unpair` must move them.

    `patterns` are of 32 bits, or of 16, which are the upper half of 32. `pairs` (`table_of_pairs`) and `planes`
    (`planes_of_bits`) are all zero before, and the planes after it. Zeros are not told apart (see `count_zeros`).
    """
    found, wide = np.empty(7), np.empty(_BLOCK, np.uint32)
    units, astray = np.empty(_BLOCK // UNIT + 1, np.uint32), np.zeros(ASTRAY, np.uint32)
    low, look, held, paired = -1, 0 if WINDOWS else len(patterns), 0, False
    for start in range(0, len(patterns), _BLOCK):
        block = patterns[start : start + _BLOCK]
        shift = _shift(block[: min(_PILOT, len(block))], wide)
        if low < 0 and start >= look:
            low = window_of(block)
        if low < 0:
            whole = len(block) // CHUNK * CHUNK
            paired |= whole > 0
            if shift == 0:
                take_pairs_about_zero(block, whole // CHUNK, shift, pairs, found)
            else:
                take_pairs(block, whole // CHUNK, shift, pairs, found)
        else:
            whole = len(block) // GROUP * GROUP
            strays = _take_window(block[:whole], shift, low, planes, units, found)
            for unit in units[:strays]:
                set_right(block[unit * UNIT : (unit + 1) * UNIT], low, singles, astray)
            held += 1
            fits = strays <= _MANY and np.isfinite(found[0])
            if held == MOST_BLOCKS or not fits or start + _BLOCK >= len(patterns):
                count_planes(planes, low, astray, singles)
                held = 0
            if not fits:
                low = -1
        if low < 0 and start >= look:
            look = start + _PAUSE * _BLOCK
        _join(block, whole, shift, found, wide, totals, extremes)
        for i in range(whole, len(block)):
            singles[_wide(block[i]) >> np.uint32(MANTISSA)] += _ONE
    return paired


@compiled
def _take_window(  # pragma: no cover - compiled
    block: Patterns, shift: float, low: int, planes: Planes, units: Tallies, found: Totals
) -> int:
    """Take whole groups, and how many `units` hold exponents outside the window; the first sum is NaN where powers do
    not fit single precision.
    """
    if shift == 0:
        take_window_about_zero(block, len(block) // GROUP, shift, low, planes, units, found)
    else:
        take_window(block, len(block) // GROUP, shift, low, planes, units, found)
    strays = int(found[6])
    if len(block):
        _extremes(block, found)
        if found[4] < found[5] and not _SMALLEST <= found[1] / len(block) <= _LARGEST:
            found[0] = np.nan
    return strays


@compiled
def _join(  # pragma: no cover - compiled
    block: Patterns, whole: int, shift: float, found: Totals, wide: Tallies, totals: Totals, extremes: Totals
) -> None:
    """Add what was found of the first numbers of a block, and the rest of it, to the totals."""
    if whole and np.isfinite(found[0]):
        join_block(totals, whole, (shift, found[0], found[1], found[2], found[3]))
        extremes[0] = min(extremes[0], found[4])
        extremes[1] = max(extremes[1], found[5])
        block = block[whole:]
    if len(block):
        _take_finite(block, wide, totals, extremes)


@compiled
def _extremes(patterns: Patterns, found: Totals) -> None:  # pragma: no cover - compiled
    """Make the largest patterns, as signed and as unsigned integers, the least and the largest number.

    Of numbers of both signs they are the largest and the least; where all have one, the least magnitude is missing.
    """
    bounds = np.array([np.uint32(found[4]), np.uint32(found[5])])
    signed, unsigned = bounds.view(np.float32)
    if np.signbit(signed) or not np.signbit(unsigned):
        nearest = patterns[0]
        for i in range(len(patterns)):
            nearest = min(nearest, patterns[i])
        bounds[0] = _wide(nearest)
        other = bounds.view(np.float32)[0]
        found[4], found[5] = min(other, unsigned), max(other, unsigned)
    else:
        found[4], found[5] = unsigned, signed


@compiled
def _shift(pilot: Patterns, wide: Tallies) -> float:  # pragma: no cover - compiled
    """The mean of some numbers, with as many digits as they have, so that differences from it are exact; 0 where it is
    small beside their spread, so that sums about 0 lose nothing.
    """
    widen(pilot, wide)
    total = squares = 0.0
    for number in wide[: len(pilot)].view(np.float32):
        total += np.float64(number)
        squares += np.float64(number) * np.float64(number)
    mean = total / len(pilot)
    if mean * mean <= _NEAR * squares / len(pilot):
        return 0.0
    wide.view(np.float32)[0] = mean
    if pilot.itemsize == 2:
        wide[0] &= _UPPER
    return np.float64(wide.view(np.float32)[0])


@compiled
def _take_finite(patterns: Patterns, wide: Tallies, totals: Totals, extremes: Totals) -> None:  # pragma: no cover
    """One by one, and NaN and infinities left out; NaN are counted."""
    widen(patterns, wide)
    numbers = wide.view(np.float32)
    kept = 0
    for i in range(len(patterns)):
        number = numbers[i]
        if np.isfinite(number):
            numbers[kept] = number
            kept += 1
            extremes[0] = min(extremes[0], number)
            extremes[1] = max(extremes[1], number)
        elif np.isnan(number):
            totals[NAN] += 1
    if kept:
        join_block(totals, kept, sums_of(numbers[:kept]))


@compiled
def _wide(pattern: Any) -> np.uint32:  # pragma: no cover - compiled
    """A pattern in single precision."""
    return np.uint32(pattern) << np.uint32(32 - np.iinfo(pattern).bits)


@compiled
def widen(patterns: Patterns, into: Tallies) -> None:  # pragma: no cover - compiled
    """Patterns of 16 or 32 bits in single precision."""
    for i in range(len(patterns)):
        into[i] = _wide(patterns[i])
