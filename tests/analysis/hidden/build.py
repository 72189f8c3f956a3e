"""Runs made of columns, for the tests of hidden facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.findings import Finding
from analysis.hidden.carried import stale_values
from analysis.hidden.epochs import epoch_only
from analysis.hidden.hidden_nan import hidden_nan
from analysis.hidden.micro_batches import micro_batches
from analysis.hidden.sampled import SIZES, sampled_series
from parsers.finish import finish
from parsers.run import Run

JUDGES = {
    "hidden-non-finite": hidden_nan,
    "stale-values": stale_values,
    "sampled-series": lambda run: sampled_series(run, tuple(SIZES)),
    "micro-batch-steps": micro_batches,
    "epoch-only": epoch_only,
}
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
    """The finding of a kind, or None, by the one judge of that kind: hundreds of planted runs need not ask all five."""
    facts = JUDGES[kind](run)
    return None if isinstance(facts, str) else next((f.finding for f in facts if f.finding is not None), None)


def decay(n: int, rng: np.random.Generator, *, noise: float = 0.08) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A healthy loss of n points."""
    return (2 * np.exp(-4 * np.arange(n) / n) + 0.4) * np.exp(noise * rng.standard_normal(n))
