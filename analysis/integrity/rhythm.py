"""The rhythm of a log: steps and seconds from record to record, where steps are missing, where it stood still."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ABSURD_S",
    "holes_of",
    "pauses_of",
    "pauses_without_reason",
    "times_usual",
    "usual_interval",
    "usual_step",
]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

#: Fewest records that make a rhythm, and the share of intervals that must keep it.
_RECORDS, _SHARE = 10, 0.8
#: A pause is so many usual intervals long, of which each counts as two seconds at least (a pause is over a minute),
#: and as a fifteenth of the slowest ordinary interval (a pause is over twice that).
TIMES = 30.0
_LEAST_S, _OF_SLOWEST = 60.0 / TIMES, 2.0 / TIMES
#: Chance per log that its slowest ordinary interval, doubled, passes for a pause: the bar rises with the number of
#: records as the maximum does, so that a long log with a heavy tail of slow steps is no more suspect than a short one.
_CHANCE = 0.01
#: A jump of the clock beyond this (30 days) is a wrong clock and no pause.
ABSURD_S = 30 * 86400.0
#: Pauses with a reason (an evaluation, a checkpoint) are told all the same when longer than an hour and than ten of
#: their like.
_LONG_S, _OF_THEIR_LIKE = 3600.0, 10.0
#: Fewest others with the same marks that show how long these take, and sorts of marks that are told apart.
_OTHERS, _MARKS = 5, 62


def usual_step(steps: Whole) -> int | None:
    """Steps from one record to the next, where four of five forward intervals agree; None for irregular or short logs.

    >>> usual_step(np.array([1, *range(10, 200, 10)])), usual_step(np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]))
    (10, None)
    """
    ahead = np.diff(steps)
    ahead = ahead[ahead > 0]
    if len(ahead) < _RECORDS - 1:
        return None
    usual = int(np.median(ahead))
    return usual if usual > 0 and float((ahead == usual).mean()) >= _SHARE else None


def holes_of(steps: Whole, every: int) -> tuple[Whole, Whole]:
    """Last step before and first step after each hole: an interval of one and a half rhythms or more.

    Not holes: a new rhythm (five equal long intervals in a row), and steps left out regularly (four or more holes at
    equal distances, as when evaluation takes the place of every tenth record).

    >>> before, after = holes_of(np.array([0, 10, 20, 50, 60]), 10)
    >>> before.tolist(), after.tolist()
    ([20], [50])
    """
    ahead = np.diff(steps)
    wide = np.flatnonzero(ahead > 1.5 * every)
    wide = wide[~_in_a_row(wide, ahead)]
    if len(wide) >= 4 and np.ptp(np.diff(steps[wide])) <= every:
        wide = wide[:0]
    return steps[wide], steps[wide + 1]


def _in_a_row(wide: Whole, ahead: Whole) -> NDArray[np.bool_]:
    """Which of the wide intervals belong to five or more equal ones, one after the other."""
    if len(wide) == 0:
        return np.zeros(0, bool)
    breaks = (np.diff(wide) != 1) | (np.diff(ahead[wide]) != 0)
    group = np.concatenate([[0], np.cumsum(breaks)])
    sizes: NDArray[np.bool_] = np.bincount(group)[group] >= 5
    return sizes


def usual_interval(seconds: Floats) -> float | None:
    """Usual seconds between records: the median, or the mean where a coarse clock makes most intervals 0."""
    forward = seconds[(seconds >= 0) & (seconds < ABSURD_S)]
    if len(forward) < _RECORDS - 1:
        return None
    middle = float(np.median(forward))
    return middle if middle > 0 else float(forward.mean())


def times_usual(seconds: Floats, ahead: Floats) -> Floats:
    """How many times the usual interval each is long; 0 for the first (compilation and caches fill it), for leaps of
    the clock, and where there is no usual one.

    `seconds` are the intervals, `ahead` how many rhythms of steps each spans (1 where unknown): an interval in which
    records are missing is as long as its steps take. The usual interval counts as 2 s at least, and as a fifteenth of
    what the slowest ordinary one of so many can be.

    >>> times_usual(np.array([300.0, *[4.0] * 50, 900.0, *[4.0] * 50]), np.ones(102))[50:53].tolist()
    [1.0, 225.0, 1.0]
    """
    usual = usual_interval(seconds)
    if not usual:  # unknown, or a clock that never moves
        return np.zeros(len(seconds))
    each = seconds / np.maximum(ahead, 1.0)
    counted = max(_LEAST_S, usual, _OF_SLOWEST * _slowest(each[(each > 0) & (each < ABSURD_S)]))
    times = np.where(seconds < ABSURD_S, each / counted, 0.0)
    times[:1] = 0.0
    return np.asarray(times)


def pauses_of(seconds: Floats, ahead: Floats, limit: float = TIMES) -> Whole:
    """Indices of intervals that are pauses: longer than `limit` usual ones, as `times_usual` counts them.

    >>> pauses_of(np.array([300.0, *[2.0] * 50, 900.0, *[2.0] * 50]), np.ones(102)).tolist()
    [51]
    """
    return np.flatnonzero(times_usual(seconds, ahead) > limit)


def _slowest(seconds: Floats) -> float:
    """The interval that the slowest of as many lognormal ones stays below; their spread is that of the slower half."""
    middle, high = np.log(np.quantile(seconds, [0.5, 0.95]))
    reach = NormalDist().inv_cdf(1 - _CHANCE / len(seconds))
    return float(np.exp(middle + reach * (high - middle) / NormalDist().inv_cdf(0.95)))


def pauses_without_reason(
    pauses: Whole, seconds: Floats, starts: Floats, stops: Floats, marks: Sequence[Floats], limit: float = TIMES
) -> Whole:
    """The pauses that nothing explains.

    `starts` and `stops` are the steps at both ends of each interval, `marks` the sorted steps of what takes time of its
    own: of each split's evaluations, of checkpoints, of samples. A pause with a mark between its ends has its reason,
    unless it is longer than an hour and than ten of its like; or unless five others with the same marks show how long
    these take, and it alone is `limit` times that (the first may take longer: it compiles). Three or more pauses at
    equal distances and of like length are a habit of the run.

    >>> seconds = np.array([1.0, 90, 1, 90, 1, 700])
    >>> steps = np.arange(7.0)
    >>> evals = [np.array([2.0, 4.0])]
    >>> pauses_without_reason(np.array([1, 3, 5]), seconds, steps[:-1], steps[1:], evals).tolist()
    [5]
    """
    if len(pauses) == 0:
        return pauses
    kinds = _marks_within(starts, stops, marks)
    marked = kinds[pauses] > 0
    like = float(np.median(seconds[pauses[marked]])) if marked.sum() >= 3 else 0.0
    excused = marked & (seconds[pauses] <= max(_LONG_S, _OF_THEIR_LIKE * like))
    for place in np.flatnonzero(excused):
        alike = np.flatnonzero(kinds == kinds[pauses[place]])
        excused[place] = not _alone(int(pauses[place]), alike, pauses, seconds, limit)
    left = pauses[~excused]
    return left[:0] if _habit(left, seconds, starts) else left


def _marks_within(starts: Floats, stops: Floats, marks: Sequence[Floats]) -> Whole:
    """Which marks lie in each interval, as the bits of a number; 0 where none does."""
    found = np.zeros(len(starts), np.int64)
    for bit, steps in enumerate(marks[:_MARKS]):
        inside = np.searchsorted(steps, stops, "right") > np.searchsorted(steps, starts, "left")
        found |= inside.astype(np.int64) << bit
    return found


def _alone(pause: int, alike: Whole, pauses: Whole, seconds: Floats, limit: float) -> bool:
    """Whether one interval is a pause among those with the same marks, which show how long these take.

    A mark belongs to the interval that ends at it and to the one that begins there.
    """
    others = alike[alike != pause]
    if len(others) < _OTHERS or pause <= alike[1] or np.isin(others, pauses).any():
        return False
    usual = seconds[others]
    usual = usual[(usual > 0) & (usual < ABSURD_S)]
    if len(usual) < _OTHERS:
        return False
    counted = max(_LEAST_S, float(np.median(usual)), _OF_SLOWEST * _slowest(usual))
    return bool(seconds[pause] > limit * counted)


def _habit(pauses: Whole, seconds: Floats, starts: Floats) -> bool:
    if len(pauses) < 3:
        return False
    apart, long = np.diff(starts[pauses]), seconds[pauses]
    return bool(np.ptp(apart) <= 0.25 * np.median(apart) and long.max() < 3 * np.median(long))
