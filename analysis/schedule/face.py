"""What is wrong with a learning rate on its face, whatever was planned: nothing, negative, back at a resume, rising."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.findings import Severity
from analysis.schedule.rates import Floats, Rate

__all__ = ["Fault", "Loss", "faults_of", "moved"]

#: A rate this small moves no weight: that of a float32 changes from about 6e-8 of it on.
NOTHING = 1e-20
#: Nearly all records; the fewest of them; and the part of the run that a tail of zeros must take.
_NEARLY_ALL, _FEWEST, _TAIL, _TAIL_ROWS = 0.9, 3, 0.1, 10
#: A rate that rises again comes from a tenth of the peak or less, and gets to a fifth of it or more.
_LOW, _HIGH = 0.1, 0.2
#: A resumed rate repeats the beginning within this share of the peak.
_REPEATS = 0.02
#: Printed to fewer digits than this share of the peak, a 0 may be a small rate.
_PRINTED = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """The training loss beside the rates."""

    steps: Floats
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """Something that no plan is needed for. `size` is the share of the peak, or of the run, that it is about."""

    name: str
    severity: Severity
    first: int
    last: int
    size: float
    sentence: str
    causes: tuple[str, ...]
    suggestions: tuple[str, ...]


def faults_of(rate: Rate, loss: Loss | None, others: Sequence[Rate], *, planned: bool) -> Iterator[Fault]:
    """What is wrong with one series on its face; `others` are the other groups of parameters.

    With `planned` a plan has judged the shape, and only rates that are nothing, negative or no numbers are told.
    """
    values = rate.values
    count = len(values) + rate.non_finite
    if rate.non_finite >= _FEWEST and rate.non_finite >= 0.5 * count:
        yield _no_numbers(rate, count)
    if len(values) < _FEWEST:
        return
    nothing = np.abs(values) <= NOTHING
    if nothing.mean() >= _NEARLY_ALL:
        yield _zero(rate, loss, nothing, _others_train(others))
        return
    yield from _negative(rate)
    yield from _tail_of_zeros(rate, nothing, _others_train(others))
    if not planned:
        yield from _back_at_resume(rate)
        yield from _rises_again(rate, loss)


def moved(loss: Loss | None, begin: float, end: float) -> float | None:
    """By how much the loss changes from one step to another, in its own scatter; None where too few records tell.

    The medians of the first and the last fifth between the steps, over the standard error that the differences of
    neighbours give; negative is a fall.
    """
    if loss is None:
        return None
    values = loss.values[(loss.steps >= begin) & (loss.steps <= end) & np.isfinite(loss.values)]
    part = len(values) // 5
    if part < 3:
        return None
    scatter = 1.4826 * float(np.median(np.abs(np.diff(values)))) / 2**0.5
    change = float(np.median(values[-part:]) - np.median(values[:part]))
    error = 1.2533 * scatter * (2.0 / part) ** 0.5
    if error == 0:
        return 0.0 if change == 0 else math.copysign(math.inf, change)
    return float(change / error)


def _others_train(others: Sequence[Rate]) -> bool:
    return any(len(one.values) and float((np.abs(one.values) > NOTHING).mean()) > 0.5 for one in others)


def _no_numbers(rate: Rate, count: int) -> Fault:
    return Fault(
        "no-number",
        "warning",
        0,
        max(len(rate.values) - 1, 0),
        rate.non_finite / count,
        f"{rate.non_finite:,} of {count:,} rates are no numbers (NaN or infinite)",
        ("the schedule divides by a length of 0, or was given a NaN",),
        ("print the scheduler's lengths and its first rates",),
    )


def _zero(rate: Rate, loss: Loss | None, nothing: np.ndarray, others_train: bool) -> Fault:
    share = float(nothing.mean())
    fall = moved(loss, float(rate.steps[0]), float(rate.steps[-1])) if rate.axis != "record" else None
    severity: Severity = "critical"
    because = "no weight can change"
    if others_train:
        severity, because = "info", "other groups of parameters have a rate: this one is frozen"
    elif fall is not None and fall < -8:
        severity, because = "info", "but the loss falls, so that the log prints fewer digits than the rate has"
    elif fall is not None:
        because = "the loss does not fall, and no weight can change"
    least = float(np.abs(rate.values).max())
    size = "0" if least == 0 else f"at most {least:.3g}"
    return Fault(
        "zero",
        severity,
        int(np.flatnonzero(nothing)[0]),
        int(np.flatnonzero(nothing)[-1]),
        share,
        f"the rate is {size} in {share:.0%} of {len(rate.values):,} records: {because}",
        (
            "the base rate was set to 0, or lost on the way to the optimizer: the log shows no other rate",
            "the scheduler multiplies the rate by 0 or by a factor that underflows (warm-up over 0 steps, gamma^step)",
        ),
        (
            "print optimizer.param_groups[i]['lr'] before the first step",
            "check that weights change: compare two checkpoints",
            "check warm-up and total steps of the scheduler",
        ),
    )


def _negative(rate: Rate) -> Iterator[Fault]:
    below = np.flatnonzero(rate.values < -NOTHING)
    if not len(below) or float(rate.values.max()) <= 0:  # all below 0: a logarithm that does not call itself one
        return
    worst = float(rate.values.min())
    yield Fault(
        "negative",
        "critical",
        int(below[0]),
        int(below[-1]),
        abs(worst) / float(rate.values.max()),
        f"the rate is negative in {len(below):,} records (down to {worst:.3g}): the loss is climbed, not descended",
        ("a decay goes on beyond its end: the schedule was stepped more often than its length",),
        ("stop at the end of the schedule: max(0, rate)", "check total_steps"),
    )


def _tail_of_zeros(rate: Rate, nothing: np.ndarray, others_train: bool) -> Iterator[Fault]:
    alive = np.flatnonzero(~nothing)
    peak = float(rate.values.max())
    first = int(alive[-1]) + 1
    rows = len(nothing) - first
    if rows < _TAIL_ROWS or others_train or float(rate.half_digit.max(initial=0.0)) > _PRINTED * peak:
        return
    length = float(rate.steps[-1] - rate.steps[first])
    share = length / max(float(rate.steps[-1] - rate.steps[0]), 1.0)
    if share < _TAIL:
        return
    yield Fault(
        "zero-tail",
        "warning",
        first,
        len(nothing) - 1,
        share,
        f"the rate is 0 for the last {length:,.0f} steps, {share:.0%} of the run: nothing is learned there",
        (
            "the schedule was set up for fewer steps than were trained, or was stepped more often than once a step",
            "the run was prolonged without a new schedule",
        ),
        ("give the scheduler the number of steps that the run will make", "stop where the schedule ends"),
    )


def _back_at_resume(rate: Rate) -> Iterator[Fault]:
    """After a resume the rates repeat those of the beginning, though they had moved away from them."""
    borders = np.flatnonzero(np.diff(rate.attempts)) + 1
    peak = float(rate.values.max())
    if not len(borders) or peak <= 0 or rate.axis == "record":
        return
    own, before = rate.steps[: borders[0]], rate.values[: borders[0]]
    if len(own) < 5 or (np.diff(before) > 0.15 * peak).any():  # restarts of its own
        return
    for at, stop in zip(borders.tolist(), [*borders[1:].tolist(), len(rate.values)], strict=True):
        since = rate.steps[at:stop] - rate.steps[at]
        inside = since <= own[-1] - own[0]
        after = rate.values[at:stop][inside]
        every = float(np.median(np.diff(own)))
        shifted = [np.interp(since[inside] + d * every, own - own[0], before) for d in (-1.0, 0.0, 1.0)]
        low, high = np.minimum.reduce(shifted) - _REPEATS * peak, np.maximum.reduce(shifted) + _REPEATS * peak
        jump = abs(float(rate.values[at] - rate.values[at - 1]))
        if len(after) < _FEWEST or jump < 0.1 * peak or not ((after >= low) & (after <= high)).all():
            continue
        if np.ptp(after) < 0.05 * peak:  # a constant rate shows no beginning
            continue
        step = f"{rate.steps[at]:,.0f}"
        yield Fault(
            "not-restored",
            "warning",
            at,
            stop - 1,
            jump / peak,
            f"after the resume at step {step} the rate goes from {rate.values[at - 1]:.3g} to {rate.values[at]:.3g} and"
            f" repeats the beginning of the run for {int(inside.sum()):,} records",
            (f"the state of the scheduler was not restored: after step {step} its rates are those of the beginning",),
            ("save and load scheduler.state_dict() with the optimizer's", "pass last_epoch to the scheduler"),
        )
        return


def _rises_again(rate: Rate, loss: Loss | None) -> Iterator[Fault]:
    """One fall to the bottom, and the same way up again: a cosine that was stepped beyond its end."""
    values, steps = rate.values, rate.steps
    peak = float(values.max())
    slack = 0.02 * peak + float(rate.half_digit.max(initial=0.0))
    top, bottom = int(values.argmax()), int(values.argmin())
    if not top < bottom < len(values) - 5 or values[bottom] > _LOW * peak or values[-1] < _HIGH * peak:
        bottom = top + int(values[top:].argmin())
        if not top < bottom < len(values) - 5 or values[bottom] > _LOW * peak or values[-1] < _HIGH * peak:
            return
    fall, rise = values[top : bottom + 1], values[bottom:]
    if (fall - np.minimum.accumulate(fall)).max() > slack or (np.maximum.accumulate(rise) - rise).max() > slack:
        return
    after = steps[bottom:] - steps[bottom]
    mirrored = np.interp(steps[bottom] - after, steps[: bottom + 1], values[: bottom + 1])
    told = after <= steps[bottom] - steps[top]
    every = 2.0 * float(np.abs(np.diff(values)).max())  # the bottom itself lies between two records
    if told.sum() < 5 or np.abs(mirrored - values[bottom:])[told].max() > slack + every:
        return
    worse = moved(loss, float(steps[bottom]), float(steps[-1])) if rate.axis != "record" else None
    harm = worse is not None and worse > 8
    with_loss = "the loss rises with it" if harm else "the loss does not show harm" if worse is not None else "no loss"
    yield Fault(
        "rises-again",
        "warning" if harm else "info",
        bottom,
        len(values) - 1,
        float(values[-1]) / peak,
        f"the rate rises again from {values[bottom]:.3g} at step {steps[bottom]:,.0f} to {values[-1]:.3g} at the end,"
        f" the way it fell ({with_loss})",
        ("a cosine was stepped beyond its end (T_max of torch's CosineAnnealingLR), which climbs again",),
        ("set T_max to the steps of the run", "stop stepping the scheduler at its end"),
    )
