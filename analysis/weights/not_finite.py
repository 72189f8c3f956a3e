"""`checkpoint-non-finite`: weights, averages and moments that are NaN or infinite, or about to be."""

from __future__ import annotations

import re
from typing import Any

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.weights.saved import Saved, by_parameter
from parsers.checkpoints.tensors import DTYPES

__all__ = ["near_the_edge", "not_finite"]

#: Names of what holds infinities in health: masks, biases of attention, and bounds that begin at infinity.
_ENDLESS = re.compile(
    r"(^|[._])(\w*mask\w*|alibi\w*|slopes|attn_bias|attention_bias|rel_pos\w*|\w*bounds?|\w*limits?|(min|max)(_\w+)?"
    r"|\w+_(min|max)|min_val|max_val|best\w*|observer|masked_bias)($|[.])"
)
#: What each role is called in a sentence, in the order of weight.
_ROLES = {"weights": "weights", "ema": "averaged weights", "optimizer": "optimizer states"}
#: The largest float16 is 65504: half of it is one doubling away from infinity.
_HALF_WAY = 65504 / 2
#: Share of subnormal values from which on it is told that a type has become too coarse for what it holds.
_MANY_SUBNORMAL = 0.2


def not_finite(saved: Saved, run_name: str) -> list[Finding]:
    """A finding a role: which of its tensors hold NaN or infinities, how many, and where the first stands."""
    found = []
    for role, words in _ROLES.items():
        rows = [
            (name, row) for name, row in by_parameter(saved.rows(role)) if row["nan"] or _is_bad_infinity(name, row)
        ]
        if rows:
            found.append(_finding(saved, run_name, role, words, rows))
    return found


def _is_bad_infinity(name: str, row: dict[str, Any]) -> bool:
    """Masks hold 0 and -inf, observers and metrics begin at an infinite bound: these are as they should be."""
    if not row["inf"] or _ENDLESS.search(name):
        return False
    zeros_beside = row["inf"] < row["elements"] and not row["norm"]
    return bool(row["nan"]) or not zeros_beside


def _finding(saved: Saved, run_name: str, role: str, words: str, rows: list[tuple[str, dict[str, Any]]]) -> Finding:
    name, first = rows[0]
    nan, inf = sum(row["nan"] for _, row in rows), sum(row["inf"] for _, row in rows)
    held = sum(row["elements"] for _, row in rows)
    whole = len(saved.rows(role))
    severity: Severity = "critical" if nan or role != "optimizer" else "warning"
    said = " and ".join(text for n, text in ((nan, f"{nan:,} NaN"), (inf, f"{inf:,} infinite values")) if n)
    state = f" ({first['state']})" if first["state"] else ""
    kind = KINDS["checkpoint-non-finite"]
    return Finding(
        "checkpoint-non-finite",
        severity,
        run_name,
        f"{saved.where}: {said} in {len(rows)} of {whole} tensors of the {words}, first in {name}{state} "
        f"({first['nan'] + first['inf']:,} of {first['elements']:,} elements)",
        metric=name,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": words,
            "save": saved.name,
            "role": role,
            "nan": nan,
            "infinite": inf,
            "share": (nan + inf) / max(held, 1),
            "tensors": len(rows),
            "tensors_of_role": whole,
            "first_tensor": first["name"],
            "tensor_names": some((one for one, _ in rows), 8),
        },
        causes=_causes(nan, len(rows) / max(whole, 1), kind.causes),
        suggestions=kind.suggestions,
    )


def _causes(nan: int, share: float, causes: tuple[str, ...]) -> tuple[str, ...]:
    """One bad step takes all tensors with it; a part of them points at that part, infinities at an overflow."""
    step, part, overflow = causes[:3]
    first = (step, overflow, part) if share > 0.5 else (part, overflow, step)
    return first if nan else (overflow, part, step)


def near_the_edge(saved: Saved, run_name: str) -> list[Finding]:
    """float16 weights one doubling away from infinity (a warning), and tensors of which many values are subnormal."""
    rows = [(name, row) for name, row in by_parameter(saved.rows("weights", "ema")) if not _ENDLESS.search(name)]
    high = [(name, row) for name, row in rows if row["dtype"] == "float16" and _largest(row) > _HALF_WAY]
    coarse = [
        (name, row)
        for name, row in rows
        if DTYPES[row["dtype"]].kind == "float"
        and DTYPES[row["dtype"]].bits >= 16
        and row["elements"] >= 64
        and row["subnormals"] > _MANY_SUBNORMAL * row["elements"]
    ]
    found = [_edge(saved, run_name, high)] if high else []
    return [*found, _coarse(saved, run_name, coarse)] if coarse else found


def _largest(row: dict[str, Any]) -> float:
    """The largest size of a finite value; what is of one size alone is a mask and no weight."""
    low, high = float(row["minimum"] or 0.0), float(row["maximum"] or 0.0)
    if_all = max(-low, high) * (row["elements"] * (1 - (row["zeros"] or 0.0))) ** 0.5
    two_values = row["zeros"] and if_all <= (row["norm"] or 0.0) * 1.01
    return 0.0 if two_values else max(-low, high)


def _edge(saved: Saved, run_name: str, rows: list[tuple[str, dict[str, Any]]]) -> Finding:
    name, row = max(rows, key=lambda one: _largest(one[1]))
    kind = KINDS["checkpoint-non-finite"]
    return Finding(
        "checkpoint-non-finite",
        "warning",
        run_name,
        f"{saved.where}: {name} reaches {_largest(row):,.0f} in float16, which ends at 65,504; so do {len(rows)} "
        "tensors in all: the next doubling is infinite",
        metric=name,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": "near overflow",
            "save": saved.name,
            "largest": _largest(row),
            "highest_of_type": 65504.0,
            "tensors": len(rows),
            "tensor_names": some((one for one, _ in rows), 8),
        },
        causes=(kind.causes[2], "weights that grow without weight decay or normalisation"),
        suggestions=("keep the weights in float32 or bfloat16", "look at what the learning rate did before"),
    )


def _coarse(saved: Saved, run_name: str, rows: list[tuple[str, dict[str, Any]]]) -> Finding:
    name, row = max(rows, key=lambda one: one[1]["subnormals"] / one[1]["elements"])
    share = row["subnormals"] / row["elements"]
    return Finding(
        "checkpoint-non-finite",
        "info",
        run_name,
        f"{saved.where}: {share:.0%} of {name} is subnormal in {row['dtype']}: values so small lose their digits; "
        f"{len(rows)} such tensors in all",
        metric=name,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": "subnormal",
            "save": saved.name,
            "share": share,
            "dtype": row["dtype"],
            "tensors": len(rows),
            "tensor_names": some((one for one, _ in rows), 8),
        },
        causes=(
            "weight decay takes what no gradient holds up towards zero",
            "numbers of this size need another type, or a scale of their own",
        ),
        suggestions=("see whether the loss still depends on these weights", "save them in float32 or bfloat16"),
    )
