"""Frames of many rows of which some columns hold lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

__all__ = ["frame_of_rows"]


def frame_of_rows(rows: Iterable[Sequence[object]], schema: pl.Schema) -> pl.DataFrame:
    """One row for each of `rows`, whose values stand in the order of `schema`; lists are of numbers.

    Polars makes a series of every list that it is given, which takes longer than all other columns together; their
    text it reads at once.

    >>> schema = pl.Schema({"name": pl.String(), "shape": pl.List(pl.Int64())})
    >>> frame_of_rows([("w", [2, 3]), ("b", None)], schema).rows()
    [('w', [2, 3]), ('b', None)]
    """
    listed = {name: kind for name, kind in schema.items() if isinstance(kind, pl.List)}
    places = {place for place, name in enumerate(schema) if name in listed}
    texts = (
        tuple(str(value) if place in places and value is not None else value for place, value in enumerate(row))
        for row in rows
    )
    plain = {name: pl.String() if name in listed else kind for name, kind in schema.items()}
    frame = pl.DataFrame(list(texts), schema=plain, orient="row")
    return frame.with_columns(pl.col(name).str.json_decode(kind) for name, kind in listed.items())
