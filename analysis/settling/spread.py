"""Where a series becomes noisier or quieter for good, beyond what its level, its age or the learning rate explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.settling.spread_step import NEAR, clearest_step

__all__ = ["FEWEST", "Shift", "spread_shift"]

Floats = NDArray[np.float64]
#: Rows of a block at least, blocks at most, and rows below which nothing is judged.
_ROWS, _MOST = 12, 40
FEWEST = 200
#: The first part of a run has a noise of its own, while the model still says the same of everything.
_YOUNG = 0.15
#: So is that of a warm-up, for no longer than this (one-cycle schedules rise for 30 %).
_WARM_UP = 0.4
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
    standard errors high, there in full within three blocks of its place and kept by nearly all blocks. Alone or beside
    a straight line over the run, the level or `context` (such as the logarithm of the learning rate, a number a row; a
    spread may only grow with it) it must explain the spread far better than these do without a step. A factor and not
    a difference is judged, so noise in proportion to the level is no change.

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
    step = clearest_step(spread, np.stack(known, axis=1), rising=range(3, len(known)), young=young)
    if step is None:
        return None
    block, height, score = step
    row = _exact(apart, int(edges[max(block - 1, 0)]), int(edges[min(block + 1, count)]), sizes)
    # about the step, of which a slow growth on both sides is no part
    middle = (spread[block - NEAR : block].mean() + spread[block : block + NEAR].mean()) / 2
    before, after = np.exp([middle - height / 2, middle + height / 2])
    return Shift(row + 1, float(before), float(after), score)


def _warm(rate: Floats) -> float:
    """The part of a run that its warm-up takes: until the rate first comes near its highest; 0 where that is later on.

    While steps grow, a model begins to tell its examples apart, and the loss of single batches begins to vary.
    """
    share = int(np.argmax(rate >= rate.max() - 0.05)) / len(rate)
    return share if share <= _WARM_UP else 0.0


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
