"""A table of many generic records at once into numbers and events, with the same outcome as record by record."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from parsers.tables.assemble import INDEX, completed
from parsers.tables.bulk import Bulk
from parsers.tables.columns import CONFIG_KEYS, NUMBER, SPLIT_WORDS, candidates, roles, timestamp
from parsers.tables.generic import Records

__all__ = ["add_bulk"]

#: Above, a float does not hold every whole number: such steps are read one by one.
_EXACT = 2.0**53


class _MixedColumnError(Exception):
    """A column that means one thing in some records and another in others; the records are then read one by one."""


def add_bulk(records: Records, bulk: Bulk) -> None:
    """Add all records of `bulk`, column by column where each column has one meaning, else record by record.

    >>> frame = pl.DataFrame({"step": [1.0, 2.0], "loss": [0.5, 0.25]})
    >>> records = Records("demo.jsonl")
    >>> add_bulk(records, Bulk(frame, np.array([1, 2])))
    >>> records.run("demo", "jsonl").series("loss")["value"].to_list()
    [0.5, 0.25]
    """
    try:
        _by_column(records, bulk)
    except _MixedColumnError:
        for line, row in zip(bulk.numbers.tolist(), bulk.frame.iter_rows(named=True), strict=True):
            records.add(line, {key: value for key, value in row.items() if value is not None})


def _by_column(records: Records, bulk: Bulk) -> None:
    frame = bulk.frame
    having = roles(frame.columns)
    for role, key in having.items():
        if len(candidates(frame.columns, role)) > 1 and frame[key].null_count() and "implied" not in having:
            raise _MixedColumnError(role)  # some records take the role from another key
    if any(name.split("/")[0] in CONFIG_KEYS for name in frame.columns):
        raise _MixedColumnError("config")
    index: dict[str, pl.Series] = {"order": pl.Series(bulk.numbers)}
    used = [having["implied"]] if "implied" in having else []
    for role, read in _READ.items():
        found = read(frame[having[role]]) if role in having else None
        if found is not None:
            index[role] = found
            used.append(having[role])
    named = having.get("run")
    if named is not None and frame[named].dtype != pl.Boolean:
        _one_run(records, frame[named])
        used.append(named)
    records.numbered |= "attempt" in index and index["attempt"].null_count() < frame.height
    rest = pl.DataFrame([column for column in frame.get_columns() if column.name not in used])
    _numbers(records, _cast(index), rest, having)


def _cast(index: dict[str, pl.Series]) -> pl.DataFrame:
    """What the records say of `INDEX`, with what single ones do not say filled as record by record."""
    default: dict[str, int | str] = {"rank": 0, "attempt": 0, "split": ""}
    columns = []
    for name, dtype in INDEX.items():
        if name in index:
            column = index[name].cast(dtype).alias(name)
            columns.append(column.fill_null(default[name]) if name in default and column.null_count() else column)
    return pl.DataFrame(columns)


def _numbers(records: Records, index: pl.DataFrame, rest: pl.DataFrame, having: dict[str, str]) -> None:
    long = "name" in having
    if long:
        name, value = rest[having["name"]], rest[having["value"]]
        if name.dtype != pl.String or value.dtype != pl.Float64 or name.null_count() or value.null_count():
            raise _MixedColumnError("name")
        rest = rest.drop(having["name"], having["value"])
    values, others = [], []
    for column in rest.get_columns():
        if column.null_count() == len(column):
            continue
        number, other = _measured(column)
        values += [number] if number is not None else []
        others += [other] if other is not None else []
    if long:
        if values or others:
            raise _MixedColumnError("name")  # other keys belong to the metric of their record
        records.pieces.add_long(completed(index).with_columns(name.alias("tag"), value.alias("value")))
        return
    wide = pl.DataFrame(values)
    if values:
        records.pieces.add_wide(index, wide)
    if others:
        _leftovers(records, completed(index), wide, pl.DataFrame(others))


def _measured(column: pl.Series) -> tuple[pl.Series | None, pl.Series | None]:
    """The numbers of a column and what in it is none."""
    if column.dtype == pl.Float64:
        return column, None
    if column.dtype != pl.String:
        return None, column
    numeric = column.str.contains(NUMBER)
    if not numeric.any():
        return None, column
    frame = pl.DataFrame({"text": column, "numeric": numeric}).select(
        pl.when("numeric").then(pl.col("text").str.strip_chars()).cast(pl.Float64).alias("number"),
        pl.when(~pl.col("numeric")).then("text").alias("other"),
    )
    other = frame["other"]
    return frame["number"].alias(column.name), other.alias(column.name) if other.null_count() < len(other) else None


def _leftovers(records: Records, index: pl.DataFrame, wide: pl.DataFrame, others: pl.DataFrame) -> None:
    alone = (
        wide.select(pl.all_horizontal(pl.all().is_null())).to_series()
        if wide.width
        else pl.Series([True] * index.height)
    )
    columns = [pl.col(c) for c in others.columns]
    changed = others.select(pl.any_horizontal(c.ne_missing(c.shift()) for c in columns)).to_series()
    present = others.select(pl.any_horizontal(c.is_not_null() for c in columns)).to_series()
    # the first row is compared with what came before by `leftover`, and so is the first of another rank
    rank = index["rank"]
    keep = present & (changed | alone | (pl.Series(np.arange(index.height)) == 0) | rank.ne_missing(rank.shift()))
    places = index.filter(keep).with_columns(pl.col("time").cast(pl.Int64))
    for row, found, only in zip(
        places.iter_rows(), others.filter(keep).iter_rows(named=True), alone.filter(keep), strict=True
    ):
        payload = {key: value for key, value in found.items() if value is not None}
        records.leftover(row, payload, repeat=bool(only))


def _whole(column: pl.Series) -> pl.Series | None:
    if column.dtype == pl.Int64:  # read as whole numbers that a float holds
        return column
    if column.dtype != pl.Float64:
        raise _MixedColumnError(column.name)
    values = column.to_numpy()  # NaN where there is none: neither is whole
    whole = np.count_nonzero((values == np.floor(values)) & (np.abs(values) <= _EXACT))
    if whole != len(column) - column.null_count():
        raise _MixedColumnError(column.name)
    return column.cast(pl.Int64)


def _rank(column: pl.Series) -> pl.Series | None:
    whole = _whole(column)
    if whole is None or not whole.drop_nulls().is_between(0, 2**31 - 1).all():
        raise _MixedColumnError(column.name)
    return whole.cast(pl.Int32)


def _epoch(column: pl.Series) -> pl.Series | None:
    if column.dtype == pl.Boolean:
        return None
    if column.dtype != pl.Float64:
        raise _MixedColumnError(column.name)
    return column


def _time(column: pl.Series) -> pl.Series | None:
    if column.dtype == pl.Boolean:
        return None
    if column.dtype == pl.Float64 and column.drop_nulls().is_between(1e9, 2e9).all():
        seconds = column  # the common case: seconds between 2001 and 2033
    else:
        seconds = pl.Series([None if v is None else timestamp(v) for v in column], dtype=pl.Float64)
    missing = seconds.null_count() - column.null_count()
    if 0 < missing == len(column) - column.null_count():
        return None  # durations or words: a column as any other
    if missing:
        raise _MixedColumnError(column.name)
    return (seconds * 1e6).round().cast(pl.Int64).cast(INDEX["time"])


def _split(column: pl.Series) -> pl.Series | None:
    if column.dtype != pl.String:
        return None
    words = [word.lower() in SPLIT_WORDS for word in column.drop_nulls().unique()]
    if any(words) and not all(words):
        raise _MixedColumnError(column.name)
    return column if all(words) else None


def _one_run(records: Records, column: pl.Series) -> None:
    names = column.unique(maintain_order=True).to_list()
    if len(names) != 1 or column.dtype != pl.String or records.named not in (None, names[0]):
        raise _MixedColumnError(column.name)
    records.named = names[0]


_READ: dict[str, Callable[[pl.Series], pl.Series | None]] = {
    "step": _whole,
    "epoch": _epoch,
    "time": _time,
    "split": _split,
    "rank": _rank,
    "attempt": _rank,
}
