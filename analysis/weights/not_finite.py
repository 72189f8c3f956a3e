"""`checkpoint-non-finite`: weights, averages and moments that are NaN or infinite, or about to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from analysis.findings import SEVERITIES, Finding, Severity
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


@dataclass(frozen=True, slots=True)
class _Broken:
    """The tensors of one role that are not finite, by the names by which to speak of them, and how many it has."""

    role: str
    rows: list[tuple[str, dict[str, Any]]]
    of: int

    @property
    def words(self) -> str:
        return _ROLES[self.role]

    @property
    def nan(self) -> int:
        return sum(row["nan"] for _, row in self.rows)

    @property
    def infinite(self) -> int:
        return sum(row["inf"] for _, row in self.rows)

    @property
    def severity(self) -> Severity:
        return "critical" if self.nan or self.role != "optimizer" else "warning"


def not_finite(saved: Saved, run_name: str) -> list[Finding]:
    """One finding: which weights are NaN or infinite, how many, and where the first stands; averages and states too.

    One bad step takes the weights, their average and their moments: it is told of the weights, and the finding names
    the other places. Where the weights are sound it is told of the averages, then of the states.
    """
    broken = []
    for role in _ROLES:
        rows = [
            (name, row) for name, row in by_parameter(saved.rows(role)) if row["nan"] or _is_bad_infinity(name, row)
        ]
        if rows:
            broken.append(_Broken(role, rows, len(saved.rows(role))))
    return [_finding(saved, run_name, broken)] if broken else []


def _is_bad_infinity(name: str, row: dict[str, Any]) -> bool:
    """Masks hold 0 and -inf, observers and metrics begin at an infinite bound: these are as they should be."""
    if not row["inf"] or _ENDLESS.search(name):
        return False
    zeros_beside = row["inf"] < row["elements"] and not row["norm"]
    return bool(row["nan"]) or not zeros_beside


def _finding(saved: Saved, run_name: str, broken: list[_Broken]) -> Finding:
    told, *others = broken
    name, first = told.rows[0]
    held = sum(row["elements"] for _, row in told.rows)
    values = "value" if told.infinite == 1 else "values"
    counts = ((told.nan, f"{told.nan:,} NaN"), (told.infinite, f"{told.infinite:,} infinite {values}"))
    said = " and ".join(text for count, text in counts if count)
    state = f" ({first['state']})" if first["state"] else ""
    kind = KINDS["checkpoint-non-finite"]
    return Finding(
        "checkpoint-non-finite",
        max((one.severity for one in broken), key=SEVERITIES.index),
        run_name,
        f"{saved.where}: {said} in {len(told.rows)} of {told.of} tensors of the {told.words}, first in {name}{state} "
        f"({first['nan'] + first['inf']:,} of {first['elements']:,} elements){_elsewhere(told, others)}",
        metric=name,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": "not finite",
            "save": saved.name,
            "role": told.role,
            "roles": some(one.words for one in broken),
            "nan": told.nan,
            "infinite": told.infinite,
            "share": (told.nan + told.infinite) / max(held, 1),
            "tensors": len(told.rows),
            "tensors_of_role": told.of,
            "tensors_elsewhere": sum(len(one.rows) for one in others),
            "first_tensor": first["name"],
            "tensor_names": some((one for one, _ in told.rows), 8),
        },
        causes=_causes(told.nan, len(told.rows) / max(told.of, 1), kind.causes),
        suggestions=kind.suggestions,
    )


def _elsewhere(told: _Broken, others: list[_Broken]) -> str:
    """Where else it stands, and whether that is of the same parameters."""
    if not others:
        return ""
    names = {name for name, _ in told.rows}
    same = all(name in names for one in others for name, _ in one.rows)
    places = " and ".join(f"{len(one.rows)} of {one.of} tensors of the {one.words}" for one in others)
    return f"; also in {places}{', of the same parameters' if same else ''}"


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
