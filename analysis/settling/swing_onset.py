"""Where regular swings set in: the row that parts a loss without them from one with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["swing_onset"]

Floats = NDArray[np.float64]
#: Cycles of a stretch after a row that are held against the swings, and rows of the stretch before it at most.
_AFTER, _BEFORE = 3, 2
#: Overtones that give a cycle its shape.
_TONES = (1, 2)
#: Rows that are tried at most, over the whole series; then each row about the best.
_TRIED = 200
#: The two parts must leave so much less than swings all along do, for there to be an onset at all.
_BETTER = 0.8


def swing_onset(scaled: Floats, period: float, last: int) -> int:
    """The row from which on a series (logarithms, no holes) swings with a period; 0 where it does from the start.

    Up to `last` a row is looked for, before which a straight line and after which a line with a wave of the period and
    its overtone leave the least: of two cycles before it, and of three after. The loss may leap there, since what
    makes it swing may make it worse as well. Where swings from the first row on explain the rows about it nearly as
    well, they have been there all along.

    >>> row = np.arange(300)
    >>> noise = 0.05 * np.random.default_rng(0).normal(size=300)
    >>> swinging = np.where(row >= 120, 0.3 * np.sin(row / 3), 0.0)
    >>> abs(swing_onset(noise + swinging - row / 300, 18.85, 299) - 120) <= 4
    True
    >>> swing_onset(noise + 0.3 * np.sin(row / 3) - row / 300, 18.85, 299)
    0
    """
    n = min(last + 1, len(scaled))
    before, after = max(8, round(_BEFORE * period)), max(12, round(_AFTER * period))
    first, stop = before, n - after
    if stop <= first:
        return 0
    tried = np.unique(np.linspace(first, stop, min(_TRIED, stop - first + 1)).round().astype(int))
    gains = [_gain(scaled, int(row), before, after, period) for row in tried]
    best = int(np.argmax(gains))
    if gains[best] <= -np.log(_BETTER):
        return 0
    return _exact(scaled, int(tried[best]), before, after, period)


def _exact(scaled: Floats, about: int, before: int, after: int, period: float) -> int:
    """The row near a first guess that parts one and the same stretch into a line and a wave with the least left over.

    A cycle before the rows that are tried is enough: over more of it a falling loss is no line.
    """
    reach = max(6, round(0.7 * period))
    low, high = max(0, about - max(before // _BEFORE, reach + 8)), min(len(scaled), about + after)
    tried = range(max(low + 6, about - reach), min(high - 2 * reach, about + reach) + 1)
    if not tried:
        return about
    return tried[int(np.argmin([_left(scaled[low:row], None) + _left(scaled[row:high], period) for row in tried]))]


def _gain(scaled: Floats, row: int, before: int, after: int, period: float) -> float:
    """Logarithm of what a wave over both parts leaves, over what a line before `row` and a wave after it leave."""
    old, new = scaled[row - before : row], scaled[row : row + after]
    parted = _left(old, None) + _left(new, period)
    whole = _left(scaled[row - before : row + after], period)
    return float(np.log(max(whole, 1e-300) / max(parted, 1e-300))) if whole > 0 else 0.0


def _left(part: Floats, period: float | None) -> float:
    """Sum of squares that a line, with a wave of a period where one is given, leaves of a stretch."""
    row = np.arange(len(part), dtype=np.float64)
    columns = [np.ones(len(part)), row / max(len(part), 1)]
    if period is not None:
        for tone in _TONES:
            turn = 2.0 * np.pi * tone * row / period
            columns += [np.sin(turn), np.cos(turn)]
    design = np.stack(columns, axis=1)
    found = np.linalg.lstsq(design, part, rcond=None)[0]
    rest = part - design @ found
    return float(rest @ rest)
