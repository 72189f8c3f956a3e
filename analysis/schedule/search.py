"""Fitting one number of a schedule to what was observed, on few rows that show it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.schedule.compared import envelope
from analysis.schedule.rates import Floats, Rate
from parsers.lr_schedule import Beyond, Schedule

__all__ = ["Evidence", "Fit", "evidence_of", "fit", "search"]

#: Rows that a fit looks at: the first ones, where a warm-up is, those around the largest changes, and even ones.
_FIRST, _CHANGES, _EVEN = 40, 60, 200
#: Distances beyond this share of the peak are all the same: a candidate that is far off in few places may still win.
_FAR = 0.5
_REFINED = 24
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The rows that a fit looks at; `origin` is the step at which each row's attempt began."""

    steps: Floats
    values: Floats
    spare: Floats
    origin: Floats
    attempt: NDArray[np.int64]
    peak: float


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A schedule that was tried: `error` is the mean distance from it, `within` the share of rows that obey it.

    `closely` is the share of rows within 0.2 % of the peak, `within` that within 2 %, `width` how much room the
    schedule leaves on average, in peaks: one that swings from step to step would allow everything.
    """

    schedule: Schedule
    number: float
    error: float
    within: float
    closely: float
    width: float
    beyond: Beyond = "hold"


def evidence_of(rate: Rate, peak: float) -> Evidence:
    """Some 300 rows of a series: its first, its largest changes with their neighbours, and even ones between."""
    n = len(rate.values)
    chosen = {*range(min(n, _FIRST)), *np.linspace(0, n - 1, min(n, _EVEN)).astype(int).tolist()}
    change = np.abs(np.diff(rate.values))
    for row in np.argsort(change)[::-1][: _CHANGES // 2].tolist():
        chosen |= {row, row + 1}
    borders = np.flatnonzero(np.diff(rate.attempts)) + 1
    for row in borders.tolist():
        chosen |= set(range(row, min(row + _FIRST, n)))
    rows = np.array(sorted(chosen), dtype=np.int64)
    starts = np.concatenate([[0], borders])
    began = np.repeat(rate.steps[starts], np.diff(np.concatenate([starts, [n]])))
    began[: borders[0] if len(borders) else n] = 0.0  # the first attempt counts as the log does
    return Evidence(rate.steps[rows], rate.values[rows], rate.half_digit[rows], began[rows], rate.attempts[rows], peak)


def fit(
    found: Evidence,
    schedule: Schedule,
    number: float,
    beyond: Beyond = "hold",
    *,
    shift: Floats | float = 0.0,
    stairs: bool | None = None,
) -> Fit:
    """How well one schedule gives the rows; `shift` is taken from their steps, `stairs` is that of `envelope`."""
    low, high = envelope(schedule, found.steps - shift, beyond, stairs=stairs)
    apart = np.maximum(np.maximum(found.values - high, low - found.values) - found.spare, 0.0) / found.peak
    error = float(np.minimum(apart, _FAR).mean())
    width = float(np.minimum((high - low) / found.peak, 1.0).mean())
    return Fit(schedule, number, error, float((apart <= 0.02).mean()), float((apart <= 0.002).mean()), width, beyond)


def search(
    found: Evidence,
    make: Callable[[float], Schedule],
    numbers: Iterable[float],
    beyond: Beyond = "hold",
    *,
    shifting: bool = False,
    stairs: bool | None = None,
) -> Fit | None:
    """The best of a family of schedules with one number: tried at `numbers`, then refined around the best two.

    With `shifting` the number is taken from the steps instead, and `make` gives the schedule as it is. None for no
    numbers.
    """

    def tried(number: float) -> Fit:
        return fit(found, make(number), number, beyond, shift=number if shifting else 0.0, stairs=stairs)

    grid = sorted(set(numbers))
    fits = [tried(number) for number in grid]
    order = sorted(range(len(fits)), key=lambda i: fits[i].error)
    best = [fits[i] for i in order[:1]]
    for i in order[:2]:
        if fits[i].error == 0 or len(grid) < 3:
            break
        best.append(_refined(tried, grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]))
    return min(best, key=lambda one: one.error, default=None)


def _refined(tried: Callable[[float], Fit], low: float, high: float) -> Fit:
    """Golden section between two numbers."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = tried(left), tried(right)
    for _ in range(_REFINED):
        if at_left.error <= at_right.error:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = tried(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = tried(right)
    return min(at_left, at_right, key=lambda one: one.error)
