"""What may have gone wrong with a schedule: each way changes the plan by one number, fitted to what was observed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from analysis.schedule.rates import Floats, Rate, Surroundings
from analysis.schedule.search import Evidence, Fit, fit, search
from parsers.lr_schedule import Beyond, Schedule

__all__ = ["Candidate", "Scene", "candidates", "stairs_of"]

#: Factors that are tried before they are refined: every 6 % from a 64th to 64 times.
_FACTORS = tuple(math.exp(i * math.log(1.06)) for i in range(-72, 73))
#: A scheduler that is stepped too often is stepped a whole number of times.
_WHOLE = (*range(2, 17), 20, 24, 32, 48, 64)
#: Schedules that fall; the others have no decay that could be missing or end.
_FALLING = frozenset({"linear", "cosine", "cosine_with_restarts", "polynomial", "step", "multistep", "exponential"}) | {
    "onecycle",
    "inverse_sqrt",
    "wsd",
}
_DROPPING = frozenset({"step", "multistep", "exponential"})
#: Two numbers are the same when they differ by less than this share: epochs may be a batch shorter.
_ALIKE = 0.02
#: Steps of the shortest decay: one that is over sooner is no decay.
_SHORTEST = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a search for an explanation knows: the series, the plan in its best reading, rows, and the surroundings."""

    rate: Rate
    plan: Schedule
    found: Evidence
    around: Surroundings
    per_epoch: float | None
    stairs: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way in which the plan may have been missed; `name` says which, `number` how far, `at` from which step on."""

    name: str
    fit: Fit
    number: float
    at: float | None = None
    factor: float = 1.0


def candidates(scene: Scene) -> Iterator[Candidate]:
    """Every way, likely and simple ones first; each with the number that fits best."""
    ways = (
        _wrong_peak,
        _not_restored,
        _never_decays,
        _stretched_whole,
        _other_warmup,
        _other_end,
        _stretched,
        _other_cycles,
        _other_drops,
        _other_form,
        _made_anew,
        _shifted,
    )
    for way in ways:
        yield from way(scene)
    factor = float(scene.rate.values.max(initial=0.0)) / scene.plan.peak
    if factor <= 0 or abs(factor - 1.0) < _ALIKE:
        return
    scaled = replace(scene, plan=_scaled(scene.plan, factor))
    for way in (_not_restored, _never_decays, _stretched_whole, _other_warmup, _other_end, _stretched, _other_cycles):
        for one in way(scaled):
            yield replace(one, factor=factor)


def stairs_of(rate: Rate) -> float | None:
    """Steps for which the rate stays the same before it changes again, where it changes in stairs; else None."""
    if len(rate.values) < 8 or rate.axis == "record":
        return None
    changes = np.abs(np.diff(rate.values)) > 1e-9 * np.abs(rate.values).max()
    at = rate.steps[1:][changes]
    if len(at) < 3 or changes.mean() > 0.6:
        return None
    lengths = np.diff(at)
    usual = float(np.median(lengths))
    every = float(np.median(np.diff(rate.steps)))
    regular = usual >= 2 * every > 0 and float(np.mean(np.abs(lengths - usual) <= every)) > 0.7
    # Sparse records show each change late by another amount, which the mean of many evens out.
    return float(np.mean(lengths[np.abs(lengths - usual) <= every])) if regular else None


def _scaled(schedule: Schedule, factor: float) -> Schedule:
    """The schedule with all of its rates multiplied."""
    start = None if schedule.start is None else schedule.start * factor
    return replace(schedule, peak=schedule.peak * factor, minimum=schedule.minimum * factor, start=start)


def _wrong_peak(scene: Scene) -> Iterator[Candidate]:
    planned = scene.plan.at_steps(scene.found.steps)
    told = planned > 0.05 * scene.plan.peak
    if not told.any():
        return
    factor = float(np.median(scene.found.values[told] / planned[told]))
    if factor > 0:
        yield Candidate("wrong-peak", fit(scene.found, _scaled(scene.plan, factor), factor), factor)
    if scene.plan.minimum > 0 or scene.plan.start:  # the end was right, and only the peak is not
        alone = replace(scene.plan, peak=float(scene.rate.values.max()))
        if alone.peak > 0:
            yield Candidate("wrong-peak", fit(scene.found, alone, factor), alone.peak / scene.plan.peak)


def _not_restored(scene: Scene) -> Iterator[Candidate]:
    """After a resume the schedule begins again from its start."""
    found = scene.found
    later = found.attempt > found.attempt.min(initial=0)
    if not later.any():
        return
    first = float(found.origin[later][0])
    for back in _before(scene.rate):
        shift = np.where(later, found.origin - back, 0.0)
        yield Candidate("not-restored", fit(found, scene.plan, back, shift=shift), back, at=first)


def _before(rate: Rate) -> Floats:
    """How many steps before its first record a thing may have begun: up to the distance of two records."""
    every = float(np.median(np.diff(rate.steps))) if len(rate.steps) > 1 else 1.0
    return np.unique(np.linspace(0.0, max(every, 1.0), 13).round())


def _made_anew(scene: Scene) -> Iterator[Candidate]:
    """In the midst of an attempt the schedule begins again."""
    rate, found = scene.rate, scene.found
    change = np.abs(np.diff(rate.values))
    for row in np.argsort(change)[::-1][:3].tolist():
        at = float(rate.steps[row + 1])
        if change[row] < 0.05 * scene.plan.peak or at <= 0:
            continue
        for back in _before(rate):
            shift = np.where(found.steps >= at, at - back, 0.0)
            yield Candidate("made-anew", fit(found, scene.plan, at, shift=shift), at, at=at)


def _never_decays(scene: Scene) -> Iterator[Candidate]:
    if scene.plan.name not in _FALLING:
        return
    flat = replace(scene.plan, name="constant_with_warmup")
    if scene.plan.name == "onecycle":
        flat = replace(scene.plan, minimum=scene.plan.peak, stated=scene.plan.stated | {"min"})
    yield Candidate("never-decays", fit(scene.found, flat, 1.0), 1.0)


def _stretched_whole(scene: Scene) -> Iterator[Candidate]:
    """All lengths are longer or shorter by a whole number: the scheduler is stepped so many times, or once in so many.

    Numbers that the log or the configuration names come before others.
    """
    if scene.plan.name not in _FALLING and not scene.plan.warmup:
        return
    known = [float(n) for n in (scene.around.accumulation, scene.around.processes) if n]
    known += [n for n in (scene.per_epoch, scene.plan.tick) if n and n > 1]
    if scene.stairs is not None:
        known += [float(n) for n in range(max(round(scene.stairs) - 2, 2), round(scene.stairs) + 3)]
    # Some step the scheduler at the beginning of an epoch, whose first is then at tick 1.
    slow = [
        fit(scene.found, scene.plan.stretched(n), n, shift=shift, stairs=stairs)
        for n in known
        for stairs, shift in ((True, 0.0), (True, -n), (False, 0.0))
    ]
    fast = [
        fit(scene.found, scene.plan.stretched(1.0 / n), 1.0 / n, beyond, stairs=stairs)
        for n in dict.fromkeys((*known, *_WHOLE))
        for beyond in _beyonds(scene.plan)
        for stairs in dict.fromkeys((scene.plan.tick / n > 1, False))
    ]
    for best in sorted((*slow, *fast), key=lambda one: one.error)[:3]:
        yield Candidate(_of_stretch(scene, best.number), best, best.number)


def _stretched(scene: Scene) -> Iterator[Candidate]:
    """All lengths of the schedule are longer, or shorter, by one factor."""
    if scene.plan.name not in _FALLING and not scene.plan.warmup:
        return
    for beyond in _beyonds(scene.plan):
        best = search(scene.found, scene.plan.stretched, _FACTORS, beyond, stairs=_in_stairs(scene))
        if best is not None:
            yield Candidate(_of_stretch(scene, best.number), best, best.number)


def _in_stairs(scene: Scene) -> bool:
    return scene.stairs is not None and scene.plan.tick > 1


def _beyonds(plan: Schedule) -> tuple[Beyond, ...]:
    return ("hold", "continue") if plan.name in ("cosine", "cosine_with_restarts") else ("hold",)


def _of_stretch(scene: Scene, factor: float) -> str:
    """Which mistake stretches a schedule by this factor."""
    if factor < 1:
        often = 1.0 / factor
        if scene.plan.tick > 1 and _same(often, scene.plan.tick):
            return "epochs-as-steps"
        if scene.plan.name in _DROPPING and _same(often, scene.per_epoch):
            return "epochs-as-steps"
        return "stepped-too-often" if often >= 1.9 and _same(often, round(often), 0.01) else "other-length"
    if _same(factor, scene.per_epoch):
        return "stepped-per-epoch"
    if _same(factor, scene.around.accumulation):
        return "micro-batches"
    if _same(factor, scene.stairs, 0.1) and factor >= 2:
        return "stepped-per-epoch"
    return "other-length"


def _same(number: float, known: float | None, alike: float = _ALIKE) -> bool:
    return known is not None and known > 1 and abs(number / known - 1.0) <= alike


def _other_warmup(scene: Scene) -> Iterator[Candidate]:
    plan, found = scene.plan, scene.found
    if plan.name == "onecycle":
        best = search(found, lambda share: replace(plan, pct_start=share), np.linspace(0.01, 0.95, 95))
        if best is not None:
            yield Candidate("other-warmup", best, best.number * (plan.total or 0.0) * plan.tick)
        return
    if plan.warmup > 0:
        for without in (replace(plan, warmup=0.0), replace(plan, start=plan.peak)):
            yield Candidate("no-warmup", fit(found, without, 0.0), 0.0)
    longest = (plan.total or float(scene.rate.steps[-1]) / plan.tick) * 0.95
    least = max(1.0, float(np.median(np.diff(found.steps))) / 4 / plan.tick)
    base = plan.warmup or longest / 8
    numbers = [n for n in (base * f for f in _FACTORS) if least <= n <= longest]
    best = search(found, lambda n: replace(plan, warmup=n), numbers)
    if best is not None:
        yield Candidate("other-warmup", best, best.number * plan.tick)


def _other_end(scene: Scene) -> Iterator[Candidate]:
    """The decay ends at another rate, climbs again after its end, or ends at another step."""
    plan, found = scene.plan, scene.found
    if plan.name not in _FALLING:
        return
    falling = scene.rate.values[scene.rate.steps / plan.tick >= plan.warmup]
    least = max(float(falling.min(initial=plan.peak)), 0.0)
    other = replace(plan, minimum=least, stated=plan.stated | {"min"})
    yield Candidate("other-minimum", fit(found, other, least), least)
    if plan.total is None or plan.first_cycle is not None:
        return
    for beyond in _beyonds(plan)[1:]:
        yield Candidate("rises-again", fit(found, plan, plan.total, beyond), plan.total * plan.tick)
    numbers = [n for n in (plan.total * f for f in _FACTORS) if n > plan.warmup + _SHORTEST / plan.tick]
    for beyond in _beyonds(plan):
        best = search(found, lambda n: replace(plan, total=n), numbers, beyond)
        if best is not None:
            yield Candidate("other-end", best, best.number * plan.tick)


def _other_cycles(scene: Scene) -> Iterator[Candidate]:
    plan, found = scene.plan, scene.found
    if plan.name != "cosine_with_restarts":
        return
    if plan.first_cycle is None:
        best = search(found, lambda n: replace(plan, cycles=n), [float(n) for n in range(1, 25)])
        if best is not None:
            yield Candidate("other-cycles", best, ((plan.total or 0.0) - plan.warmup) * plan.tick / best.number)
        return
    first = plan.first_cycle
    for mult in dict.fromkeys((plan.cycle_mult, 1.0, 2.0)):
        make = _cycles(plan, mult)
        best = search(found, make, [first * f for f in (*_FACTORS, 1.0)])
        if best is not None:
            yield Candidate("other-cycles", best, best.number * plan.tick)


def _cycles(plan: Schedule, mult: float) -> Callable[[float], Schedule]:
    return lambda first: replace(plan, first_cycle=first, cycle_mult=mult)


def _other_drops(scene: Scene) -> Iterator[Candidate]:
    """Step decays at other places, or by another factor."""
    plan, found, rate = scene.plan, scene.found, scene.rate
    if plan.name not in _DROPPING:
        return
    if plan.name == "step":
        size = plan.step_size or 1.0
        best = search(found, lambda n: replace(plan, step_size=n), [size * f for f in _FACTORS])
        if best is not None:
            yield Candidate("other-milestones", best, best.number * plan.tick)
    if plan.name == "multistep":
        drops = np.flatnonzero(rate.values[1:] < rate.values[:-1] * 0.98) + 1
        if 0 < len(drops) <= 20:
            marks = tuple((0.5 * (rate.steps[drops] + rate.steps[drops - 1]) / plan.tick).tolist())
            moved = replace(plan, milestones=marks, after_warmup=False)
            yield Candidate("other-milestones", fit(found, moved, marks[0]), float(rate.steps[drops[0]]))
    fewest = 0.9 if plan.name == "exponential" else 0.02
    numbers = 1.0 - np.geomspace(1e-6, 1.0 - fewest, 90)
    best = search(found, lambda n: replace(plan, gamma=n), numbers.tolist())
    if best is not None:
        yield Candidate("other-gamma", best, best.number)


def _other_form(scene: Scene) -> Iterator[Candidate]:
    """Another power, last phase or timescale than planned; or another schedule altogether, over the same length."""
    plan, found = scene.plan, scene.found
    if plan.name == "polynomial":
        best = search(found, lambda n: replace(plan, power=n), np.geomspace(0.1, 10, 60).tolist())
        if best is not None:
            yield Candidate("other-power", best, best.number)
    if plan.name == "wsd" and plan.total:
        best = search(
            found, lambda n: replace(plan, decay=n), [n for f in _FACTORS if (n := plan.total * f) < plan.total]
        )
        if best is not None:
            yield Candidate("other-decay", best, best.number * plan.tick)
    if plan.name == "inverse_sqrt":
        base = plan.decay or plan.warmup or 1e4
        best = search(found, lambda n: replace(plan, decay=n), [base * f for f in _FACTORS])
        if best is not None:
            yield Candidate("other-decay", best, best.number * plan.tick)
    total = plan.total or (float(scene.rate.steps[-1]) + 1.0) / plan.tick
    for name in ("linear", "cosine", "inverse_sqrt", "onecycle"):
        if name != plan.name:
            other = replace(plan, name=name, total=total, cycles=None, first_cycle=None)
            yield Candidate("other-schedule", fit(found, other, 0.0), 0.0)


def _shifted(scene: Scene) -> Iterator[Candidate]:
    """The schedule counts its steps from elsewhere than the log."""
    length = max(float(scene.rate.steps[-1]), (scene.plan.total or 0.0) * scene.plan.tick)
    best = search(scene.found, lambda _: scene.plan, np.linspace(-length, length, 161).tolist(), shifting=True)
    if best is not None:
        yield Candidate("shifted", best, best.number)
