"""A long noisy series as a few dozen block means with their error, so that its shape costs the same at any length."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blocks", "Line", "bend_noise", "blocks_of", "line_of"]

Floats = NDArray[np.float64]
#: Blocks that a series is cut into at most, and rows that a block has at least where there are enough for that.
MOST, LEAST_ROWS = 48, 2
#: A block mean of normal numbers from the middle 80 % of them: 1.06 times the error of the mean, and no outlier in it.
_TRIM = 0.1


@dataclass(frozen=True, slots=True)
class Blocks:
    """Levels of a series: `mean` of each block of `rows` rows (the first begins at row 0), and their common `error`."""

    mean: Floats
    error: float
    rows: float

    def __len__(self) -> int:
        return len(self.mean)

    def row(self, block: int) -> int:
        """First row of a block."""
        return round(block * self.rows)


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through equally spaced levels: slope per block, and the standard error of that slope."""

    slope: float
    error: float


def blocks_of(scaled: Floats, most: int = MOST) -> Blocks:
    """Block means of a series without holes, trimmed by a tenth on either side where a block has ten rows.

    The error of a mean is measured on the means themselves, by how far each lies from the middle of its neighbours, and
    is no smaller than white noise of the rows would give: noise that hangs together over many rows counts in full, and
    no slope enters it.

    >>> levels = blocks_of(np.arange(960.0))
    >>> len(levels), float(levels.mean[0]), float(levels.rows), levels.error
    (48, 9.5, 20.0, 0.0)
    """
    count = int(np.clip(len(scaled) // LEAST_ROWS, 1, most))
    edges = np.linspace(0, len(scaled), count + 1).round().astype(np.int64)
    if len(scaled) // count >= 10:
        parts = [np.sort(scaled[a:b]) for a, b in itertools.pairwise(edges)]
        mean = np.array([part[round(_TRIM * len(part)) : round((1 - _TRIM) * len(part))].mean() for part in parts])
    else:
        mean = np.add.reduceat(scaled, edges[:-1]) / np.diff(edges)
    rows = len(scaled) / count
    return Blocks(mean, max(bend_noise(scaled) / rows**0.5, *(_joined_noise(mean, k) for k in (1, 2, 3))), rows)


def _joined_noise(mean: Floats, joined: int) -> float:
    """Error of a block mean by the bends of means over several blocks; more than by its own where noise wanders."""
    whole = len(mean) // joined * joined
    if whole < 4 * joined:
        return 0.0
    return bend_noise(mean[:whole].reshape(-1, joined).mean(axis=1)) * float(np.sqrt(joined))


def bend_noise(levels: Floats) -> float:
    """Standard deviation of the noise of a series, by how far each value lies from the middle of its neighbours."""
    if len(levels) < 3:
        return 0.0
    bend = levels[1:-1] - (levels[2:] + levels[:-2]) / 2
    spread = 1.4826 * float(np.median(np.abs(bend)))
    return (spread if spread > 0 else float(np.sqrt(np.mean(bend**2)))) / float(np.sqrt(1.5))


def line_of(levels: Floats, error: float) -> Line:
    """The least-squares line through levels that each have this standard error."""
    place = np.arange(len(levels)) - (len(levels) - 1) / 2
    square = float(place @ place)
    return Line(float(place @ levels) / square, error / square**0.5)
