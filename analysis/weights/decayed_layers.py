"""`frozen-layer`: whole matrices that only weight decay moves, because no gradient reaches them any more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import polars as pl

from analysis.findings import Finding
from analysis.gradient.scene import Meant, some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.moves import steps_between
from analysis.weights.only_decayed import decays, is_decay, noise_of
from analysis.weights.optimizer_states import moments_of, states_by_parameter
from analysis.weights.saved import Saved, begins_at_zero, is_buffer, layer_of

__all__ = ["decayed_layers"]

#: Smaller matrices may keep their direction by chance.
_FEWEST = 64
#: What others changed their direction by at least, in times what rounding explains.
_TURNED = 30.0


def decayed_layers(
    saves: Sequence[Saved], differences: Sequence[pl.DataFrame], run_name: str, meant: Meant, gauge: Gauge
) -> list[Finding]:
    """Matrices that keep their direction and shrink over the last intervals, while others learn: a warning.

    What is frozen (`requires_grad` is False) is not decayed by torch's optimizers: what is decayed has a gradient, of
    exactly 0. Critical where the plan says that a layer trains; what it freezes is told as moved though frozen, and
    moments that were 0 from the beginning by themselves.
    """
    found = _until_the_end(saves, differences)
    without = _never_had_a_gradient(saves[-1])
    over = [
        name
        for name in saves[-1].weights  # in the model's order
        if name in found
        and name not in without
        and meant.of(name) != "freeze"
        and not begins_at_zero(name)
        and gauge.reaches("frozen-layer", _steps(saves, found[name].first), name, layer_of(name))
    ]
    return [_finding(saves, {name: found[name] for name in over}, run_name, meant, gauge)] if over else []


@dataclass(frozen=True, slots=True)
class _Decay:
    """Since which save a matrix only decays, and by which factor it has shrunk since."""

    first: int
    factor: float


def _until_the_end(saves: Sequence[Saved], differences: Sequence[pl.DataFrame]) -> dict[str, _Decay]:
    """The matrices that only decay in the last interval, and in how many before it without a break."""
    found: dict[str, _Decay] = {}
    for n in reversed(range(len(differences))):
        factors = _only_decayed(saves[n], saves[n + 1], differences[n])
        if n == len(differences) - 1:
            found = dict.fromkeys(factors, _Decay(n + 1, 1.0))
        on = [name for name in factors if name in found and found[name].first == n + 1]
        if not on:
            break
        found |= {name: _Decay(n, found[name].factor * factors[name]) for name in on}
    return found


def _never_had_a_gradient(saved: Saved) -> set[str]:
    """Parameters whose moments are exactly 0, which one save tells by itself."""
    states = {name: moments_of(rows) for name, rows in states_by_parameter(saved).items()}
    return {name for name, moments in states.items() if moments and all(row["zeros"] == 1 for row in moments)}


def _steps(saves: Sequence[Saved], first: int) -> float:
    """Steps from a save to the last one; 1 for an interval whose steps are not known."""
    return float(sum(steps_between(saves[n], saves[n + 1]) or 1 for n in range(first, len(saves) - 1)))


def _only_decayed(before: Saved, after: Saved, frame: pl.DataFrame) -> dict[str, float]:
    """The matrices that only shrank from one save to the next, by the factor; none where nothing else learned."""
    if not decays(after):
        return {}
    steps = steps_between(before, after)
    factors, turned = {}, []
    for row in frame.to_dicts():
        if not _is_judged(row):
            continue
        size, off = math.prod(row["shape_a"]), _off(row)
        factor = row["cosine"] * row["norm_b"] / row["norm_a"]
        if not is_decay(factor, off, elements=size, dtype=row["dtype_a"], steps=steps):
            turned.append(off / noise_of(row["dtype_a"], steps, size))
        elif len(row["shape_a"]) >= 2 and size >= _FEWEST:
            factors[row["parameter"]] = factor
    return factors if turned and median(turned) >= _TURNED else {}


def _is_judged(row: Mapping[str, Any]) -> bool:
    known = row["status"] == "changed" and row["cosine"] is not None and row["norm_a"]
    sound = known and not (row["nan_a"] or row["nan_b"] or row["inf_a"] or row["inf_b"])
    return bool(
        sound and noise_of(row["dtype_a"], 0, 1) and math.prod(row["shape_a"]) > 1 and not is_buffer(row["parameter"])
    )


def _off(row: Mapping[str, Any]) -> float:
    """What of the change is not along the weights, as a share of their norm; rounding of sums hides less than 1e-7."""
    return float(row["norm_b"] / row["norm_a"] * math.sqrt(max(1.0 - row["cosine"] ** 2, 0.0)))


def _finding(
    saves: Sequence[Saved],
    over: Mapping[str, _Decay],
    run_name: str,
    meant: Meant,
    gauge: Gauge,
) -> Finding:
    planned = [one for one in over if meant.of(one) == "train"]
    name = (planned or list(over))[0]
    decay, last = over[name], saves[-1]
    first = saves[decay.first]
    layers = list(dict.fromkeys(layer_of(one) for one in over))
    many = f"{name} and {len(over) - 1} more matrices ({some(layers, 3)})" if len(over) > 1 else name
    meaning = ", which the plan says train," if planned else ""
    return Finding(
        "frozen-layer",
        "critical" if planned else "warning",
        run_name,
        f"from {first.where} to {last.where} only weight decay moved {many}{meaning}: the direction did not change, "
        f"and {1 - decay.factor:.2%} of the norm is gone; no gradient reaches it",
        metric=name,
        first_step=first.at,
        last_step=last.at,
        evidence={
            "what": "still, but for weight decay",
            "layer": layer_of(name),
            "layers": some(layers, 50),
            "count": len(over),
            "gradient": "zero gradient",
            "rows_still": _steps(saves, decay.first),
            "factor": decay.factor,
            "limit": gauge.limits.of("frozen-layer", name, layer_of(name)),
            "save": last.name,
        },
        causes=(
            "what lies behind passes nothing on: a layer all of whose ReLUs are dead, a multiplication by 0",
            "frozen after the training began, with gradients that stay 0 and are not None: the optimizer decays them",
            "the loss does not depend on them, and the optimizer is given gradients of 0",
        ),
        suggestions=(
            "look at the activations of the layers behind, and go back to a save before they died",
            "leave what is frozen out of the optimizer, or set its gradients to None",
            *KINDS["frozen-layer"].suggestions[:1],
        ),
    )
