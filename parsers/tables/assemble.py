"""The tidy table out of what was read in pieces, wide and long, without copying what can be shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from eventstream.values import plain_text
from parsers.naming.names import resolve
from parsers.schema import SCALARS
from parsers.tables.attempts import attempt_of, restarts, with_starts
from parsers.tables.constants import Constants, constant
from parsers.tables.epoch_steps import counted_over_epochs
from parsers.tables.rows import INDEX, Row, go_on, row_frame, tidy_rows

__all__ = ["INDEX", "Pieces", "completed"]

#: `named` says that the record is one number under a name, as in a file sorted by metric.
_LONG = pl.Schema({**INDEX, "tag": pl.String, "value": pl.Float64, "named": pl.Boolean})
_KEY = ["rank", "attempt", "split"]
_SERIES = ["rank", "attempt", "tag", "split"]
_TIDY = [*SCALARS.names(), "order"]
#: What a record that does not say it has; of the other columns of `INDEX` it has nothing.
_UNSAID: dict[str, Any] = {"rank": 0, "attempt": 0, "split": ""}
#: Up to this many rows in Python lists, plain loops are done before Polars has planned its queries.
FEW = 5000
#: Up to this many rows, filtering column by column costs less than a query that filters all at once.
SMALL = 10_000
#: Rows collected in Python lists before they become a table.
FLUSH = 200_000
#: A wide table may be this much larger than its numbers before it is kept long instead.
SLACK, FREE_CELLS = 4, 2_000_000
#: Beyond this many (rank, attempt, split) a wide table is kept long: one piece each would be too many.
MANY_KEYS = 256
#: A wide table of more series than this, each of no more records than that, is kept long too: a frame for each series
#: takes longer than to sort so few rows.
SHORT_SERIES, SHORT = 500, 50
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
        """Many records: `values` one column a tag, null where a record lacks it, and their `index`.

        That has the column `order`, and of the other columns of `INDEX` those that the records say: one that is missing
        is as in `add_row` with rank and attempt 0, an empty split and no step, epoch or time.
        """
        if values.width and all(c.null_count() for c in values.get_columns()):
            some = values.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
            if not some.all():
                index, values = index.filter(some), values.filter(some)
        filled = sum(len(c) - c.null_count() for c in values.get_columns())
        if values.height * values.width > SLACK * filled + FREE_CELLS:
            self._long.append(_unpivot(completed(index), values))
        elif filled:
            self._wide.append((index, values))

    def add_long(self, rows: pl.DataFrame) -> None:
        """Many numbers, one a row: the columns of `INDEX` and `tag`, `value`."""
        self._long.append(rows.with_columns(named=True).select(_LONG.names()))

    def find_attempts(self, starts: Sequence[int] = ()) -> dict[int, npt.NDArray[np.int64]]:
        """Number the attempts by where the steps of a rank go back and go on; gives what `restarts` found.

        `starts` are places (`order`) at which the log itself says that the program was started: each opens another
        attempt with the first record after it, where records stand before it.
        """
        if not starts and self._go_on():
            return {}
        rows = self._records()
        opened = restarts(rows)
        if starts:
            opened = with_starts(rows, opened, starts)
        if opened:
            self._wide = [(_numbered(completed(index), opened), values) for index, values in self._wide]
            self._long = [_numbered(rows, opened) for rows in self._long]
        return opened

    def count_over_epochs(self, *, sure: bool) -> int | None:
        """Where steps begin again with every epoch, let them count over the whole run (`parsers.tables.epoch_steps`).

        Gives how many an epoch was taken to have, None where nothing was changed.
        """
        if self._go_on():
            return None
        rows = self._records().drop_nulls("step")
        epoch = rows["epoch"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        counted = counted_over_epochs(epoch, rows["step"].to_numpy(), sure=sure)
        if counted is None:
            return None
        known = rows.select("order", _step=pl.Series(counted[0], dtype=pl.Int64))
        self._wide = [(_with_steps(completed(index), known), values) for index, values in self._wide]
        self._long = [_with_steps(long, known) for long in self._long]
        return counted[1]

    def _records(self) -> pl.DataFrame:
        """One row a record, in the order read: order, rank, step, epoch, and its tag where it is one number."""
        self._flush()
        columns = ["order", "rank", "step", "epoch"]
        records = [completed(index).select(*columns, series=pl.lit("")) for index, _ in self._wide]
        # rows of one record stand together, so its first tag stands for it
        series = pl.when("named").then("tag").otherwise(pl.lit(""))
        records += [rows.select(*columns, series=series).unique("order", keep="first") for rows in self._long]
        if not records:
            return completed(pl.DataFrame(schema={"order": pl.Int64})).select(*columns, series=pl.lit(""))
        rows = pl.concat(records)
        order = rows["order"].to_numpy()
        if not (order[1:] > order[:-1]).all():  # else each record stands once and in its place already
            rows = rows.unique("order", keep="first").sort("order")
        return rows

    def tags(self) -> set[str]:
        """Every tag that has a number so far."""
        found = {c.name for _, values in self._wide for c in values.get_columns() if c.null_count() < len(c)}
        return found.union((row[len(INDEX)] for row in self._rows), *(rows["tag"].unique() for rows in self._long))

    def _go_on(self) -> bool:
        """Whether steps go on through all that was read: then nothing was resumed, told without a table of records."""
        ends = [_ends(table) for table in (*(index for index, _ in self._wide), *self._long)]
        if self._rows:
            ends.append(list(self._rows))
        return None not in ends and go_on([end for pair in ends if pair is not None for end in pair])

    def table(self, run: str) -> pl.DataFrame:
        """All numbers in the columns of `SCALARS`, by rank, attempt, tag and split; each series in the order read."""
        run = plain_text(run)
        if not self._wide and not self._long and len(self._rows) <= FEW:
            return tidy_rows(self._rows, run, self.named)
        self._flush()
        series: dict[_Series, list[pl.DataFrame]] = {}
        for key, frame in self._wide_pieces(run):
            series.setdefault(key, []).append(frame)
        if series and not self._long and all(len(frames) == 1 for frames in series.values()):
            return pl.concat([_in_columns(frame, SCALARS) for _, (frame,) in sorted(series.items())], rechunk=False)
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
            self._long.append(row_frame(self._rows, _LONG))
            self._rows = []

    def _wide_pieces(self, run: str) -> Iterator[tuple[_Series, pl.DataFrame]]:
        """One frame a series, its step, epoch and time shared with the other series of the same records."""
        if not self._wide:
            return
        names = {name for _, values in self._wide for name in values.columns}
        records = sum(index.height for index, _ in self._wide)
        keys = set().union(*(_keys(index) for index, _ in self._wide))
        sparse = len(names) * records > SLACK * sum(v.height * v.width for _, v in self._wide) + FREE_CELLS
        if sparse or len(keys) > MANY_KEYS or (len(names) > SHORT_SERIES and records <= SHORT):
            # before those that are long already, as a wide piece of a series goes before a long one of the same record
            self._long[:0] = [_unpivot(completed(index), values) for index, values in self._wide]
            self._wide = []
            return
        index, values = self._joined(len(keys) > 1)
        alone = len(keys) == 1 and not self._long  # then no series has a second piece to be put in order with
        given = [name for name in index.columns if name not in _UNSAID and not (alone and name == "order")]
        lent = Constants()
        for rank, attempt, split in sorted(keys):
            mine, theirs = _in_columns(index, given), values
            if len(keys) > 1:
                mask = _mask(index, dict(zip(_UNSAID, (rank, attempt, split), strict=True)))
                mine, theirs = _picked(mine, mask), _picked(values, mask)
            # the longest first: what it shares with the others is then made once
            for column in sorted(theirs.get_columns(), key=pl.Series.null_count):
                if column.null_count() < len(column):
                    own, metric = self.named(column.name, split)
                    same = {
                        "run": run, "rank": rank, "attempt": attempt, "split": own, "metric": metric, "tag": column.name
                    }  # fmt: skip
                    yield (rank, attempt, column.name, own), _series(mine, column, same, lent)

    def _joined(self, keyed: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """All wide tables as one, of the index only what differs from record to record."""
        said = [name for name in INDEX if any(name in i.columns and _is_given(i[name]) for i, _ in self._wide)]
        needed = [n for n in INDEX if n in ("order", "step") or (n in said and n not in _UNSAID)]
        needed += list(_UNSAID) if keyed else []
        if len(self._wide) == 1:
            index, values = self._wide[0]
            whole = completed(index) if any(name not in index.columns for name in needed) else index
            return _in_columns(whole, needed).rechunk(), values.rechunk()
        index = pl.concat([completed(index).select(needed) for index, _ in self._wide], rechunk=True)
        return index, pl.concat([values for _, values in self._wide], how="diagonal", rechunk=True)


def completed(index: pl.DataFrame) -> pl.DataFrame:
    """The index with all columns of `INDEX`: those that are missing as the records do not say them.

    >>> completed(pl.DataFrame({"order": [1]})).row(0)
    (1, 0, 0, None, None, None, '')
    """
    if list(INDEX) == index.columns:
        return index
    return pl.DataFrame(
        [
            index[name] if name in index.columns else constant(name, dtype, _UNSAID.get(name), index.height)
            for name, dtype in INDEX.items()
        ]
    )


def _ends(table: pl.DataFrame) -> list[Row] | None:
    """First and last place and step of a table, as rows; None where one of them goes back inside."""
    ends: list[list[Any]] = [[0, 0, 0, None], [0, 0, 0, None]]
    for name, place in (("order", 0), ("step", 3)):
        if name in table.columns:
            column = table[name].drop_nulls() if table[name].null_count() else table[name]
            if not column.is_sorted():
                return None
            if len(column):
                ends[0][place], ends[1][place] = column[0], column[-1]
    return [tuple(end) for end in ends]


def _with_steps(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The rows with the steps that are known by their order."""
    joined = rows.join(known, on="order", how="left", maintain_order="left")
    return joined.with_columns(step=pl.coalesce("_step", "step")).select(rows.columns)


def _picked(frame: pl.DataFrame, mask: pl.Series) -> pl.DataFrame:
    if frame.height > SMALL:
        return frame.filter(mask)
    return pl.DataFrame([column.filter(mask) for column in frame.get_columns()])


def _mask(index: pl.DataFrame, key: dict[str, Any]) -> pl.Series:
    """Where the index has the values of `key`."""
    found = np.ones(index.height, np.bool_)
    for name, value in key.items():
        found &= (index[name] == value).to_numpy()
    return pl.Series(found)


def _in_columns(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """These columns of a table, without a query."""
    return pl.DataFrame([frame[name] for name in names])


def _is_given(column: pl.Series) -> bool:
    return column.null_count() < len(column)


def _keys(index: pl.DataFrame) -> set[tuple[int, int, str]]:
    """Every rank, attempt and split of these records."""
    said = [name for name in _UNSAID if name in index.columns]
    if not said:
        return {tuple(_UNSAID.values())}
    if index.height <= FEW:
        found = set(zip(*(index[name].to_list() for name in said), strict=True))
    else:
        found = set(index.select(said).unique().rows())
    return {tuple(({**_UNSAID, **dict(zip(said, key, strict=True))}).values()) for key in found}


def _series(index: pl.DataFrame, column: pl.Series, same: dict[str, Any], lent: Constants) -> pl.DataFrame:
    """The rows of one series: what differs from row to row is taken first, what is the `same` in all is added then."""
    frame = pl.DataFrame([*index.get_columns(), column.alias("value")])
    if column.null_count():
        frame = _picked(frame, column.is_not_null())
    height, own = frame.height, {c.name: c for c in frame.get_columns()}
    made = [
        own[name] if name in own else lent.column(name, SCALARS[name], same.get(name), height)
        for name in _TIDY
        if name in own or name != "order"
    ]
    return pl.DataFrame(made)


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
