"""Runs made of columns, for the tests of hidden facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.findings import Finding
from analysis.hidden_facts import hidden_facts
from parsers.finish import finish
from parsers.run import Run

Column = Sequence[float] | np.ndarray[Any, Any]


def run_of(
    columns: Mapping[str, Column | tuple[Column, Column]],
    *,
    format: str = "jsonl",
    epochs: Column | None = None,
    steps: bool = True,
    config: Mapping[str, Any] | None = None,
) -> Run:
    """A run with one series a column: values at steps 0, 1, 2 ..., or a pair of steps and values."""
    parts = []
    for tag, column in columns.items():
        at, values = column if isinstance(column, tuple) else (range(len(column)), column)
        part = {"tag": tag, "step": list(at), "value": np.asarray(values, float)}
        frame = pl.DataFrame(part, schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64})
        if epochs is not None:
            frame = frame.with_columns(epoch=pl.Series(np.asarray(epochs, float)[: frame.height]))
        parts.append(frame if steps else frame.with_columns(step=pl.lit(None, pl.Int64)))
    rows = pl.concat(parts, how="diagonal") if parts else None
    return finish("r", "r.jsonl", format, rows, config=config)


def found(run: Run, kind: str) -> Finding | None:
    """The finding of a kind, or None."""
    return next((f for f in hidden_facts(run).findings if f.kind == kind), None)


def decay(n: int, rng: np.random.Generator, *, noise: float = 0.08) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A healthy loss of n points."""
    return (2 * np.exp(-4 * np.arange(n) / n) + 0.4) * np.exp(noise * rng.standard_normal(n))
