"""The tables of a run, declared once: every parser ends in these columns and every analysis starts from them."""

from __future__ import annotations

import polars as pl

_Columns = dict[str, pl.DataType | type[pl.DataType]]

__all__ = ["EVENTS", "REJECTS", "SCALARS"]

#: One row a number. Rows of one series (rank, attempt, tag) stand together, in the order in which they were logged.
_SCALARS: _Columns = {
    "run": pl.String,
    "rank": pl.Int32,
    "attempt": pl.Int32,
    "step": pl.Int64,
    "epoch": pl.Float64,
    "time": pl.Datetime("us", "UTC"),
    "split": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "tag": pl.String,
}
SCALARS = pl.Schema(_SCALARS)

#: One row a structured event; `payload` is the JSON of the event as it came.
_EVENTS: _Columns = {
    "run": pl.String,
    "rank": pl.Int32,
    "attempt": pl.Int32,
    "step": pl.Int64,
    "epoch": pl.Float64,
    "time": pl.Datetime("us", "UTC"),
    "split": pl.String,
    "kind": pl.String,
    "payload": pl.String,
}
EVENTS = pl.Schema(_EVENTS)

#: One row per piece of input that could not be read. `line` counts from 1, `offset` in bytes from the start of `file`.
REJECTS = pl.Schema(
    {
        "file": pl.String,
        "line": pl.Int64,
        "offset": pl.Int64,
        "reason": pl.String,
        "text": pl.String,
    }
)
