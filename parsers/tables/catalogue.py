"""Which series a table of scalars holds, how long each is, and where its steps begin and end."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

__all__ = ["FEW", "catalogue_of", "short_catalogue"]

_KEY = ["rank", "split", "metric", "tag"]
_CATALOGUE: dict[str, pl.DataType | type[pl.DataType]] = {
    "rank": pl.Int32,
    "split": pl.String,
    "metric": pl.String,
    "tag": pl.String,
    "count": pl.Int64,
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "non_finite": pl.Int64,
}
#: Up to this many rows a plain loop is done before Polars has planned its query and woken its threads.
FEW = 1000


def catalogue_of(scalars: pl.LazyFrame) -> pl.LazyFrame:
    """One row a series: rank, split, metric, tag, count, first_step, last_step, non_finite; sorted by the first four.

    >>> from parsers.finish import finish
    >>> run = finish("a", "a.csv", "csv", pl.DataFrame({"tag": ["loss"] * 2, "step": [3, 4], "value": [1.0, None]}))
    >>> catalogue_of(run.source).select("metric", "count", "first_step", "last_step", "non_finite").collect().row(0)
    ('loss', 2, 3, 4, 0)
    """
    return (
        scalars.group_by(*_KEY)
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("step").min().alias("first_step"),
            pl.col("step").max().alias("last_step"),
            (~pl.col("value").is_finite()).sum().cast(pl.Int64).alias("non_finite"),
        )
        .sort(*_KEY)
    )


def short_catalogue(scalars: pl.DataFrame) -> pl.DataFrame | None:
    """The same of a table in memory that is short, without a query; None where it is not (`FEW`).

    >>> from parsers.finish import finish
    >>> run = finish("a", "a.csv", "csv", pl.DataFrame({"tag": ["loss"] * 2, "step": [3, 4], "value": [1.0, None]}))
    >>> short_catalogue(run.scalars).equals(catalogue_of(run.source).collect())
    True
    """
    keys = [scalars[name] for name in _KEY]
    if scalars.height > FEW or any(key.null_count() for key in keys):
        return None
    steps: dict[Any, list[Any]] = {}
    for key, step in zip(zip(*(k.to_list() for k in keys), strict=True), scalars["step"].to_list(), strict=True):
        steps.setdefault(key, []).append(step)
    odd = dict.fromkeys(steps, 0)
    for row in _odd(scalars["value"]):
        odd[tuple(key[row] for key in keys)] += 1
    rows = [(*key, *_ends(steps[key]), odd[key]) for key in sorted(steps)]
    columns = list(zip(*rows, strict=True)) or [()] * len(_CATALOGUE)
    made = zip(_CATALOGUE.items(), columns, strict=True)
    return pl.DataFrame([pl.Series(name, column, dtype=dtype) for (name, dtype), column in made])


def _odd(values: pl.Series) -> list[int]:
    """Rows that hold NaN or an infinity."""
    found: list[int] = np.flatnonzero(~np.isfinite(values.to_numpy())).tolist()
    return [row for row in found if values[row] is not None] if values.null_count() else found


def _ends(steps: list[int | None]) -> tuple[int, int | None, int | None]:
    known = [step for step in steps if step is not None]
    return len(steps), min(known, default=None), max(known, default=None)
