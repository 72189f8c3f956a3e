"""Where a series becomes noisier or quieter for good, beyond what its level, its age or the learning rate explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Shift", "spread_shift"]

Floats = NDArray[np.float64]
#: Rows of a block at least, blocks at most, and rows below which nothing is judged.
_ROWS, _MOST = 12, 40
FEWEST = 200
#: Blocks before and after a split at least, and those next to it in which the change must already be there in full.
_SIDE, _NEAR = 3, 3
#: The first part of a run has a noise of its own, while the model still says the same of everything.
_YOUNG = 0.15
#: So is that of a warm-up, for no longer than this (one-cycle schedules rise for 30 %).
_WARM_UP = 0.4
#: Blocks that must lie on their own side of the middle, before and after.
_KEPT = 0.8
#: Standard errors of the step that healthy series stay below whatever their length, since the number of blocks has a
#: ceiling: simulated on Gaussian, heavy-tailed and autocorrelated noise (tests/analysis/settling/test_spread.py).
_SURE = 6.0
#: What a step leaves unexplained must be so much less than what all else together leaves.
_BETTER = 0.65
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
    square roots of these distances, on which one wild row has little weight. Its logarithm must have one step, six
    standard errors high, there in full within three blocks of its place and kept by nearly all blocks; it must
    explain it far better than a straight line over the run, the level, and `context` do (such as the logarithm of the
    learning rate, a number a row; a spread may only grow with it). A factor and not a difference is judged, so noise
    in proportion to the level is no change.

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
    young = _YOUNG if context is None else max(_YOUNG, _warm(context))
    step = _clearest_step(spread, np.stack(known, axis=1), rising=range(3, len(known)), young=young)
    if step is None:
        return None
    block, score = step
    row = _exact(apart, int(edges[max(block - 1, 0)]), int(edges[min(block + 1, count)]), sizes)
    near = np.exp([spread[max(0, block - 4 * _NEAR) : block].mean(), spread[block : block + 4 * _NEAR].mean()])
    return Shift(row + 1, float(near[0]), float(near[1]), score)


def _warm(rate: Floats) -> float:
    """The part of a run that its warm-up takes: until the rate first comes near its highest; 0 where that is later on.

    While steps grow, a model begins to tell its examples apart, and the loss of single batches begins to vary.
    """
    share = int(np.argmax(rate >= rate.max() - 0.05)) / len(rate)
    return share if share <= _WARM_UP else 0.0


def _clearest_step(spread: Floats, known: Floats, rising: Sequence[int], young: float) -> tuple[int, float] | None:
    """Block before which the step lies, and its height in standard errors; None where it is not one clear step."""
    count = len(spread)
    splits = np.arange(max(_SIDE, round(young * count)), count - _SIDE + 1)
    total, square = np.cumsum(spread), float(spread @ spread)
    before, after = total[splits - 1] / splits, (total[-1] - total[splits - 1]) / (count - splits)
    left = square - splits * before**2 - (count - splits) * after**2
    best = int(np.argmin(left))
    place, height = int(splits[best]), float(after[best] - before[best])
    # blocks of few rows differ by chance at least by so much, however well a step happens to fit them
    variance = max(float(left[best]) / (count - 2), 1e-6)
    score = abs(height) / np.sqrt(variance * (1 / place + 1 / (count - place)))
    if (
        score < _SURE
        or variance > _BETTER * _least_variance(spread, known, rising)
        or not _stays(spread, place, height)
    ):
        return None
    return place, float(score)


def _least_variance(spread: Floats, known: Floats, rising: Sequence[int]) -> float:
    """Variance that is left by what may explain the spread without a step: age, level, context, and age with each.

    What is in `rising` explains a spread that grows with it and no other: a learning rate that falls makes no noise.
    """
    count, others = known.shape
    sets = [[0, 1], *([0, k] for k in range(2, others)), *([0, 1, k] for k in range(2, others))]
    least = np.inf
    for columns in sets:
        found = np.linalg.lstsq(known[:, columns], spread, rcond=None)[0]
        if any(k in rising and slope < 0 for k, slope in zip(columns, found, strict=True)):
            continue  # those without it are tried as well
        rest = spread - known[:, columns] @ found
        least = min(least, float(rest @ rest) / (count - len(columns)))
    return least


def _stays(spread: Floats, place: int, height: float) -> bool:
    """Whether a step is there in full at once, and nearly all blocks lie on their own side of it."""
    leap = float(spread[place : place + _NEAR].mean() - spread[place - _NEAR : place].mean())
    middle, way = float(np.median(spread[place:]) + np.median(spread[:place])) / 2, np.sign(height)
    kept = min(np.mean(way * (spread[place:] - middle) > 0), np.mean(way * (middle - spread[:place]) > 0))
    return bool(way * leap >= 0.6 * abs(height) and kept >= _KEPT)


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
