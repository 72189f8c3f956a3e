"""Where a series becomes noisier or quieter for good, beyond what its level, its age or the learning rate explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Shift", "spread_shift"]

Floats = NDArray[np.float64]
#: Rows of a block at least, blocks at most, and rows below which nothing is judged.
_ROWS, _MOST = 12, 40
FEWEST = 120
#: Blocks before and after a split at least, and those next to it in which the change must already be there in full.
_SIDE, _NEAR = 3, 3
#: Standard errors of the step that healthy series stay below whatever their length, since the number of blocks has a
#: ceiling: simulated on Gaussian, heavy-tailed and autocorrelated noise (tests/analysis/settling/test_spread.py).
_SURE = 6.0
#: A log that prints few digits of small numbers repeats itself: more than this share of zeros, and there is no spread.
_ZEROS = 0.1


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of spread at `row`: spread before and after (standard deviations), their ratio, and how sure it is."""

    row: int
    before: float
    after: float
    score: float

    @property
    def factor(self) -> float:
        """How many times larger the larger spread is."""
        return max(self.before, self.after) / min(self.before, self.after)


def spread_shift(scaled: Floats, context: Floats | None = None) -> Shift | None:
    """The clearest lasting change of spread of a series (logarithms, no holes); None where there is none.

    The spread of a block is taken from how far its rows lie from the middle of their neighbours, by the mean of the
    square roots of these distances, on which one wild row has little weight. Its logarithm is explained by a straight
    line over the run, by the level, and by `context` (such as the logarithm of the learning rate, a number a row);
    what remains must be one step, six standard errors high and there in full within three blocks of its place. A
    factor and not a difference is judged, so noise in proportion to the level is no change.

    >>> noise = np.random.default_rng(0).normal(size=1000) * np.where(np.arange(1000) < 600, 0.02, 0.06)
    >>> found = spread_shift(np.log(2 - np.arange(1000) / 1000) + noise)
    >>> abs(found.row - 600) < 20, 2.5 < found.factor < 3.5, found.after > found.before
    (True, True, True)
    """
    apart = np.abs(scaled[1:-1] - (scaled[2:] + scaled[:-2]) / 2) / 1.5**0.5
    n = len(apart)
    if len(scaled) < FEWEST:
        return None
    count = int(np.clip(n // _ROWS, 1, _MOST))
    edges = np.linspace(0, n, count + 1).round().astype(np.int64)
    sizes = np.diff(edges)
    if (np.add.reduceat(apart == 0, edges[:-1]) > _ZEROS * sizes).any():
        return None
    # 0.822...: mean square root of the distance of a normal number of unit spread
    spread = 2.0 * np.log(np.add.reduceat(np.sqrt(apart), edges[:-1]) / sizes / 0.8221789586624131)
    known = [np.ones(count), np.linspace(-1.0, 1.0, count)]
    beside = (scaled,) if context is None else (scaled, context)
    known += [np.add.reduceat(other[1:-1], edges[:-1]) / sizes for other in beside]
    step = _clearest_step(spread, np.stack(known, axis=1))
    if step is None:
        return None
    block, score = step
    row = _exact(apart, int(edges[max(block - 1, 0)]), int(edges[min(block + 1, count)]), sizes)
    near = np.exp([spread[max(0, block - 4 * _NEAR) : block].mean(), spread[block : block + 4 * _NEAR].mean()])
    return Shift(row + 1, float(near[0]), float(near[1]), score)


def _clearest_step(spread: Floats, known: Floats) -> tuple[int, float] | None:
    """Block before which the step lies, and its height in standard errors; None where it is not one clear step."""
    count = len(spread)
    basis, weight = np.linalg.qr(known)
    good = np.abs(np.diag(weight)) > 1e-9 * max(float(np.abs(weight).max()), 1e-300)
    basis = basis[:, good]
    rest = spread - basis @ (basis.T @ spread)
    splits = np.arange(_SIDE, count - _SIDE + 1)
    steps = (np.arange(count)[None, :] >= splits[:, None]).astype(float)
    free = steps - (steps @ basis) @ basis.T
    size = (free**2).sum(axis=1)
    height = np.where(size > 1e-6, free @ rest / np.maximum(size, 1e-6), 0.0)
    left = np.maximum((rest**2).sum() - height**2 * size, 0.0) / max(count - basis.shape[1] - 1, 1)
    # blocks of few rows differ by chance at least by so much, however well a line happens to fit them
    score = height * np.sqrt(size) / np.sqrt(np.maximum(left, 1e-6))
    best = int(np.argmax(np.abs(score)))
    place = int(splits[best])
    leap = float(spread[place : place + _NEAR].mean() - spread[place - _NEAR : place].mean())
    if abs(score[best]) < _SURE or leap * height[best] <= 0 or abs(leap) < 0.6 * abs(float(height[best])):
        return None
    lasting = float(np.median(spread[place:]) - np.median(spread[:place]))
    if lasting * leap <= 0 or abs(lasting) < 0.6 * abs(leap):
        return None
    return place, abs(float(score[best]))


def _exact(apart: Floats, first: int, last: int, sizes: NDArray[np.int64]) -> int:
    """The row between two at which the distances before and after differ most (likelihood of two scales)."""
    reach = int(sizes.max()) * 2
    start, stop = max(0, first - reach), min(len(apart), last + reach)
    near = np.sqrt(apart[start:stop])
    total, row = np.cumsum(near), np.arange(1, len(near))
    before, after = total[:-1] / row, (total[-1] - total[:-1]) / (len(near) - row)
    edge = max(3, reach // 8)
    cost = row * np.log(np.maximum(before, 1e-300)) + (len(near) - row) * np.log(np.maximum(after, 1e-300))
    return start + int(row[edge:-edge][np.argmin(cost[edge:-edge])])
