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
    kind_of,
    set_right,
    window_of,
)
from analysis.weights.exponent_pairs import take_pairs, take_pairs_about_zero, unpair
from analysis.weights.exponent_window import WINDOWS, take_window
from analysis.weights.lanes import CHUNK
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
#: Units of a block with exponents outside the window above which the window is given up.
_MANY = _BLOCK // UNIT // 16
#: Blocks whose exponents are counted in pairs before another window is looked for: twice as many each time, up to this.
_PAUSE, _LONGEST_PAUSE = 8, 256
#: Mean squares between which fourth powers of single precision neither leave its range nor lose digits at its end, and
#: the share in them of the square of the mean, above which too much cancels for single precision.
_SMALLEST, _LARGEST, _FAR = 2.0**-60, 2.0**40, 0.25
#: The bits of single precision that bfloat16 has.
_UPPER = np.uint32(0xFFFF0000)
_ONE = np.uint32(1)


@compiled
def sweep_single(  # pragma: no cover - compiled
    patterns: Patterns, singles: Tallies, pairs: Tallies, planes: Planes, totals: Totals, extremes: Totals
) -> None:
    """Take numbers into `totals`, their least and largest into `extremes`, and count them by sign and exponent in
    `singles`.

    `patterns` are of 32 bits, or of 16, which are the upper half of 32, and contiguous. `pairs` (`table_of_pairs`) and
    `planes` (`planes_of_bits`) are all zero before it and after it, whatever comes between, as no interrupt does.
    Zeros are not told apart (see `count_zeros`).
    """
    found, wide = np.empty(7), np.empty(_BLOCK, np.uint32)
    units, astray = np.empty(_BLOCK // UNIT + 1, np.uint32), np.zeros(ASTRAY, np.uint32)
    low, look, pause, held, paired = -1, 0 if WINDOWS else len(patterns), _PAUSE, 0, False
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
            strays, shift = _take_window(block[:whole], shift, low, planes, units, wide, found)
            for unit in units[:strays]:
                set_right(block[unit * UNIT : (unit + 1) * UNIT], low, singles, astray)
            held += 1
            if held == MOST_BLOCKS or strays > _MANY or start + _BLOCK >= len(patterns):
                count_planes(planes, low, astray, singles)
                held = 0
            if strays > _MANY:
                low = -1
        if low < 0 and start >= look:
            look = start + pause * _BLOCK
            pause = min(2 * pause, _LONGEST_PAUSE)
        _join(block, whole, shift, found, wide, totals, extremes)
        for i in range(whole, len(block)):
            singles[kind_of(block[i])] += _ONE
    if paired:
        unpair(singles, pairs)


@compiled
def _take_window(  # pragma: no cover - compiled
    block: Patterns, shift: float, low: int, planes: Planes, units: Tallies, wide: Tallies, found: Totals
) -> tuple[int, float]:
    """Take whole groups: how many `units` hold exponents outside the window, and about what the sums are. Where single
    precision was not enough for these, they are taken once more in double precision.
    """
    take_window(block, len(block) // GROUP, shift, low, planes, units, found)
    strays, n = int(found[6]), len(block)
    if n:
        finite = _extremes(block, found)
        enough = _SMALLEST <= found[1] / n <= _LARGEST and found[0] * found[0] <= _FAR * found[1] * n
        if not finite:
            found[0] = np.nan
        elif found[4] < found[5] and not enough:
            widen(block, wide)
            shift, found[0], found[1], found[2], found[3] = sums_of(wide.view(np.float32)[:n])
    return strays, shift


@compiled
def _join(  # pragma: no cover - compiled
    block: Patterns, whole: int, shift: float, found: Totals, wide: Tallies, totals: Totals, extremes: Totals
) -> None:
    """Add what was found of the first numbers of a block, and the rest of it, to the totals; one by one also those of
    which some are not finite.
    """
    if whole and np.isfinite(found[0]):
        join_block(totals, whole, (shift, found[0], found[1], found[2], found[3]))
        extremes[0] = min(extremes[0], found[4])
        extremes[1] = max(extremes[1], found[5])
        block = block[whole:]
    if len(block):
        _take_finite(block, wide, totals, extremes)


@compiled
def _extremes(patterns: Patterns, found: Totals) -> bool:  # pragma: no cover - compiled
    """Make the largest patterns, as signed and as unsigned integers, the least and the largest number; whether all
    numbers are finite.

    Of numbers of both signs they are the largest and the least; where all have one, the least magnitude is missing.
    A NaN or an infinity is larger than other patterns of its sign.
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
    return bool(np.isfinite(signed) and np.isfinite(unsigned))


@compiled
def _shift(pilot: Patterns, wide: Tallies) -> float:  # pragma: no cover - compiled
    """The mean of some numbers, with as many digits as they have, so that differences of numbers near it are exact; 0
    where it is small beside their spread, so that sums about 0 lose nothing.
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
