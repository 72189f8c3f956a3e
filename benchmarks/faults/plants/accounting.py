"""Faults of the loss and its curriculum, in a distillation that is really trained on what the faulty code adds up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.faults.effects import jump, level, log_noise
from benchmarks.faults.loop import Hook, State, train
from benchmarks.faults.planting import STREAM, Draw, NotPlantedError, Planted, close_to, plants
from benchmarks.faults.tasks.distillation import COMPONENTS, Distillation, curriculum_of
from benchmarks.faults.trace import Trace

__all__ = ["bypass", "display", "inactive", "not_applied", "off_schedule", "sum_mismatch"]

POINTS = (90, 150, 300)
Account = dict[str, Any]


class _Bent(Hook):
    """Sets what the task's account goes through at every step."""

    def __init__(self, bend: Callable[[int, Account], None] | None = None, shift: int = 0) -> None:
        self.bend, self.shift = bend, shift

    def before(self, state: State) -> None:
        assert isinstance(state.task, Distillation)
        if state.step == 1:
            state.task.bend, state.task.shift = self.bend, self.shift


def _first(draw: Draw) -> int:
    """From the beginning in half of the runs, else from a later step on."""
    return 1 if draw.rng.random() < 0.5 else int(draw.rng.uniform(0.2, 0.5) * draw.recipe.steps)


def _total(account: Account) -> Any:
    return sum(account["raw"][name] * account["weight"][name] for name in COMPONENTS)


@plants("loss-sum-mismatch", families=("distillation",), formats=STREAM, points=POINTS)
def sum_mismatch(draw: Draw) -> Planted:
    """A term that is logged nowhere is added to the total, of a share of it."""
    onset, share = _first(draw), draw.size

    def bend(step: int, account: Account) -> None:
        if step >= onset:
            account["extra"] = share / (1 - share) * _total(account).detach()

    return _planted(draw, train(draw.recipe, [_Bent(bend)]), onset, share, "loss")


def _planted(draw: Draw, trace: Trace, onset: int, size: float, metric: str, end: int | None = None) -> Planted:
    every = draw.recipe.every
    return Planted(trace, size, -(-onset // every) * every, end, metric)


@plants("loss-display-mismatch", families=("distillation",), formats=STREAM, points=POINTS, pooled=True)
def display(draw: Draw) -> Planted:
    """The number that is shown and logged as the loss is the total times a factor (a missing division)."""
    trace, onset = draw.base(), _first(draw)
    for event in trace.events:
        if event.kind == "losses" and (event.step or 0) >= onset:
            event.payload["displayed"] = event.payload["total"] * draw.size
    trace.change("loss", [row for row in trace.where("train") if row.step >= onset], lambda value: value * draw.size)
    jumps = ("level-shift", "loss-spike") if onset > 1 and draw.size > 1.05 else ()
    planted = _planted(draw, trace, onset, draw.size, "loss")
    planted.accepted = jumps  # the logged loss does leap where the display goes wrong
    return planted


@plants("weight-not-applied", families=("distillation",), formats=STREAM, points=POINTS)
def not_applied(draw: Draw) -> Planted:
    """One component is multiplied by another weight than the one that is logged."""
    onset, name = _first(draw), str(draw.rng.choice(["hard", "kd"]))
    factor = draw.size if draw.rng.random() < 0.5 else 1 / draw.size

    def bend(step: int, account: Account) -> None:
        if step >= onset:
            account["applied"] = {**account["weight"], name: account["weight"][name] * factor}

    return _planted(draw, train(draw.recipe, [_Bent(bend)]), onset, draw.size, name)


_IDLE = {1: ("hard", 0.0), 2: ("kd", 0.0), 3: ("feature", 0.0), 4: ("kd", 0.2), 5: ("kd", 0.6), 6: ("hard", 0.85)}


@plants("inactive-component", families=("distillation",), formats=STREAM, points=POINTS)
def inactive(draw: Draw) -> Planted:
    """A component that has weight is exactly 0: all run long, or from one step on."""
    name, start = _IDLE[draw.magnitude]
    onset = max(1, round(start * draw.recipe.steps))

    def bend(step: int, account: Account) -> None:
        if step >= onset:
            account["raw"][name] = account["raw"][name] * 0.0

    planted = _planted(draw, train(draw.recipe, [_Bent(bend)]), onset, 1 - start, name)
    # half of the loss, gone from one step on, is a step in the loss
    planted.accepted = ("level-shift",) if start else ()
    return planted


@plants(
    "curriculum-off-schedule", variants=("late", "weight"), families=("distillation",), formats=STREAM, points=POINTS
)
def off_schedule(draw: Draw) -> Planted:
    """`late`: phases begin later (or earlier) than planned; `weight`: one weight is another. Both are applied so."""
    steps, every = draw.recipe.steps, draw.recipe.every
    starts = [phase["start"] for phase in curriculum_of(steps)["phases"]]
    sign = 1 if draw.rng.random() < 0.7 else -1
    if draw.variant == "late":
        shift = sign * min(max(every, round(draw.size * steps)), starts[1] - every)
        trace = train(draw.recipe, [_Bent(shift=shift)])
        return _planted(draw, trace, min(starts[1], starts[1] + shift), abs(shift) / steps, "curriculum")
    name, onset = str(draw.rng.choice(["hard", "kd", "feature"])), starts[1] if draw.rng.random() < 0.5 else 1
    factor = draw.size if sign > 0 else 1 / draw.size

    def bend(step: int, account: Account) -> None:
        if step >= onset:
            account["weight"] = {**account["weight"], name: account["weight"][name] * factor}

    first = max(onset, starts[1]) if name == "feature" else onset
    trace = train(draw.recipe, [_Bent(bend)])
    planted = _planted(draw, trace, first, draw.size, name)
    planted.accepted = ("level-shift", "loss-spike") if _leaps(trace, planted.onset) else ()
    return planted


def _leaps(trace: Trace, onset: int) -> bool:
    """Whether another weight makes the logged loss leap: by a tenth, and four times what its neighbours scatter."""
    steps, values = trace.series("loss")
    at = int(np.searchsorted(steps, onset))
    leap = abs(np.log(jump(values, at, 5))) if 5 <= at <= len(values) - 5 else 0.0
    return bool(leap > max(np.log(1.1), 4 * log_noise(values)))


@plants("curriculum-bypass", families=("distillation",), formats=STREAM, points=POINTS)
def bypass(draw: Draw) -> Planted:
    """A constant times a raw component goes into the total while the curriculum gives that component no weight."""
    healthy, every = draw.healthy(draw.recipe), draw.recipe.every
    name = str(draw.rng.choice(["contrastive", "routing_balance"]))
    events = [event.payload for event in healthy.events if event.kind == "losses"]
    early = events[: len(events) // 2]
    raw = level(np.array([payload["components"][name]["raw"] for payload in early]))
    constant = draw.size / (1 - draw.size) * level(np.array([payload["total"] for payload in early])) / raw

    def bend(step: int, account: Account) -> None:
        account["extra"] = constant * account["raw"][name]

    trace = train(draw.recipe, [_Bent(bend)])
    said = [event.payload for event in trace.events if event.kind == "losses"][: len(early)]
    shares = np.array([constant * payload["components"][name]["raw"] / payload["total"] for payload in said])
    size = close_to(level(shares), draw.size, 1.7, "share of the total")
    if not all(payload["components"][name]["weight"] == 0 for payload in said):
        raise NotPlantedError("the component has weight")
    return _planted(draw, trace, every, size, name)
