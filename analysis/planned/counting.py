"""Whether a log that counts one by one counts the steps of its plan, or epochs or calls of a logger instead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.schedule.compared import compare
from analysis.schedule.rates import Rate, rates_of
from parsers.lr_schedule import Schedule, schedule_of
from parsers.run import Run

__all__ = ["counts_planned_steps", "other_unit"]

#: How near the end of a plan a counter of something longer must end: one count, or this share of them.
_NEAR = 0.02
#: A rate within a hundredth of its planned peak is as planned (as in `lr-schedule`), and one that moves by more tells
#: how far it came.
_SAME, _MOVES = 0.01, 0.05
#: Fewer records than this do not show a schedule.
_FEWEST = 5


def counts_planned_steps(run: Run, planned: float, reached: float) -> bool:
    """Whether a counter that ended at `reached`, one by one, can be none but that of the `planned` steps.

    Nothing longer than a step fits so often into the plan that the run would be at its end (see `other_unit`), or the
    learning rate follows its plan step by step.
    """
    unit = other_unit(planned, reached)
    return unit is None or _rate_keeps_time(run, unit)


def other_unit(planned: float, reached: float) -> int | None:
    """How many steps each count must stand for so that the plan is done at `reached`; None where no whole number fits.

    Epochs, and records of every n-th step, are of whole steps: if there are n in each, a finished run ends at one n-th
    of its plan. A counter that ends elsewhere counts steps, or its run is not finished either way.

    >>> other_unit(800, 480), other_unit(800, 320), other_unit(800, 160), other_unit(800, 40)
    (None, None, 5, 20)
    """
    if reached < 1:
        return None
    nearest = [n for n in {int(planned // reached), int(np.ceil(planned / reached))} if n >= 2]
    fits = [n for n in nearest if abs(planned / n - reached) <= max(1.0, _NEAR * reached)]
    return min(fits, key=lambda n: abs(planned / n - reached), default=None)


def _rate_keeps_time(run: Run, unit: int) -> bool:
    """Whether a learning rate is as planned at the counts taken for steps, and not at `unit` steps each."""
    given = dict(run.planned.lr or {})
    schedule = schedule_of(given, run.planned.max_steps)[0] if given else None
    if schedule is None or schedule.peak <= 0:
        return False
    return any(_keeps_time(rate, schedule, unit) for rate in rates_of(run))


def _keeps_time(rate: Rate, schedule: Schedule, unit: int) -> bool:
    if rate.axis != "step" or len(rate.values) < _FEWEST or np.ptp(rate.values) < _MOVES * schedule.peak:
        return False
    as_steps = compare(rate, schedule)
    as_units = compare(rate, replace(schedule, tick=schedule.tick / unit))
    return as_steps.worst < _SAME <= as_units.worst
