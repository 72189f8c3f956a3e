"""Runs of a known length, for the tests of what a plan is held against."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from parsers.finish import finish
from parsers.run import Run

START = datetime(2026, 1, 5, tzinfo=UTC)
LONG_AFTER = START + timedelta(days=400)


def a_run(
    steps: Iterable[int | None],
    *,
    epochs: Iterable[float] | None = None,
    format: str = "aftertrain",
    plan: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    events: Iterable[tuple[str, int | None, dict[str, Any]]] = (),
    every_s: float | None = 2.0,
    metrics: dict[str, list[float]] | None = None,
) -> Run:
    """A loss at `steps`, one record each `every_s` seconds from `START` on, with events of kind, step and payload."""
    listed = list(steps)
    rows: dict[str, Any] = {"tag": ["loss"] * len(listed), "step": listed, "value": [1.0] * len(listed)}
    if epochs is not None:
        rows["epoch"] = list(epochs)
    if every_s is not None:
        rows["time"] = [START + timedelta(seconds=every_s * i) for i in range(len(listed))]
    table = pl.DataFrame(rows, schema_overrides={"step": pl.Int64})
    for name, values in (metrics or {}).items():
        more = pl.DataFrame({"tag": [name] * len(values), "step": listed[: len(values)], "value": values})
        table = pl.concat([table, more.cast({"step": pl.Int64})], how="diagonal")
    told = [(kind, step, json.dumps(payload)) for kind, step, payload in events]
    schema = {"kind": pl.String, "step": pl.Int64, "payload": pl.String}
    frame = pl.DataFrame(told, schema=schema, orient="row") if told else None
    return finish("r", "r", format, table, events=frame, plan=plan, config=config)
