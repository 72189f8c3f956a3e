"""An observed learning rate held against a schedule: how far apart, and from where on, however it was logged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from analysis.schedule.rates import Floats, Rate
from parsers.lr_schedule import Beyond, Schedule

__all__ = ["Compared", "compare", "conventions", "envelope", "lasting", "rising_in_a_line", "shapes_of"]

#: An end that was not said may be up to this share of the peak: a tenth is usual (nanoGPT, Megatron, OLMo).
_FREE_END = 0.105
#: Below this share of the peak a rate does not tell the peak.
_LEAST_SHARE = 0.01
#: Rates that differ by less of the peak are the same. Where they do differ, the difference is followed back to half of
#: that: a cosine that never sets in leaves its plan slowly.
_SAME, _BACK = 0.01, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A series beside its plan. `apart` is how far each record lies outside what the plan allows, in planned peaks.

    `planned`, `low` and `high` are rates: what the schedule gives, and the least and greatest within one step of it.
    `worst` is the largest distance that two neighbouring records reach, `share` the share of records that lie at least
    a hundredth of the peak outside, `first` the row at which the lasting difference begins (None where there is none).
    """

    schedule: Schedule
    planned: Floats
    low: Floats
    high: Floats
    apart: Floats
    worst: float
    share: float
    first: int | None


def envelope(
    schedule: Schedule, steps: Floats, beyond: Beyond = "hold", *, stairs: bool | None = None
) -> tuple[Floats, Floats]:
    """Least and greatest rate of a schedule within one step of each step.

    A log counts steps from 0 or from 1, and writes the rate before or after the scheduler is stepped. A schedule whose
    ticks are longer than a step may change at each step or once a tick, and one tick sooner or later; `stairs` says
    which: True for once a tick, within one step, False for each step, None (what a plan leaves open) for all of these.

    >>> low, high = envelope(Schedule("linear", peak=1.0, total=10), np.array([5.0]))
    >>> low.round(9).item(), high.item()
    (0.4, 0.6)
    """
    ticks, step = steps / schedule.tick, 1.0 / schedule.tick
    near = [ticks - step, ticks, ticks + step]
    places = [] if stairs else near
    if stairs:
        places = [np.floor(place + 1e-9) for place in near]
    elif stairs is None and schedule.tick > 1:
        whole = np.floor(ticks + 1e-9)
        places = [*near, whole - 1.0, whole, whole + 1.0]
    rates = [schedule.at(place, beyond) for place in places]
    return np.minimum.reduce(rates), np.maximum.reduce(rates)


def lasting(apart: Floats) -> float:
    """The largest distance that two neighbouring records reach: a single odd record is no other schedule.

    >>> lasting(np.array([0.0, 9.0, 0.1, 0.2]))
    0.1
    """
    if len(apart) < 2:
        return 0.0
    return float(np.minimum(apart[1:], apart[:-1]).max())


def compare(rate: Rate, schedule: Schedule, beyond: Beyond = "hold") -> Compared:
    """The series against one schedule, under the convention of naming and logging that fits it best."""
    found = [_against(rate, one, beyond) for one in conventions(schedule, rate)]
    return min(found, key=lambda one: (round(one.worst, 4), float(one.apart.mean()) if len(one.apart) else 0.0))


def _against(rate: Rate, schedule: Schedule, beyond: Beyond) -> Compared:
    low, high = envelope(schedule, rate.steps, beyond)
    if schedule.name == "plateau":  # what the metric that it waits for did is not known: any fall is as planned
        low = np.where(rate.steps / schedule.tick >= schedule.warmup, min(schedule.minimum, schedule.peak), low)
    outside = np.maximum(np.maximum(rate.values - high, low - rate.values) - rate.half_digit, 0.0)
    apart = outside / schedule.peak if schedule.peak > 0 else np.where(outside > 0, np.inf, 0.0)
    beyond_doubt = apart >= _SAME
    pairs = np.flatnonzero(beyond_doubt[1:] & beyond_doubt[:-1])
    return Compared(
        schedule=schedule,
        planned=schedule.at_steps(rate.steps, beyond),
        low=low,
        high=high,
        apart=apart,
        worst=lasting(apart),
        share=float(beyond_doubt.mean()) if len(apart) else 0.0,
        first=_begins(apart, int(pairs[0])) if len(pairs) else None,
    )


def _begins(apart: Floats, first: int) -> int:
    """The row from which on rates differ without a break until they clearly do."""
    small = np.flatnonzero(apart[:first] < _BACK * _SAME)
    return int(small[-1]) + 1 if len(small) else 0


def conventions(schedule: Schedule, rate: Rate) -> Iterator[Schedule]:
    """The schedule in each reading that its words allow: what a plan leaves unsaid is taken from the log.

    Unsaid may be the peak, the end (0, or what is seen up to a tenth of the peak), where a warm-up starts, from where
    the milestones count after a warm-up, and the shape of one cycle and of the last phase of `wsd`.
    """
    if rate.multiplier or "peak" not in schedule.stated:
        schedule = replace(schedule, peak=float(rate.values.max(initial=0.0)) or 1.0)
        beyond = [replace(schedule, peak=peak) for peak in _peaks_beyond(schedule, rate)]
    else:
        beyond = []
    readings = [schedule, *beyond, *rising_in_a_line(schedule)]
    readings += [replace(one, anneal=shape) for one in readings[:1] for shape in shapes_of(schedule)]
    if schedule.warmup > 0 and schedule.name in ("step", "multistep", "exponential"):
        readings += [replace(one, after_warmup=True) for one in readings]
    least = float(rate.values.min(initial=np.inf))
    if "min" not in schedule.stated and 0 < least <= _FREE_END * schedule.peak:
        readings += [replace(one, minimum=least, stated=one.stated | {"min"}) for one in readings]
    if "start" not in schedule.stated and (start := _start(schedule, rate)) is not None:
        readings += [replace(one, start=start) for one in readings]
    return iter(readings)


def _peaks_beyond(schedule: Schedule, rate: Rate) -> Iterator[float]:
    """Peaks that nobody said and the log does not reach: it ends within the warm-up, or begins after it.

    The rate at its end, or at its beginning, is then the share of the peak that the plan has there.
    """
    if not len(rate.values):
        return
    ticks = rate.steps[[0, -1]] / schedule.tick
    shares = schedule.at(ticks) / schedule.peak
    if ticks[-1] < schedule.warmup and shares[-1] > _LEAST_SHARE:
        yield float(rate.values[-1] / shares[-1])
    elif ticks[0] > schedule.warmup and shares[0] > _LEAST_SHARE:
        yield float(rate.values[0] / shares[0])


def rising_in_a_line(schedule: Schedule) -> Iterator[Schedule]:
    """One cycle as others write it than torch: a warm-up in a line, then a cosine."""
    if schedule.name != "onecycle" or schedule.total is None:
        return
    rise = schedule.warmup or (0.3 if schedule.pct_start is None else schedule.pct_start) * schedule.total
    start = schedule.peak / 25 if schedule.start is None else schedule.start
    yield replace(schedule, name="cosine", warmup=rise, start=start, stated=schedule.stated | {"start"})


def shapes_of(schedule: Schedule) -> tuple[str, ...]:
    """Shapes that one cycle, or the last phase of `wsd`, has besides a cosine."""
    return {"onecycle": ("linear",), "wsd": ("linear", "1-sqrt")}.get(schedule.name, ())


def _start(schedule: Schedule, rate: Rate) -> float | None:
    """The rate at which a warm-up of the planned length starts, drawn back along its rows; None where it is at 0."""
    rising = rate.steps / schedule.tick < schedule.warmup
    ticks, values = rate.steps[rising] / schedule.tick, rate.values[rising]
    if schedule.name == "onecycle" or len(values) < 1 or values[0] <= 0:
        return None
    left = 1.0 - ticks / schedule.warmup
    starts = (values - schedule.peak * (1.0 - left)) / left
    start = float(starts[0])
    agree = np.abs(starts - start) * left <= _SAME * schedule.peak
    return start if 0 < start < 0.5 * schedule.peak and bool(agree.all()) else None
