"""The tidy table out of what was read in pieces, wide and long, without copying what can be shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.attempts import attempt_of, restarts
from parsers.names import resolve
from parsers.schema import SCALARS

__all__ = ["INDEX", "Pieces"]

#: What stands beside the numbers of a record; `order` is the place of the record among all that were read.
INDEX: dict[str, pl.DataType | type[pl.DataType]] = {
    "order": pl.Int64,
    "rank": pl.Int32,
    "attempt": pl.Int32,
    "step": pl.Int64,
    "epoch": pl.Float64,
    "time": pl.Datetime("us", "UTC"),
    "split": pl.String,
}
#: `named` says that the record is one number under a name, as in a file sorted by metric.
_LONG = pl.Schema({**INDEX, "tag": pl.String, "value": pl.Float64, "named": pl.Boolean})
_KEY = ["rank", "attempt", "split"]
_SERIES = ["rank", "attempt", "tag", "split"]
_TIDY = [*SCALARS.names(), "order"]
#: Rows collected in Python lists before they become a table.
FLUSH = 200_000
#: A wide table may be this much larger than its numbers before it is kept long instead.
SLACK, FREE_CELLS = 4, 2_000_000
#: Beyond this many (rank, attempt, split) a wide table is kept long: one piece each would be too many.
MANY_KEYS = 256
#: Beyond this many series of the long form, all is sorted as one table.
MANY_SERIES = 1000

_Series = tuple[int, int, str, str]  # rank, attempt, tag, split


@dataclass(slots=True)
class Pieces:
    """What a parser has read so far; `table` makes one tidy frame of it.

    >>> pieces = Pieces()
    >>> pieces.add_row((0, 0, 0, 1, None, None, ""), "loss", 2.5)
    >>> pieces.table("demo").select("step", "metric", "value").row(0)
    (1, 'loss', 2.5)
    """

    #: Split and metric of a tag and the split of its record; a format that has names of its own gives another.
    named: Callable[[str, str], tuple[str, str]] = resolve
    _wide: list[tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=list)
    _long: list[pl.DataFrame] = field(default_factory=list)
    _rows: list[tuple[Any, ...]] = field(default_factory=list)

    def add_row(self, index: tuple[Any, ...], tag: str, value: float, *, named: bool = False) -> None:
        """One number: `index` in the order of `INDEX`, the time in microseconds since 1970."""
        self._rows.append((*index, tag, value, named))
        if len(self._rows) >= FLUSH:
            self._flush()

    def add_wide(self, index: pl.DataFrame, values: pl.DataFrame) -> None:
        """Many records: `index` in the columns of `INDEX`, `values` one column a tag, null where a record lacks it."""
        if values.width and all(c.null_count() for c in values.get_columns()):
            some = values.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
            if not some.all():
                index, values = index.filter(some), values.filter(some)
        filled = sum(len(c) - c.null_count() for c in values.get_columns())
        if values.height * values.width > SLACK * filled + FREE_CELLS:
            self._long.append(_unpivot(index, values))
        elif filled:
            self._wide.append((index, values))

    def add_long(self, rows: pl.DataFrame) -> None:
        """Many numbers, one a row: the columns of `INDEX` and `tag`, `value`."""
        self._long.append(rows.with_columns(named=True).select(_LONG.names()))

    def find_attempts(self) -> dict[int, npt.NDArray[np.int64]]:
        """Number the attempts by where the steps of a rank go back and go on; gives what `restarts` found."""
        self._flush()
        columns = ["order", "rank", "step", "epoch"]
        records = [index.select(*columns, series=pl.lit("")) for index, _ in self._wide]
        # rows of one record stand together, so its first tag stands for it
        series = pl.when("named").then("tag").otherwise(pl.lit(""))
        records += [rows.select(*columns, series=series).unique("order", keep="first") for rows in self._long]
        if not records:
            return {}
        rows = pl.concat(records)
        order = rows["order"].to_numpy()
        if not (order[1:] > order[:-1]).all():  # else each record stands once and in its place already
            rows = rows.unique("order", keep="first").sort("order")
        opened = restarts(rows)
        if opened:
            self._wide = [(_numbered(index, opened), values) for index, values in self._wide]
            self._long = [_numbered(rows, opened) for rows in self._long]
        return opened

    def tags(self) -> set[str]:
        """Every tag that has a number so far."""
        self._flush()
        found = {c.name for _, values in self._wide for c in values.get_columns() if c.null_count() < len(c)}
        return found.union(*(rows["tag"].unique().to_list() for rows in self._long))

    def table(self, run: str) -> pl.DataFrame:
        """All numbers in the columns of `SCALARS`, by rank, attempt, tag and split; each series in the order read."""
        self._flush()
        series: dict[_Series, list[pl.DataFrame]] = {}
        for key, frame in self._wide_pieces(run):
            series.setdefault(key, []).append(frame)
        long = _tidy(pl.concat(self._long), run, self.named) if self._long else _empty()
        if not series:
            return long.select(SCALARS.names())
        stretches = [] if long.is_empty() else _stretches(long)
        if len(stretches) > MANY_SERIES:
            everything = pl.concat([long, *(frame for frames in series.values() for frame in frames)])
            return everything.sort(*_SERIES, "order", maintain_order=True).select(SCALARS.names())
        for key, offset, length in stretches:
            series.setdefault(key, []).append(long.slice(offset, length))
        joined = [frames[0] if len(frames) == 1 else pl.concat(frames).sort("order", maintain_order=True)
                  for _, frames in sorted(series.items())]  # fmt: skip
        return pl.concat([frame.select(SCALARS.names()) for frame in joined], rechunk=False)

    def _flush(self) -> None:
        if self._rows:
            frame = pl.DataFrame(self._rows, schema=_LONG, schema_overrides={"time": pl.Int64}, orient="row")
            self._long.append(frame.with_columns(pl.col("time").cast(INDEX["time"])))
            self._rows = []

    def _wide_pieces(self, run: str) -> Iterator[tuple[_Series, pl.DataFrame]]:
        """One frame a series, its step, epoch and time shared with the other series of the same records."""
        if not self._wide:
            return
        names = {name for _, values in self._wide for name in values.columns}
        cells = len(names) * sum(index.height for index, _ in self._wide)
        keys = pl.concat([_keys(index) for index, _ in self._wide]).unique()
        if cells > SLACK * sum(v.height * v.width for _, v in self._wide) + FREE_CELLS or keys.height > MANY_KEYS:
            self._long += [_unpivot(index, values) for index, values in self._wide]
            self._wide = []
            return
        given = [
            "order",
            "step",
            *(c for c in ("epoch", "time") if any(_is_given(index[c]) for index, _ in self._wide)),
        ]
        needed = given if keys.height == 1 else [*given, *_KEY]
        index = pl.concat([index.select(needed) for index, _ in self._wide], rechunk=True)
        values = pl.concat([values for _, values in self._wide], how="diagonal", rechunk=True)
        for rank, attempt, split in keys.sort(_KEY).iter_rows():
            mine, theirs = index, values
            if keys.height > 1:
                mask = index.select(
                    (pl.col("rank") == rank) & (pl.col("attempt") == attempt) & (pl.col("split") == split)
                ).to_series()
                mine, theirs = index.filter(mask), values.filter(mask)
            for tag in theirs.columns:
                column = theirs[tag]
                if column.null_count() < len(column):
                    own, metric = self.named(tag, split)
                    same = {"run": run, "rank": rank, "attempt": attempt, "split": own, "metric": metric, "tag": tag}
                    yield (rank, attempt, tag, own), _series(mine.select(given), column, same)


def _is_given(column: pl.Series) -> bool:
    return column.null_count() < len(column)


def _keys(index: pl.DataFrame) -> pl.DataFrame:
    """Every rank, attempt and split of these records; most often there is one, which is told without hashing."""
    keys = index.select(_KEY)
    if (
        keys.height
        and keys.select(pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).first()).all() for c in _KEY)).item()
    ):
        return keys.head(1)
    return keys.unique(maintain_order=True)


def _series(index: pl.DataFrame, column: pl.Series, same: dict[str, Any]) -> pl.DataFrame:
    """The rows of one series: what differs from row to row is taken first, what is the `same` in all is added then."""
    frame = index.with_columns(column.alias("value"))
    if column.null_count():
        frame = frame.filter(pl.col("value").is_not_null())
    missing = dict.fromkeys(INDEX.keys() - frame.columns - same.keys())
    return frame.with_columns(
        pl.lit(value, dtype=SCALARS[name]).alias(name) for name, value in {**same, **missing}.items()
    ).select(_TIDY)


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema={**SCALARS, "order": pl.Int64()}).select(_TIDY)


def _stretches(long: pl.DataFrame) -> list[tuple[_Series, int, int]]:
    """Key, offset and length of each series of a sorted table."""
    counts = long.group_by(_SERIES, maintain_order=True).len()
    ends = counts["len"].cum_sum()
    return [(row[:4], end - row[4], row[4]) for row, end in zip(counts.iter_rows(), ends, strict=True)]


def _unpivot(index: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    # the values under names that no tag can clash with the index by
    both = index.hstack([c.alias(f"={c.name}") for c in values.get_columns()])
    rows = both.unpivot(index=list(INDEX), variable_name="tag").drop_nulls("value")
    return rows.with_columns(pl.col("tag").str.slice(1), named=False).select(_LONG.names())


def _numbered(frame: pl.DataFrame, opened: Any) -> pl.DataFrame:
    attempt = attempt_of(frame["rank"].to_numpy(), frame["order"].to_numpy(), opened)
    return frame.with_columns(pl.Series("attempt", attempt))


def _tidy(long: pl.DataFrame, run: str, named: Callable[[str, str], tuple[str, str]]) -> pl.DataFrame:
    pairs = long.select("tag", "split").unique()
    names = [named(tag, split) for tag, split in pairs.iter_rows()]
    own, metric = (pl.Series(column, [n[i] for n in names], pl.String) for i, column in enumerate(("_own", "metric")))
    joined = long.join(pairs.with_columns(own, metric), on=["tag", "split"], how="left", maintain_order="left")
    tidy = joined.with_columns(pl.lit(run).alias("run"), pl.col("_own").alias("split")).select(_TIDY)
    return tidy.sort(*_SERIES, "order", maintain_order=True)
