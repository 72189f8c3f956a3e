"""Which schedule a learning rate followed, from its numbers alone: kind, peak, warm-up, end, milestones, restarts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from analysis.schedule.candidates import stairs_of
from analysis.schedule.rates import Floats, Rate

__all__ = ["Observed", "recognise"]

#: Rates within this share of the peak of a form are given by it.
_FITS = 0.012
#: A rise by more of the peak between two records is a restart and no warm-up.
_RESTART = 0.15
#: Fewest rows that show a form of decay; and at most this many levels are drops and no form.
_ROWS, _LEVELS = 5, 20
_POWERS = (0.5, 0.9, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What was seen. `kind` is one of the schedules that a plan may name, or `zero`, `irregular`, `unknown` (too few).

    `peak` and `minimum` are rates, `warmup` the steps until the peak (0 without a warm-up), `total` the step at which
    the decay reaches its end where it can be told, `milestones` the steps of drops, `gamma` their common factor,
    `restarts` how often the rate leaps up again, `stairs` the steps for which it is held, where it changes in stairs.
    """

    kind: str
    peak: float | None = None
    minimum: float | None = None
    warmup: float | None = None
    total: float | None = None
    milestones: tuple[float, ...] = ()
    gamma: float | None = None
    restarts: int = 0
    stairs: float | None = None


def recognise(rate: Rate) -> Observed:
    """The simplest schedule that gives the rates within 1.2 % of their peak and what was printed of them.

    Rising rows at the beginning are a warm-up; upward leaps part the rest into cycles; rows at few levels are drops;
    what falls smoothly is drawn straight by the inverse of each form in turn (a cosine by its arc cosine, a
    polynomial by its root, an exponential by its logarithm, an inverse square root by its square), and the line is
    judged back in rates. `irregular` fits none.
    """
    rate = _without_leaps(rate)
    values, steps = rate.values, rate.steps
    if not len(values):
        return Observed("unknown")
    peak, least = float(values.max()), float(values.min())
    if peak <= 0 and least >= 0:
        return Observed("zero", 0.0, 0.0)
    slack = _FITS * max(abs(peak), abs(least)) + float(rate.half_digit.max(initial=0.0))
    if peak - least <= slack * 0.1 + 2 * float(rate.half_digit.max(initial=0.0)):
        return Observed("constant", peak, least, 0.0)
    if len(values) < _ROWS:
        return Observed("unknown", peak, least)
    top = np.flatnonzero(values >= peak - 1e-6 * abs(peak) - rate.half_digit)
    leaps = np.flatnonzero(np.diff(values) > _RESTART * peak)
    leaps = leaps[leaps >= top[0]] if len(top) else leaps
    if (len(leaps) and values[0] > 0.5 * peak) or len(leaps) >= 2:
        return _cyclic(rate, leaps, peak, least)
    warm = _warm_up(steps[: top[0] + 1], values[: top[0] + 1], peak, slack)
    if warm is None:
        return Observed("irregular", peak, least)
    rising, warmup = warm
    begin = int(top[0]) if warmup else 0
    return _decay(rate, begin, warmup, rising, slack)


def _without_leaps(rate: Rate) -> Rate:
    """The series without lone records at three times both of their neighbours or more: no schedule does that."""
    values = rate.values
    if len(values) < _ROWS:
        return rate
    beside = np.maximum(values[:-2], values[2:])
    kept = np.ones(len(values), dtype=bool)
    kept[1:-1] = ~((values[1:-1] > 3 * beside) & (np.minimum(values[:-2], values[2:]) > 0.5 * beside))
    if kept.all():
        return rate
    told = {name: getattr(rate, name)[kept] for name in ("steps", "values", "attempts", "half_digit")}
    return replace(rate, **told)


def _warm_up(steps: Floats, values: Floats, peak: float, slack: float) -> tuple[str, float] | None:
    """How the rate rises to its peak (`linear`, `cosine` or nothing) and in how many steps; None where it wavers."""
    if len(values) < 2 or values[0] >= peak - slack:
        return "", 0.0
    if (np.maximum.accumulate(values) - values).max() > slack:
        return None
    length = float(steps[-1])
    if len(values) == 2:
        return "linear", length
    line = _line(steps[:-1], values[:-1])
    if line is not None and line[0] > 0 and np.abs(line[0] * steps[:-1] + line[1] - values[:-1]).max() <= 2 * slack:
        return "linear", min(max((peak - line[1]) / line[0], float(steps[-2])), length)
    return "cosine", length


def _cyclic(rate: Rate, leaps: np.ndarray, peak: float, least: float) -> Observed:
    """The rate leaps up again and again: the first cycle says how it falls."""
    borders = [int(row) + 1 for row in leaps]
    marks = tuple(float(rate.steps[row]) for row in borders)
    return Observed("cosine_with_restarts", peak, least, 0.0, milestones=marks, restarts=len(marks))


def _decay(rate: Rate, begin: int, warmup: float, rising: str, slack: float) -> Observed:
    steps, values = rate.steps[begin:], rate.values[begin:]
    peak, least = float(values.max()), float(values.min())
    if peak - least <= slack:
        return Observed("constant_with_warmup" if warmup else "constant", peak, least, warmup)
    if (values - np.minimum.accumulate(values)).max() > slack:
        return Observed("irregular", peak, least, warmup)
    drops = _drops(rate, begin)
    if drops is not None:
        return _at_levels(steps, values, drops, warmup)
    stairs = stairs_of(rate)
    if stairs is not None:  # the first row of each stair is where the form was asked
        first = np.concatenate([[0], np.flatnonzero(np.diff(values) != 0) + 1])
        steps, values = steps[first], values[first]
    form = _form(steps, values, slack)
    if form is None:
        return Observed("irregular", peak, least, warmup, stairs=stairs)
    kind, start, end, minimum = form
    if rising == "cosine" and kind == "cosine":
        kind = "onecycle"
    elif start - max(warmup, float(steps[0])) > 0.05 * max(end - warmup, 1.0) and kind in ("linear", "cosine"):
        kind = "wsd"
    return Observed(kind, peak, minimum, warmup, end if math.isfinite(end) else None, stairs=stairs)


def _drops(rate: Rate, begin: int) -> list[int] | None:
    """Rows after which the rate stands at another level; None where it has more levels than drops make."""
    values = rate.values[begin:]
    changes = np.flatnonzero(np.abs(np.diff(values)) > 1e-6 * values.max() + 4 * rate.half_digit[begin:][1:])
    if not 0 < len(changes) <= min(_LEVELS, len(values) // 3):
        return None
    if len(changes) > 1 and float(np.median(np.diff(changes))) < 2:  # it changes at each row: a short smooth fall
        return None
    moved = np.abs(values[changes + 1] - values[changes])
    return (changes + 1).tolist() if moved.min() >= 0.004 * values.max() or len(changes) <= 3 else None


def _at_levels(steps: Floats, values: Floats, drops: list[int], warmup: float) -> Observed:
    levels = values[[0, *drops]]
    marks = tuple(float(steps[row]) for row in drops)
    factors = levels[1:] / levels[:-1]
    gamma = float(np.median(factors)) if np.ptp(factors) <= 0.02 * float(np.median(factors)) else None
    apart = np.diff(marks)
    even = len(marks) >= 3 and float(np.ptp(apart)) <= 2.0 * float(np.median(np.diff(steps)))
    if gamma is None:
        falls = "multistep"
    else:
        falls = "step" if even else "multistep"
    return Observed(falls, float(levels[0]), float(levels.min()), warmup, milestones=marks, gamma=gamma)


_Form = tuple[str, float, float, float]


def _form(steps: Floats, values: Floats, slack: float) -> _Form | None:
    """The form of a smooth fall: its name, where it starts and ends (infinite where it has no end), and its minimum."""
    if len(values) < _ROWS:
        return None
    peak, last = float(values.max()), float(values[-1])
    floors = sorted({0.0, last, 0.1 * peak} if last <= 0.5 * peak else {0.0, 0.1 * peak})
    found: list[tuple[float, _Form]] = []
    for name, straight, bent, free in _FORMS:
        for floor in floors[:1] if free else floors:
            tried = _straightened(steps, values, floor, straight, bent)
            if tried is not None:
                error, start, end = tried
                if error <= slack:
                    return name, start, math.inf if free else end, 0.0 if free else floor
                found.append((error, (name, start, end, floor)))
    return None


def _straightened(
    steps: Floats, values: Floats, floor: float, straight: Callable[[Floats], Floats], bent: Callable[[Floats], Floats]
) -> tuple[float, float, float] | None:
    """Largest distance of a form from the rates, and where it starts and ends; None where too few rows show it."""
    peak = float(values.max())
    share = (values - floor) / (peak - floor)
    told = (share > 0.02) & (share < 0.985)
    if told.sum() < 3:
        return None
    line = _line(steps[told], straight(share[told]))
    if line is None or line[0] == 0:
        return None
    given = floor + (peak - floor) * bent(line[0] * steps + line[1])
    at_peak, at_floor = float(straight(np.array([1.0]))[0]), float(straight(np.array([1e-300]))[0])
    end = (at_floor - line[1]) / line[0] if abs(at_floor) < 1e6 else math.inf
    return float(np.abs(given - values).max()), float((at_peak - line[1]) / line[0]), float(end)


def _line(x: Floats, y: Floats) -> tuple[float, float] | None:
    """Slope and height at 0 of the line of least squares; None where there is none."""
    middle, level = float(x.mean()), float(y.mean())
    spread = float(((x - middle) ** 2).sum())
    if not spread > 0 or not np.isfinite(y).all():
        return None
    slope = float(((x - middle) * (y - level)).sum()) / spread
    line = slope, level - slope * middle
    return line if np.isfinite(line).all() else None


def _power(p: float) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    return (
        lambda y: np.asarray(np.clip(y, 0, None) ** (1 / p), dtype=np.float64),
        lambda z: np.asarray(np.clip(z, 0, 1) ** p, dtype=np.float64),
    )


def _arc(y: Floats) -> Floats:
    return np.asarray(np.arccos(np.clip(2 * y - 1, -1, 1)), dtype=np.float64)


def _wave(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.cos(np.clip(z, 0, math.pi))), dtype=np.float64)


#: Name, what draws the form straight, its inverse, and whether it goes on without an end; simple ones first.
_FORMS: tuple[tuple[str, Callable[[Floats], Floats], Callable[[Floats], Floats], bool], ...] = (
    ("linear", *_power(1.0), False),
    ("cosine", _arc, _wave, False),
    ("exponential", lambda y: np.log(np.maximum(y, 1e-300)), lambda z: np.exp(np.minimum(z, 0)), True),
    ("inverse_sqrt", lambda y: np.maximum(y, 1e-150) ** -2.0, lambda z: np.maximum(z, 1.0) ** -0.5, True),
    *(("polynomial", *_power(p), False) for p in _POWERS),
)
