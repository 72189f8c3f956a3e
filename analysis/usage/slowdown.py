"""A speed that falls and stays low: stretches of one level, and the first from which all later ones are slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "SHARE", "Slowdown", "levels_of", "long_run_spread", "slowdown_and_share", "slowdown_of"]

Floats = NDArray[np.float64]
#: Fewest records of a stretch, of a level that is judged, and of a series in which one may follow another.
_STRETCH, _HELD, FEWEST = 5, 10, 30
#: What is left of the speed where it counts as fallen: three quarters.
SHARE = 0.75
#: Two levels differ by an eighth of either at least, and by so many standard errors. The best of n splits of noise
#: reaches about the root of 2 log log n, below 3 for any log; the rest pays for noise that wanders.
_APART, _ERRORS = 0.13, 6.0
#: Means (of values within a factor of four) differ by half as much as medians: among rows of two kinds the median
#: leaps from one kind to the other where a few more of it come together.
_REACH, _MEANS = 1.4, 0.5
#: A fast beginning shorter than this share of the log is a start (full queues, warm caches) and no level to fall from.
_LEAST_FAST = 0.05
#: Neighbours whose medians show how the noise wanders.
_BLOCKS = (10, 40, 160, 640)
_MAD = 1.482602218505602


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Speed fell at row `first`: medians `before` (rows from `since`) and `after`, and by how many errors they differ.

    `lowest` says that speed went on falling after that row: the median of the last stretch.
    """

    first: int
    since: int
    before: float
    after: float
    lowest: float
    errors: float

    @property
    def left(self) -> float:
        """What is left of the speed, as a share."""
        return self.after / self.before


def long_run_spread(values: Floats) -> float:
    """Standard deviation that the noise of `values` would have, were it independent from row to row.

    That of the rows, or of the medians of 10, 40, 160 and 640 neighbours times the root of their number, whichever is
    more: of differences between neighbours, so that a few changes of level do not count. Of rows the mean difference
    is taken, since rows of two kinds (long and short batches) mostly have a neighbour of their own. White noise of
    standard deviation 1 gives 1 to 2.

    >>> noise = np.random.default_rng(0).normal(size=4000)
    >>> bool(0.9 < long_run_spread(noise) < 2), bool(long_run_spread(np.cumsum(noise)) > 10)
    (True, True)
    """
    if len(values) < 3:
        return 0.0
    found = float(np.abs(np.diff(values)).mean()) * np.sqrt(np.pi) / 2.0
    for size in _BLOCKS:
        count = len(values) // size
        if count >= (4 if size == _BLOCKS[0] else 8):
            medians = np.median(values[: count * size].reshape(count, size), axis=1)
            found = max(found, _MAD * float(np.median(np.abs(np.diff(medians)))) * np.sqrt(size / 2.0))
    return float(found)


def levels_of(values: Floats) -> list[tuple[int, int]]:
    """Stretches (start, stop) of one level, at least 5 rows each, by binary segmentation of a running median of 5.

    Splits stand where the squares around two means are least, and hold where medians differ by 0.13 and by 6 errors,
    and means by half as much.

    >>> levels_of(np.repeat([0.0, 1.0, 0.5], 20))
    [(0, 20), (20, 40), (40, 60)]
    """
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="reflect"), 5), axis=1)
    spread = max(long_run_spread(values), 1e-9)
    return list(_stretches(smooth, values, spread, 0, len(values)))


def _stretches(smooth: Floats, values: Floats, spread: float, start: int, stop: int) -> Iterator[tuple[int, int]]:
    waiting = [(start, stop)]
    while waiting:
        begin, end = waiting.pop()
        split = _best_split(smooth[begin:end])
        if split is not None and _holds(values[begin : begin + split], values[begin + split : end], spread):
            waiting += [(begin + split, end), (begin, begin + split)]
        else:
            yield begin, end


def _best_split(part: Floats) -> int | None:
    if len(part) < 2 * _STRETCH:
        return None
    left = np.arange(_STRETCH, len(part) - _STRETCH + 1)
    total = np.cumsum(part - part.mean())
    gain = total[left - 1] ** 2 * len(part) / (left * (len(part) - left))
    return int(left[gain.argmax()])


def _holds(one: Floats, other: Floats, spread: float) -> bool:
    low, high = np.median(one), np.median(other)
    apart = abs(float(low - high))
    reach = np.array([min(low, high) - _REACH, max(low, high) + _REACH])
    means = abs(float(np.clip(one, *reach).mean() - np.clip(other, *reach).mean()))
    if means < _MEANS * apart:
        return False
    return apart >= _APART and apart >= _ERRORS * spread * np.sqrt(1 / len(one) + 1 / len(other))


def slowdown_of(speed: Floats, share: float = SHARE) -> Slowdown | None:
    """Where speed falls below a `share` (three quarters) and stays there to the end, or None.

    `speed` are positive numbers in order (others make a `ValueError`); fewer than 30 give None. The speed to fall from
    is the highest level that held for a twentieth of the rows. Slow first rows (compilation), single slow rows
    (evaluation, checkpoints, a partial batch), slow stretches that ended, and slowness that comes and goes are none.

    >>> fell = slowdown_of(np.repeat([100.0, 60.0], 50))
    >>> fell.first, round(fell.left, 3)
    (50, 0.6)
    >>> slowdown_of(np.repeat([60.0, 100.0], 50)) is None
    True
    """
    return slowdown_and_share(speed, share)[0]


def slowdown_and_share(speed: Floats, share: float = SHARE) -> tuple[Slowdown | None, float]:
    """The slowdown as `slowdown_of` finds it, and what is left of the speed at the end: 1 where no level differs."""
    if not (np.isfinite(speed) & (speed > 0)).all():
        raise ValueError("speed holds numbers that are not positive and finite; leave them out first")
    if len(speed) < FEWEST:
        return None, 1.0
    values = np.log(speed)
    parts = levels_of(values)
    found = _fallen(values, parts, share)
    # levels that differ at all differ by an eighth: a fall by any share is asked for
    any_fall = found if found is not None else _fallen(values, parts, float(np.exp(-_APART / 2)))
    return found, 1.0 if any_fall is None else any_fall.left


def _fallen(values: Floats, parts: list[tuple[int, int]], share: float) -> Slowdown | None:
    medians = np.array([np.median(values[start:stop]) for start, stop in parts])
    rows = np.array([stop - start for start, stop in parts])
    enough = (rows >= max(_HELD, _LEAST_FAST * len(values))) & (np.arange(len(parts)) < len(parts) - 1)
    if not enough.any():
        return None
    best = int(np.flatnonzero(enough)[medians[enough].argmax()])
    slow = medians <= medians[best] + np.log(share)
    first = _stays(slow)
    if first is None or first <= best or _is_habit(slow, rows, best, first):
        return None
    after = values[parts[first][0] :]
    if len(after) < _HELD or float(np.median(after[-_HELD:])) > medians[best] + np.log(share) / 2:
        return None
    errors = _errors(values, slice(*parts[best]), after)
    return Slowdown(
        first=parts[first][0],
        since=parts[best][0],
        before=float(np.exp(medians[best])),
        after=float(np.exp(np.median(after))),
        lowest=float(np.exp(medians[-1])),
        errors=errors,
    )


def _stays(slow: NDArray[np.bool_]) -> int | None:
    """The first of the slow stretches that last to the end."""
    quick = np.flatnonzero(~slow)
    first = int(quick[-1]) + 1 if len(quick) else 0
    return first if first < len(slow) else None


def _is_habit(slow: NDArray[np.bool_], rows: NDArray[np.int64], best: int, first: int) -> bool:
    """Whether it was as slow before, after a fast stretch, for half as long, and became fast again."""
    fast = np.flatnonzero(~slow)
    begin = min(int(fast[0]), best) if len(fast) else best
    past = rows[begin:first][slow[begin:first]]
    return len(past) > 0 and 2 * int(past.max()) >= int(rows[first:].sum())


def _errors(values: Floats, before: slice, after: Floats) -> float:
    count = before.stop - before.start
    spread = max(long_run_spread(values), 1e-9) * np.sqrt(1 / count + 1 / len(after))
    return float((np.median(values[before]) - np.median(after)) / spread)
