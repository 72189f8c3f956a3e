"""`frozen-layer` from one save: parameters of which the optimizer holds no trace of a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.findings import Finding, Severity
from analysis.gradient.scene import Meant, some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.counters import counts_of
from analysis.weights.saved import Saved, begins_at_zero, layer_of

__all__ = ["moments_of", "never_had_a_gradient", "states_by_parameter"]

#: States that are exactly 0 only where every gradient was: moments, sums of squares, momentum.
_MOMENTS = ("exp_avg", "exp_avg_sq", "square_avg", "sum", "momentum_buffer", "mu", "nu", "m", "v")
#: Share of the parameters above which moments of zero say that the optimizer was begun anew, and nothing of a layer.
_MOST = 0.5


def states_by_parameter(saved: Saved) -> dict[str, list[dict[str, Any]]]:
    """Rows of the optimizer's states by the parameter that they belong to; without those that nothing tells of."""
    weights = saved.weights
    found: dict[str, list[dict[str, Any]]] = {}
    for row in saved.rows("optimizer"):
        if row["parameter"] in weights:
            found.setdefault(row["parameter"], []).append(row)
    return found


def moments_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a parameter's states that a gradient would have moved away from zero."""
    return [row for row in rows if row["state"] in _MOMENTS and row["elements"]]


def never_had_a_gradient(saved: Saved, run_name: str, meant: Meant, gauge: Gauge) -> list[Finding]:
    """Parameters whose moments are exactly 0 after several steps, while others have had gradients.

    Their gradient was computed and was 0 at every step: the loss depends on them through a product with 0. A parameter
    that never had any gradient has no state at all, which a save between saves tells (`analysis.weights.frozen`).
    """
    states = states_by_parameter(saved)
    judged = {name: moments for name, rows in states.items() if (moments := moments_of(rows))}
    without = [name for name, rows in judged.items() if all(row["zeros"] == 1 for row in rows)]
    if not without or len(without) > _MOST * len(judged):
        return []
    steps = _steps(states, without, counts_of(saved).optimizer)
    over = [
        name
        for name in without
        if gauge.reaches("frozen-layer", steps[name], name, layer_of(name))
        # What stands behind a factor that begins at zero has no gradient until that has moved.
        and not begins_at_zero(name)
        and meant.of(name) != "freeze"
    ]
    return [_finding(saved, run_name, over, steps[over[0]], len(judged), meant, gauge)] if over else []


def _steps(states: Mapping[str, list[dict[str, Any]]], names: list[str], whole: float | None) -> dict[str, float]:
    """How often the optimizer stepped each parameter; for one without a count of its own what the others count."""
    own = {name: [row["maximum"] for row in states[name] if row["state"] == "step"] for name in names}
    return {
        name: float(counts[0]) if counts and counts[0] is not None else whole or 0.0 for name, counts in own.items()
    }


def _finding(
    saved: Saved, run_name: str, names: list[str], steps: float, judged: int, meant: Meant, gauge: Gauge
) -> Finding:
    first = names[0]
    planned = meant.of(first) == "train"
    # A bias before a normalisation, or of keys under a softmax, has a gradient of 0 by its nature.
    weights = [name for name in names if name.rpartition(".")[2] != "bias"]
    severity: Severity = "critical" if planned else "warning" if weights else "info"
    count = f"{first} has" if len(names) == 1 else f"{len(names)} parameters ({some(names, 3)}) have"
    return Finding(
        "frozen-layer",
        severity,
        run_name,
        f"{saved.where}: {count} had a gradient of exactly 0 in all {steps:,.0f} steps of the optimizer"
        f"{', and the plan says they train' if planned else ''}",
        metric=first,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": "moments of zero",
            "layer": layer_of(first),
            "layers": some(names, 50),
            "count": len(names),
            "of": judged,
            "gradient": "zero gradient",
            "rows_still": steps,
            "limit": gauge.limits.of("frozen-layer", first, layer_of(first)),
            "save": saved.name,
        },
        causes=(
            f"what lies behind them passes nothing on: both moments are 0 after {steps:,.0f} steps: dead ReLUs, a "
            "multiplication by 0, a saturated gate",
            "the loss does not depend on them (with gradients set to 0 and not to None)",
        ),
        suggestions=KINDS["frozen-layer"].suggestions,
    )
