"""The rows of events as the table of a run."""

from __future__ import annotations

from typing import Any

import polars as pl

from parsers.assemble import INDEX

__all__ = ["event_frame"]

_EVENT: dict[str, pl.DataType | type[pl.DataType]] = {**INDEX, "kind": pl.String, "payload": pl.String}


def event_frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of order, rank, attempt, step, epoch, time (microseconds since 1970), split, kind and payload as a table.

    >>> event_frame([(0, 0, 0, 5, None, 1_700_000_000_000_000, "", "note", '{"text":"hi"}')])["kind"].to_list()
    ['note']
    """
    frame = pl.DataFrame(rows, schema=_EVENT, schema_overrides={"time": pl.Int64}, orient="row")
    return frame.with_columns(pl.col("time").cast(INDEX["time"]))
