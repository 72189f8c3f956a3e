"""Columns of one value: made once and lent to every table that needs a stretch of it."""

from __future__ import annotations

import polars as pl

__all__ = ["Constants", "constant"]


def constant(name: str, dtype: pl.DataType | type[pl.DataType], value: str | int | None, length: int) -> pl.Series:
    """A column that holds `value` in every one of `length` rows.

    >>> constant("rank", pl.Int32, 0, 3).to_list()
    [0, 0, 0]
    """
    return pl.Series(name, [value], dtype=dtype).new_from_index(0, length)


class Constants:
    """Columns by their value: ten million equal names of a run are one stretch of memory, however many series.

    >>> lent = Constants()
    >>> lent.column("split", pl.String(), "eval", 2).to_list(), lent.column("tag", pl.String(), "eval", 1).to_list()
    (['eval', 'eval'], ['eval'])
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, object], pl.Series] = {}

    def column(self, name: str, dtype: pl.DataType, value: str | int | None, length: int) -> pl.Series:
        """`length` rows of `value`: those made before where they are enough, so ask for the longest first."""
        kept = self._made.get((str(dtype), value))
        if kept is None or len(kept) < length:
            kept = self._made[str(dtype), value] = constant("", dtype, value, length)
        return kept.slice(0, length).alias(name)
