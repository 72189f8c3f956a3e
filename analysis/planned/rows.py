"""The plan as a table: every entry with its value, where it was read, and what the log holds against it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from analysis.planned.reached import Reached
from parsers.plan import Plan

__all__ = ["FRAME", "plan_rows"]

#: Columns of `PlanResult.frame`.
FRAME = pl.Schema(
    {
        "key": pl.String,
        "value": pl.String,
        "source": pl.String,
        "understood": pl.Boolean,
        "observed": pl.String,
        "kept": pl.Boolean,
        "note": pl.String,
    }
)
#: Which analysis holds an entry against the log.
_JUDGES = {
    "lr": "see lr-schedule",
    "curriculum": "see at.curriculum",
    "loss_weights": "see at.curriculum",
    "aggregation": "see at.losses",
    "inputs": "see missing-input, forbidden-input",
    "outputs": "see missing-output",
    "trainable": "see frozen-layer",
    "freeze": "see frozen-layer",
    "unfreeze_step": "see frozen-layer",
    "clip_norm": "see clipping",
    "accumulation": "see micro-batch-steps",
}
_LENGTHS = {"max_steps": "steps", "epochs": "epochs"}


def plan_rows(plan: Plan, lengths: Sequence[Reached]) -> pl.DataFrame:
    """One row an entry: those understood in the order of the plan, then what was not understood.

    >>> plan_rows(Plan(max_steps=5, sources={"max_steps": "a.json: max_steps"}), []).row(0)
    ('max_steps', '5', 'a.json: max_steps', True, None, None, '')
    """
    rows = [*_understood(plan, {one.unit: one for one in lengths}), *_open(plan.not_understood)]
    return pl.DataFrame(rows, schema=FRAME, orient="row")


def _understood(plan: Plan, lengths: dict[str, Reached]) -> Iterator[tuple[Any, ...]]:
    for key, source in plan.sources.items():
        length = lengths.get(_LENGTHS.get(key, ""))
        observed = None if length is None else f"{length.reached:.10g}"
        kept = None if length is None else length.done and length.reached <= length.planned + length.every
        note = _JUDGES.get(key.partition(".")[0], "") if length is None else length.why
        yield key, _text(_value(plan, key)), source, True, observed, kept, note
    if plan.early_stop:
        yield "early_stop", "true", plan.early_stop, True, None, None, "the run may end before its plan on purpose"


def _value(plan: Plan, key: str) -> Any:
    first, _, rest = key.partition(".")
    if first == "curriculum":
        return [phase.name for phase in plan.phases]
    value = getattr(plan, first)
    return value.get(rest) if rest else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _open(told: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    for text in told:
        place = text.rpartition(": ")[0] if text.count(": ") == 1 else ": ".join(text.split(": ")[:2])
        key = place.rpartition(": ")[2]
        yield key, None, place, False, None, None, text
