"""Tensors of one save that stand out from their like: never begun, or of another size than layers named alike."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from statistics import median
from typing import Any

from analysis.findings import Finding
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.saved import Saved, begins_at_zero, is_buffer, layer_of

__all__ = ["all_zero", "out_of_line"]

_NUMBER = re.compile(r"\d+")
#: Layers that are alike but for their number, from which on one of them can stand out.
_STACK = 4


def all_zero(saved: Saved, run_name: str) -> list[Finding]:
    """Matrices that are 0 in every element, but for a save of step 0: information, `dead-units`."""
    rows = [
        row
        for row in saved.rows("weights")
        if len(row["shape"]) >= 2
        and row["elements"] > 1
        and row["zeros"] == 1
        and not is_buffer(row["parameter"])
        and not begins_at_zero(row["parameter"])
    ]
    if not rows or saved.at == 0:
        return []
    name = rows[0]["parameter"]
    return [
        Finding(
            "dead-units",
            "info",
            run_name,
            f"{saved.where}: {name} is 0 in all {rows[0]['elements']:,} elements"
            + (f"; {len(rows)} such matrices in all" if len(rows) > 1 else ""),
            metric=name,
            first_step=saved.at,
            last_step=saved.at,
            evidence={
                "what": "all zero",
                "layer": layer_of(name),
                "share": 1.0,
                "limit": 1.0,
                "layers": len(rows),
                "tensor_names": some((row["parameter"] for row in rows), 8),
                "save": saved.name,
            },
            causes=(
                "it was never begun (an empty or zero initialisation), and nothing has moved it since",
                "it begins at zero on purpose, and what lies before or behind it is 0 as well",
            ),
            suggestions=("look at how it is initialised", *KINDS["dead-units"].suggestions[-1:]),
        )
    ]


def out_of_line(saved: Saved, run_name: str, gauge: Gauge) -> list[Finding]:
    """Matrices whose norm is far from that of the layers named alike but for a number: information, `weight-drift`."""
    stacks: dict[tuple[str, tuple[int, ...]], list[dict[str, Any]]] = defaultdict(list)
    for row in saved.rows("weights"):
        if len(row["shape"]) >= 2 and row["norm"] and math.isfinite(row["norm"]) and not is_buffer(row["parameter"]):
            stacks[_NUMBER.sub("#", row["parameter"]), tuple(row["shape"])].append(row)
    apart: list[tuple[float, dict[str, Any], float]] = []
    for rows in stacks.values():
        if len(rows) < _STACK:
            continue
        usual = median(row["norm"] for row in rows)
        spread = median(abs(math.log(row["norm"] / usual)) for row in rows)
        for row in rows:
            times = math.exp(abs(math.log(row["norm"] / usual)))
            name = row["parameter"]
            far = abs(math.log(row["norm"] / usual)) >= 6 * 1.4826 * spread
            if times >= gauge.limits.of("weight-drift", name, layer_of(name)) and far:
                apart.append((times, row, usual))
    return [_finding(saved, run_name, apart, gauge)] if apart else []


def _finding(saved: Saved, run_name: str, apart: list[tuple[float, dict[str, Any], float]], gauge: Gauge) -> Finding:
    times, row, usual = max(apart, key=lambda one: one[0])
    name, way = row["parameter"], "larger" if row["norm"] > usual else "smaller"
    return Finding(
        "weight-drift",
        "info",
        run_name,
        f"{saved.where}: the norm of {name} is {row['norm']:.3g}, {times:.3g} times {way} than that of the layers "
        f"named alike ({usual:.3g})",
        metric=name,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": f"norm of {layer_of(name)}",
            "layer": layer_of(name),
            "times": times,
            "norm": row["norm"],
            "norm_of_others": usual,
            "layers": len(apart),
            "limit": gauge.limits.of("weight-drift", name, layer_of(name)),
            "save": saved.name,
        },
        causes=("the layer learns at another rate, or from another initialisation, than its like",),
        suggestions=KINDS["weight-drift"].suggestions,
    )
