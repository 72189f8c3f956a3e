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
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    found = []
    for (name, kind), values in zip(schema.items(), columns, strict=True):
        texts = [None if value is None else str(value) for value in values] if name in listed else values
        found.append(pl.Series(name, texts, pl.String() if name in listed else kind))
    return pl.DataFrame(found).with_columns(pl.col(name).str.json_decode(kind) for name, kind in listed.items())
