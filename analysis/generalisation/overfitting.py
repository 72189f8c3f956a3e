"""Where evaluation turns while training goes on: best point, onset of overfitting, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.generalisation.trend import Slope, block_edges, block_means, neighbour_noise, theil_sen

__all__ = ["MIN_EVALS", "Turn", "find_turn"]

Floats = NDArray[np.float64]
#: With fewer evals a rise cannot be told from noise: nothing is left to measure the noise with.
MIN_EVALS = 5
#: Evals are judged in at most so many block means: the noise of a mean holds whatever correlation the evals have, and
#: the answer depends on how long the log is neither through the minimum of many points nor through their number.
_BLOCKS = 24
#: Chance of a false alarm per side of the turn; calibrated with the tests' healthy curves, see `_bar`.
_CHANCE = 1e-3
#: Student's t at that chance with (blocks - 2) / 2 degrees of freedom, for 5 to 24 blocks: a table saves the import of
#: a library that takes longer than the whole analysis of a small log.
STUDENT = (
    52.18,
    22.33,
    13.82,
    10.21,
    8.32,
    7.17,
    6.42,
    5.89,
    5.50,
    5.21,
    4.97,
    4.79,
    4.63,
    4.50,
    4.39,
    4.30,
    4.21,
    4.14,
    4.08,
    4.03,
)
#: A rise of which more than half is gone again at the end was a bump (a restart, double descent).
_KEPT = 0.5
#: Training has fallen when it lost a hundredth more; below half of eval it may also stand still (its floor).
_FALL, _FLOOR = 0.01, 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of evaluation after its best point. Indices count eval points; rises are shares of the best level.

    `best` is the lowest eval as logged (the highest for accuracy), `onset` the lowest of the smoothed evals, where the
    rise begins, and `worse` the first from which eval stays clearly worse (both None unless `overfits`). `rise` is how
    much worse the end is, `bar` what noise alone can reach, `train_change` the change of train meanwhile (negative:
    better). `slope` is the robust slope of eval after the best, in the units of `find_turn`'s x and the relative units
    of `rise`. `why_not` says which condition failed.
    """

    best: int
    onset: int | None
    worse: int | None
    rise: float
    bar: float
    train_change: float
    slope: Slope
    why_not: str

    @property
    def overfits(self) -> bool:
        """Whether eval rose beyond noise while train went on."""
        return self.onset is not None


def find_turn(
    x: Floats,
    evaluated: Floats,
    train: Floats,
    *,
    lower: bool = True,
    changes: Floats | None = None,
    floor: float = 0.02,
) -> Turn:
    """The turn of an eval series against the (smoothed) train series at the same places.

    `x` rises; all three have one length of at least `MIN_EVALS` (else `ValueError`) and are finite. `lower` says that
    smaller is better. `changes` are places where the training changed by plan (phases of a curriculum): jumps there
    are taken out before judging. `floor` is the least rise that counts, whatever the noise (2 %).

    Positive losses are judged in logs, since their noise is multiplicative. Both series are averaged in at most 24
    blocks; the noise of a block mean comes from its neighbours. Overfitting needs all of: the last blocks above the
    turn by more than noise at that many blocks allows (Student's t), a robust slope after the turn whose interval lies
    above zero, a rise that was kept, and train that went on falling or stands at a floor below half of eval.

    >>> x = np.arange(40.0)
    >>> turn = find_turn(x, 1 + (x - 20) ** 2 / 400, np.exp(-x / 10))
    >>> turn.best, turn.overfits, round(turn.rise, 1)
    (20, True, 0.7)
    """
    if len(x) < MIN_EVALS:
        raise ValueError(f"{len(x)} eval points; a turn needs {MIN_EVALS}")
    logs = lower and bool((evaluated >= 0).all() and (train >= 0).all() and evaluated.max() > 0)
    height, trained = (_level(v, lower, logs, evaluated) for v in (evaluated, train))
    for place in () if changes is None else changes:
        height, trained = _without_jump(x, height, place), _without_jump(x, trained, place)
    edges = block_edges(len(x), _BLOCKS)
    means, train_means, places = (block_means(v, edges) for v in (height, trained, x))
    low = int(np.argmin(means))
    best = int(np.argmin(evaluated if lower else -evaluated))
    return _judge(_Blocks(places, means, train_means, low, logs, edges), height, best, evaluated, train, lower, floor)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Block means of place, eval and train; `low` is the block where eval is lowest."""

    x: Floats
    eval: Floats
    train: Floats
    low: int
    logs: bool
    edges: NDArray[np.int64]

    def relative(self, difference: float) -> float:
        return float(np.expm1(min(difference, 700.0))) if self.logs else difference

    def levels(self, values: Floats) -> tuple[float, float]:
        """Level around the turn (median of three blocks, since the lowest is low by selection) and at the end."""
        around = values[max(self.low - 1, 0) : self.low + 2]
        return float(np.median(around)), float(values[-self.tail :].mean())

    @property
    def tail(self) -> int:
        return min(3, max(len(self.eval) - 1 - self.low, 1))


def _judge(
    blocks: _Blocks, height: Floats, best: int, evaluated: Floats, train: Floats, lower: bool, floor: float
) -> Turn:
    turn, end = blocks.levels(blocks.eval)
    after = slice(blocks.low, None)
    slope = theil_sen(blocks.x[after], blocks.eval[after])
    bar = _bar(_noise(blocks.eval, blocks.low), len(blocks.eval), blocks.tail)
    sure = theil_sen(blocks.x[after][1:], blocks.eval[after][1:], confidence=1 - 2 * _CHANCE).low > 0
    least = bar / 2 if sure else bar
    train_turn, train_end = blocks.levels(blocks.train)
    why_not = ""
    if len(blocks.eval) - 1 - blocks.low < 2:
        why_not = "the best eval is at the end"
    elif end - turn <= max(least, np.log1p(floor) if blocks.logs else floor):
        why_not = "eval did not rise beyond its noise"
    elif not (slope.low > 0 or (len(blocks.eval) - blocks.low < 5 and slope.value > 0)):
        why_not = "eval has no steady rise after its best point"
    elif end - turn < _KEPT * (blocks.eval[after].max() - turn):
        why_not = "eval came down again after a bump"
    elif not _goes_on(blocks, train_end - train_turn, evaluated, train, lower):
        why_not = "train did not go on improving"
    worse = None if why_not else _worse(height, int(blocks.edges[blocks.low]), turn + least / 2)
    return Turn(
        best=best,
        onset=None if worse is None else min(_lowest(height), worse),
        worse=worse,
        rise=blocks.relative(end - turn),
        bar=blocks.relative(least),
        train_change=blocks.relative(train_end - train_turn),
        slope=slope,
        why_not=why_not,
    )


def _level(values: Floats, lower: bool, logs: bool, evaluated: Floats) -> Floats:
    """Values on a scale where up is worse and a difference is a share: logs, else shares of the best level."""
    if logs:
        tiny = max(float(evaluated.max()) * 1e-9, 1e-100)
        return np.log(np.maximum(values, tiny))
    size = float(np.abs(evaluated).max())
    if not lower:
        size = max(size, 1e-100)
    else:  # a loss below zero has no natural zero: its own way down is the measure
        size = max(float(np.ptp(evaluated)), size * 1e-6, 1e-100)
    scaled: Floats = (values if lower else -values) / size
    return scaled


def _without_jump(x: Floats, values: Floats, place: float) -> Floats:
    """Values with the jump at `place` taken out of all later ones; ordinary differences between neighbours stay."""
    cut = int(np.searchsorted(x, place))
    if cut < 2 or len(x) - cut < 2:
        return values
    jump = float(np.median(values[cut : cut + 3]) - np.median(values[max(cut - 3, 0) : cut]))
    if abs(jump) <= 4 * neighbour_noise(values):
        return values
    levelled = values.copy()
    levelled[cut:] -= jump
    return levelled


def _noise(values: Floats, low: int) -> float:
    """Noise of the blocks, also where neighbours go together: the greatest over distances of up to three blocks.

    Far neighbours see the bend of the fall before the turn as noise, so they are asked after the turn where it is long.
    """
    late = values[low:] if len(values) - low >= 10 else values
    far = (neighbour_noise(late, apart=distance) for distance in range(2, max(len(values) // 8, 1) + 1))
    return max(neighbour_noise(values), *far, 0.0)


def _bar(noise: float, blocks: int, tail: int) -> float:
    """Rise between turn and end that noise alone stays below.

    Student's t with half as many degrees of freedom as the noise estimate has blocks (a median of overlapping
    differences is that much less sure than a variance); the level at the turn counts like one and a half blocks.
    """
    return float(STUDENT[max(blocks, MIN_EVALS) - MIN_EVALS] * noise * np.sqrt(1 / tail + 1 / 1.5))


def _goes_on(blocks: _Blocks, change: float, evaluated: Floats, train: Floats, lower: bool) -> bool:
    noise = neighbour_noise(blocks.train) * np.sqrt(1 / blocks.tail + 1 / 1.5)
    if change < -max(_FALL, 2 * noise):
        return True
    ends = float(np.median(evaluated[-3:])), float(np.median(train[-3:]))
    below = ends[1] < _FLOOR * ends[0] if lower else 1 - ends[1] < _FLOOR * (1 - ends[0]) and ends[1] <= 1
    return below and change < max(_FALL, 3 * noise)


def _lowest(height: Floats) -> int:
    """The eval around which the level is lowest: medians of five, of a twentieth of the evals where these are many."""
    reach = max(2, len(height) // 40)
    padded = np.pad(height, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return int(np.argmin(np.median(windows, axis=1)))


def _worse(height: Floats, first: int, line: float) -> int:
    """First eval from `first` on after which the running mean of three stays above `line`."""
    padded = np.pad(height, 1, mode="edge")
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    below = np.flatnonzero(smooth[first:] <= line)
    return min(first + (int(below[-1]) + 1 if len(below) else 0), len(height) - 1)
