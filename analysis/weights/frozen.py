"""`frozen-layer` between saves: parameters that stand still while others move, and those that move although frozen."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Literal

from analysis.findings import Finding, Severity
from analysis.gradient.scene import Meant, some
from analysis.gradient.tracks import stacks_of
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.moves import Moves
from analysis.weights.optimizer_states import moments_of
from analysis.weights.saved import Saved, begins_at_zero, layer_of
from parsers.checkpoints.tensors import DTYPES

__all__ = ["frozen_layers"]

#: What does not move on purpose whatever the plan: fixed projections, feature extractors of losses, and teachers.
_FIXED = re.compile(
    r"(^|[._])(dfl|teacher|ref_model|reference|lpips|vgg\w*|loss_fn|criterion|perceptual\w*|frozen)[._]"
)
#: Share of the parameters that is frozen from which on this is fine-tuning, and not a layer that was forgotten.
_MOST = 0.5

#: Share of the elements of a matrix that changes from save to save where the type is fine enough to show it.
_CLEARLY = 0.5
_RATE = re.compile(r"param_groups\.\d+\.lr$")

_Reason = Literal["no gradient", "zero gradient", "no move", "unknown"]


@dataclass(frozen=True, slots=True)
class _Still:
    name: str
    steps: int
    first: int
    moved_before: bool
    reason: _Reason
    severity: Severity


def frozen_layers(moves: Moves, run_name: str, meant: Meant, gauge: Gauge) -> list[Finding]:
    """Parameters bit-identical over the last saves while others move, one finding a reason and severity.

    Critical where the plan says that they train. Without a plan a warning where the optimizer holds a gradient of them
    or where their like move (a layer in a stack, a weight whose bias moves); information where freezing looks meant:
    the first layers, whole parts of the model, or half of all parameters.
    """
    order = [name for name in moves.moved if moves.observed(name)]
    if not moves.spans or not order:
        return []
    resting = {}
    for name in order:
        steps, first = moves.rest(name, meant.begins(name))
        still = first is not None and gauge.reaches("frozen-layer", float(steps), name, layer_of(name))
        if not still:
            gauge.keep("frozen-layer", float(steps), name)
        else:
            resting[name] = (steps, first or 0)
    purpose = _on_purpose(order, resting)
    found = [_still(moves, name, *resting[name], purpose=name in purpose, meant=meant) for name in resting]
    groups: dict[tuple[str, str], list[_Still]] = {}
    for one in found:
        groups.setdefault((one.severity, one.reason), []).append(one)
    told = [_finding(moves, group, run_name, meant, gauge) for group in groups.values()]
    return [*told, *_moved_though_frozen(moves, run_name, meant)]


def _on_purpose(order: list[str], resting: dict[str, tuple[int, int]]) -> set[str]:
    """Those of the resting parameters that somebody froze, as far as names tell.

    These are: all of them where half of the model rests; the first layers up to the first that moves; parts of the
    model (by the first word of the name) of several layers that rest as a whole; and what is fixed by its name.
    """
    if len(resting) >= _MOST * len(order):
        return set(resting)
    lead = next((n for n, name in enumerate(order) if name not in resting), len(order))
    meant = set(order[:lead]) | {name for name in resting if _FIXED.search(name)}
    parts: dict[str, list[str]] = {}
    for name in order:
        parts.setdefault(name.split(".")[0], []).append(name)
    whole = [names for names in parts.values() if all(name in resting for name in names)]
    return meant | {name for names in whole if len({layer_of(name) for name in names}) > 1 for name in names}


def _still(moves: Moves, name: str, steps: int, first: int, *, purpose: bool, meant: Meant) -> _Still:
    before = any(moves.moved[name][n] for n in moves.observed(name))
    reason = _reason(moves, name)
    if meant.of(name) in ("train", "freeze"):  # a frozen one stands here only where it was to be unfrozen by now
        severity: Severity = "critical"
    elif begins_at_zero(name) and reason == "unknown":
        severity = "info"
    elif reason == "no move":
        severity = "info" if _master_weights(moves, name) and _too_coarse(moves, name, first) else "warning"
    elif purpose and not (before and reason == "zero gradient"):
        severity = "info"
    else:
        blamed = reason == "zero gradient" or before or _should_move(moves, name)
        natural = _bias_alone(moves, name) or (reason == "unknown" and _too_coarse(moves, name, first))
        severity = "warning" if blamed and not natural else "info"
    return _Still(name, steps, first, before, reason, severity)


def _bias_alone(moves: Moves, name: str) -> bool:
    """Whether a bias stands still whose weight moves: before a normalisation, or where it cancels, that is natural."""
    return name.rpartition(".")[2] == "bias" and any(
        layer_of(other) == layer_of(name) for other in moves.moving if other != name
    )


def _too_coarse(moves: Moves, name: str, first: int) -> bool:
    """Whether a save in 16 bits or fewer cannot show the steps that are taken: gains near 1, and small rates late on.

    So it is for vectors, and for matrices where others of this width changed in less than half of their elements.
    """
    tensors = moves.tensors
    bits = {one: DTYPES[tensor.dtype].bits for one, tensor in tensors.items()}
    if bits[name] > 16 or len(tensors[name].shape) < 2:
        return bits[name] <= 16
    like = [one for one in moves.moving if bits[one] == bits[name] and len(tensors[one].shape) >= 2]
    shares = [share for one in like for share in moves.moved[one][first:] if share]
    return not shares or median(shares) < _CLEARLY


def _master_weights(moves: Moves, name: str) -> bool:
    """Whether moments are finer than the saved weights: the weights that train are as fine, and lie elsewhere."""
    own = DTYPES[moves.tensors[name].dtype].bits
    return any(DTYPES[row["dtype"]].bits > own for row in moments_of(moves.states.get(name, [])))


def _reason(moves: Moves, name: str) -> _Reason:
    """What the optimizer of the last save says: no state, moments of zero, or a gradient that moves nothing.

    Its states have numbers and no names: where one of them is missing for what moves, they were not told apart, and
    only counting tells.
    """
    states = moves.states
    if not states or not moves.moving <= states.keys():
        return "no gradient" if name not in states and _all_taken(moves, name) else "unknown"
    moments = moments_of(states.get(name, []))
    if not moments:
        return "no gradient" if name not in states else "unknown"
    return "zero gradient" if all(row["zeros"] == 1 for row in moments) else "no move"


def _all_taken(moves: Moves, name: str) -> bool:
    """Whether the moving parameters of this shape are as many as the moments of it: then none is left for this one.

    What moves has moments: where those of any shape do not suffice, they are kept in another form, and tell nothing.
    """
    held, shapes = moves.shapes_with_moments, {one: tensor.shape for one, tensor in moves.tensors.items()}
    moving = Counter(shapes[one] for one in moves.moving)
    suffice = bool(moving) and all(held[shape] >= count for shape, count in moving.items())
    return suffice and held[shapes[name]] == moving[shapes[name]]


def _should_move(moves: Moves, name: str) -> bool:
    """Whether its like move: another parameter of its layer, or layers before and behind it in a stack."""
    layer, last = layer_of(name), name.rpartition(".")[2]
    if any(layer_of(other) == layer for other in moves.moving) and last in ("weight", "bias"):
        return True
    layers = list(dict.fromkeys(layer_of(other) for other in moves.moved if other.rpartition(".")[2] == last))
    stack = next((stack for stack in stacks_of(layers) if layer in stack), [])
    moving = [f"{one}.{last}" in moves.moving for one in stack]
    place = stack.index(layer) if stack else 0
    amid = any(moving[:place]) and any(moving[place + 1 :])
    return amid or (last == "weight" and not stack and any(layer_of(other) != layer for other in moves.moving))


_SAID: dict[_Reason, str] = {
    "no gradient": "the optimizer holds no state of them: they never had a gradient, or were not given to it",
    "zero gradient": "their moments are exactly 0: they get a gradient of 0",
    "no move": "the optimizer holds a gradient of them",
    "unknown": "the others moved",
}
_WHY: dict[_Reason, tuple[str, ...]] = {
    "no gradient": (
        "the loss does not depend on them, or requires_grad is False: the optimizer holds no state of them",
        "they were left out of the optimizer",
    ),
    "zero gradient": (
        "what lies behind them passes nothing on (moments of exactly 0): dead ReLUs, a multiplication by 0",
    ),
    "no move": (
        "updates are below the resolution of the weights' type (their moments are not 0, their bits do not change)",
        "the learning rate of their group is 0",
    ),
    "unknown": (
        "the loss does not depend on them: unused in forward, detached, or behind a branch that is off",
        "requires_grad is False, or they were left out of the optimizer",
        "updates are below the resolution of the weights' type",
    ),
}


def _finding(moves: Moves, group: list[_Still], run_name: str, meant: Meant, gauge: Gauge) -> Finding:
    told = max(group, key=lambda one: one.steps)
    layers = list(dict.fromkeys(layer_of(one.name) for one in group))
    before, after = moves.spans[told.first][0], moves.spans[-1][1]
    counted = f"{len(group)} parameters of {some(layers, 3)}" if len(group) > 1 else told.name
    planned = ", which the plan says train," if meant.of(told.name) == "train" else ""
    late = ", which were to be unfrozen by now," if meant.of(told.name) == "freeze" else ""
    since = f"since {before.where}" if told.moved_before else f"from {before.where} to {after.where}"
    on_purpose = " (looks meant: first layers, a whole part, or most of the model)" if told.severity == "info" else ""
    return Finding(
        "frozen-layer",
        told.severity,
        run_name,
        f"{counted}{planned}{late} did not change by one bit {since}; {_SAID[told.reason]}{on_purpose}",
        metric=told.name,
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": f"still, {told.reason}",
            "layer": layer_of(told.name),
            "layers": some(layers, 50),
            "count": len(group),
            "of": len(moves.moved),
            "gradient": told.reason,
            "moved_before": told.moved_before,
            "rows_still": float(told.steps),
            "limit": gauge.limits.of("frozen-layer", told.name, layer_of(told.name)),
            "save": after.name,
        },
        causes=_causes(after, told.reason),
        suggestions=KINDS["frozen-layer"].suggestions,
    )


def _causes(saved: Saved, reason: _Reason) -> tuple[str, ...]:
    """The causes of a reason; a group of the optimizer whose rate is 0 comes first where there is one."""
    resolution, *others = _WHY[reason]
    rates = [value for key, value in saved.checkpoint.values.items() if _RATE.search(key)]
    if reason != "no move" or 0 not in rates:
        return (resolution, *others)
    return (f"the learning rate of their group is 0 (as that of {rates.count(0)} of {len(rates)} groups)", resolution)


def _moved_though_frozen(moves: Moves, run_name: str, meant: Meant) -> list[Finding]:
    """Parameters that the plan freezes, and that moved before the step at which they may: critical."""
    early: dict[str, int] = {}
    for name, marks in moves.moved.items():
        if meant.of(name) == "freeze":
            until = meant.begins(name)
            first = next((n for n, mark in enumerate(marks) if mark and (moves.spans[n][1].at or 0) <= until), None)
            if first is not None:
                early[name] = first
    if not early:
        return []
    told, first = min(early.items(), key=lambda one: one[1])
    before, after = moves.spans[first]
    return [
        Finding(
            "frozen-layer",
            "critical",
            run_name,
            f"{told} changed from {before.where} to {after.where}, and the plan freezes it; so did {len(early)} "
            "parameters that are to stand still",
            metric=told,
            first_step=before.at,
            last_step=moves.spans[max(early.values())][1].at,
            evidence={
                "what": "moved though frozen",
                "layer": layer_of(told),
                "layers": some(dict.fromkeys(layer_of(name) for name in early), 50),
                "count": len(early),
                "save": after.name,
            },
            causes=(
                "requires_grad was not set to False, or was set again by a later call",
                "weight decay or another optimizer moves them without a gradient",
                "the names of the plan fit more than was meant",
            ),
            suggestions=(
                "leave them out of the optimizer, and set requires_grad to False before it is made",
                "compare the names in the plan with those of the checkpoint",
            ),
        )
    ]
