"""Faults of the learning rate and of the steps: divergence, standing still, swings, an unplanned schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from benchmarks.faults.effects import Floats, jump, level, log_noise, swing
from benchmarks.faults.loop import Hook, State, schedule_of, train
from benchmarks.faults.planting import ANY, SIMPLE, Ask, Draw, NotPlantedError, Planted, close_to, plants
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.schedules import Schedule
from benchmarks.faults.tasks import FAMILIES
from benchmarks.faults.tasks.base import Batch
from benchmarks.faults.trace import Trace

__all__ = ["divergence", "lr_schedule", "oscillation", "plateau"]

STILL = ("constant", "warmup-constant", "linear")


class _Growing(Hook):
    """From a step on the rate grows geometrically, to `most` times itself after half of the remaining steps."""

    def __init__(self, at: int, most: float) -> None:
        self.at, self.most = at, most

    def lr(self, state: State, lr: float) -> float:
        if state.step < self.at:
            return lr
        done = min(1.0, (state.step - self.at + 1) / max(1, (state.recipe.steps - self.at) // 2))
        return lr * self.most**done


def _every_row(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.with_(every=1).opt(mean=False, eval_rows=max(1, recipe.points // 12))


@plants("divergence", reps=2, families=SIMPLE, formats=ANY, points=(120, 160, 240), schedules=(*STILL, "warmup-cosine"),
        demand=_every_row)  # fmt: skip
def divergence(draw: Draw) -> Planted:
    """A learning rate that grows from one row on until the loss ends as many times higher; found by bisection."""
    healthy = draw.healthy(draw.recipe)
    row = draw.place(0.35, 0.65)
    steps, values = healthy.series("loss")
    factor = draw.factor(log_noise(values[max(0, row - 60) : row]))
    before, tail = level(values[max(0, row - 15) : row]), max(5, len(values) // 10)

    def ended(most: float) -> tuple[float, Trace]:
        trace = train(draw.recipe, [_Growing(int(steps[row]), most)])
        last = trace.series("loss")[1][-tail:]
        return (level(last) / before if np.isfinite(last).all() else math.inf), trace

    found, trace = search(ended, factor, 1.5, 20_000.0, 7)
    size = close_to(found, factor, 1.5, "rise of the loss")
    climbs = _leaves(trace.series("loss")[1], row, before, log_noise(values[max(0, row - 60) : row]))
    return Planted(trace, size, int(steps[climbs]), extra={"rate_grows_from": int(steps[row])})


def _leaves(values: Floats, row: int, before: float, noise: float) -> int:
    """The row at which a loss leaves the level before for good.

    A rate that grows is the cause, and not yet a divergence: until it is too large the loss falls the faster for it.
    """
    bar = before * math.exp(max(noise, 0.02))
    low = [i for i in range(row, len(values) - 4) if level(values[i : i + 5]) <= bar]
    return low[-1] + 3 if low else row


def search(
    measure: Callable[[float], tuple[float, Trace]], wanted: float, low: float, high: float, tries: int
) -> tuple[float, Trace]:
    """The trial whose measured size is nearest to the wanted one, by bisection of the strength's logarithm."""
    best: tuple[float, Trace] | None = None
    for _ in range(tries):
        middle = math.sqrt(low * high)
        found, trace = measure(middle)
        if best is None or _off(found, wanted) < _off(best[0], wanted):
            best = found, trace
        if _off(found, wanted) < math.log(1.15):
            break
        low, high = (middle, high) if found < wanted else (low, middle)
    assert best is not None
    return best


def _off(found: float, wanted: float) -> float:
    return abs(math.log(max(found, 1e-9) / wanted)) if math.isfinite(found) else math.inf


class _Standing(Hook):
    """Steps that teach nothing: a rate that is next to nothing, or an optimiser whose steps are left out."""

    def __init__(self, steps: range, factor: float | None) -> None:
        self.steps, self.factor = steps, factor

    def lr(self, state: State, lr: float) -> float:
        return lr * self.factor if self.factor is not None and state.step in self.steps else lr

    def skip(self, state: State) -> bool:
        return self.factor is None and state.step in self.steps


def _slowly(recipe: Recipe, ask: Ask) -> Recipe:
    """A training that is still learning at its end, so that standing still costs something."""
    factor = {"sgd": 0.15, "adam": 0.2, "adamw": 0.2}[recipe.optimizer]
    return recipe.with_(every=1, batch=max(32, recipe.batch)).opt(mean=False, lr_factor=factor, param_norm=True)


@plants("plateau", variants=("rate-gone", "stuck", "zero-at-first"), families=(*SIMPLE, "language"), formats=ANY,
        points=(150, 200, 300), schedules=STILL, demand=_slowly)  # fmt: skip
def plateau(draw: Draw) -> Planted:
    """`rate-gone`: a ten-thousandth of the rate from one row to the end; `stuck`: the optimiser's steps do nothing;
    `zero-at-first`: a rate of 0 until one row. The same training without the fault must have come further by then.
    """
    healthy, count = draw.healthy(draw.recipe), draw.recipe.points
    still = round(draw.size * count)
    first = 0 if draw.variant == "zero-at-first" else count - still
    factor = {"rate-gone": 1e-4, "stuck": None, "zero-at-first": 0.0}[draw.variant]
    trace = train(draw.recipe, [_Standing(range(first + 1, first + still + 1), factor)])
    values, meant = trace.series("loss")[1], healthy.series("loss")[1]
    end = slice(max(0, first + still - max(8, still // 4)), first + still)
    lost = level(values[end]) / level(meant[end])
    if not lost > (1.15 if draw.magnitude <= 4 else 1.03):
        raise NotPlantedError(f"the training had learned nearly everything: its loss would be lower by {lost:.2f} only")
    last = None if first + still == count else first + still
    return Planted(trace, still / count, first + 1, last, extra={"lost": lost})


class _Turns(Hook):
    """Batches that become harder and easier in turn: hard and easy examples stand together in the data's order."""

    def __init__(self, at: int, period: float, share: float) -> None:
        self.at, self.period, self.share = at, period, share

    def batch(self, state: State, batch: Batch) -> Batch:
        if state.step < self.at:
            return batch
        wave = 0.5 * (1 + math.sin(2 * math.pi * (state.step - self.at) / self.period))
        return state.task.harder(batch, self.share * wave, state.noise)


def _regular(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.with_(every=1, batch=max(32, recipe.batch)).opt(mean=False)


@plants(
    "oscillation",
    reps=2,
    variants=("data-order",),
    families=SIMPLE,
    formats=ANY,
    points=(150, 200, 300),
    demand=_regular,
)
def oscillation(draw: Draw) -> Planted:
    """The order of the data repeats itself every 8 to 30 rows, hard examples together, and the loss with it."""
    row = draw.place(0.2, 0.4)
    period = float(draw.rng.uniform(8, 30))

    def measured(share: float) -> tuple[float, Trace]:
        trace = train(draw.recipe, [_Turns(row + 1, period, share)])
        amplitude, rest = swing(trace.series("loss")[1][row:], period)
        return amplitude / rest, trace

    found, trace = search(measured, draw.size, 0.01, 1.0, 6)
    size = close_to(found, draw.size, 1.35, "swing")
    # hard batches only ever add to the loss: its level rises with the swings, and each wave of a few is a hump
    risen = jump(trace.series("loss")[1], row, round(2 * period))
    accepted = ("level-shift", "loss-spike") if risen > 1.3 else ()
    return Planted(trace, size, row + 1, accepted=accepted, extra={"period_rows": period, "level_ratio": risen})


class _OtherSchedule(Hook):
    """The rate of another schedule than the stated one, which is applied and logged."""

    def __init__(self, rate: Callable[[int], float]) -> None:
        self.rate = rate

    def lr(self, state: State, lr: float) -> float:
        return self.rate(state.step)


VARIANTS = ("warmup-missing", "too-often", "per-epoch", "wrong-peak", "never-decays", "wrong-period")


def _stated(recipe: Recipe, ask: Ask) -> Recipe:
    """A schedule that shows the fault, stated in plan and configuration."""
    from benchmarks.faults.ladder import ladder_of

    size = ladder_of("lr-schedule", ask.variant).sizes[ask.magnitude - 1]
    pick = ask.rng.choice
    name, changes = recipe.schedule, {}
    if ask.variant == "warmup-missing":
        name = str(pick(["warmup-cosine", "warmup-constant", "linear"]))
        changes = {"warmup": max(2, round(size * recipe.steps))}
    elif ask.variant in ("too-often", "per-epoch"):
        name = str(pick(["warmup-cosine", "linear"]))
        changes = {"low": 0.0, "warmup": max(2, recipe.steps // 20)}
    elif ask.variant == "never-decays":
        peak = schedule_of(recipe, FAMILIES[recipe.family].peaks).peak
        name, changes = "warmup-cosine", {"low": size * peak}
    elif ask.variant == "wrong-period":
        name, changes = "cosine-restarts", {"period": max(4, recipe.steps // int(pick([3, 4, 5])))}
    return recipe.with_(schedule=name).opt(state_lr=True, schedule_changes=changes)


@plants("lr-schedule", variants=VARIANTS, families=SIMPLE, formats=ANY, points=(90, 150, 300), demand=_stated)
def lr_schedule(draw: Draw) -> Planted:
    """The rate that is applied is not the stated one: what is wrong is the variant, how far the ladder says."""
    planned = schedule_of(draw.recipe, FAMILIES[draw.recipe.family].peaks)
    rate = _rate(draw, planned)
    steps = range(draw.recipe.every, draw.recipe.steps + 1, draw.recipe.every)
    apart = [step for step in steps if abs(rate(step) - planned.at(step)) > 0.005 * planned.peak]
    if not apart:
        raise NotPlantedError("the rates are the same at all logged steps")
    trace = train(draw.recipe, [_OtherSchedule(rate)])
    worst = max(abs(rate(step) - planned.at(step)) for step in apart) / planned.peak
    share = len(apart) / len(steps)
    return Planted(trace, draw.size, apart[0], None, "lr", extra={"worst_share_of_peak": worst, "share_of_rows": share})


def _rate(draw: Draw, planned: Schedule) -> Callable[[int], float]:
    size = draw.size
    if draw.variant == "warmup-missing":
        if draw.rng.random() < 0.5:  # nothing holds the rate down where it should rise, or nothing is said of a rise
            return lambda step: planned.peak if step < planned.warmup else planned.at(step)
        return planned.with_(warmup=0).at
    if draw.variant == "too-often":
        return lambda step: planned.at(step * size)
    if draw.variant == "per-epoch":
        return lambda step: planned.at(step // size + 1)
    if draw.variant == "wrong-peak":
        factor = size if draw.rng.random() < 0.5 else 1 / size
        return lambda step: planned.at(step) * factor
    if draw.variant == "never-decays":
        return lambda step: planned.at(step) if step < planned.warmup else planned.peak
    other = planned.with_(period=max(2, round(planned.period * (size if draw.rng.random() < 0.5 else 1 / size))))
    return lambda step: other.at(step)
