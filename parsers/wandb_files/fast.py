"""Many records of a `.wandb` file at once: what the compiled walk found as tables, the other records one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.content.protobuf import fields, text
from parsers.tables.assemble import INDEX
from parsers.wandb_files import kernel
from parsers.wandb_files.log import Batch
from parsers.wandb_files.records import EPOCH, HISTORY, OWN, RUNTIME, STEP, SUMMARY, TIME, Reader

__all__ = ["add_batch"]

#: An item takes at least this many bytes: header, length, name and number, each with header and length.
SMALLEST = 8
#: 1990 to 2100 in seconds since 1970, as `parsers.tables.columns.timestamp` takes a number for seconds.
_YEARS = (631_152_000.0, 4_102_444_800.0)
_EXACT = 2.0**53

#: The header of a summary in a record; other records may hold these bytes too, which then costs a moment.
SUMMARY_HEADER = bytes([SUMMARY << 3 | 2])
#: A table of history may have this many times more cells than numbers, and `FREE` besides.
SPARSE, FREE = 8, 2_000_000

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Taken:
    """The items of one kind of record: places of the records in the batch, name numbers and values."""

    record: _Ints
    name: _Ints
    value: _Floats


def add_batch(reader: Reader, batch: Batch) -> None:
    """Add records, with the same outcome as `Reader.add` of each.

    Only the last value of each name in the summary is read: damage of one that was replaced is not told.
    """
    records, items, names, values = _walk(batch.joined, batch.ends)
    base = reader.order + 1
    kinds = records[items[:, 0], 0] if len(items) else items[:, 0]
    history = items[kinds == HISTORY]
    taken = _Taken(history[:, 0], history[:, 1], np.empty(0) if values is None else values)
    placed = None if values is None else _placed(records, taken, names)
    if placed is None:
        for offset, data in batch:
            reader.add(offset, data)
        return
    index, number = placed
    index = index.with_columns(pl.col("order") + base)
    _add_history(reader, index, taken, number)
    summary = _Summary(items[kinds == SUMMARY], names, batch)
    _one_by_one(reader, batch, records, index, lambda start, end: summary.apply(reader, start, end))


def _walk(data: npt.NDArray[np.uint8], ends: _Ints) -> tuple[_Ints, _Ints, list[tuple[str, ...]], _Floats | None]:
    """Kind and step of each record, record and name of each item, the names, and the numbers (None where some fail)."""
    room = len(data) // SMALLEST + 1
    where = np.empty((kernel.KEYS, 2), np.int64)
    keys = np.full(kernel.SLOTS, -1, np.int64), np.empty(kernel.KEYS, np.uint64), where
    records, items = np.empty((len(ends), 2), np.int64), np.empty((room, 4), np.int64)
    written, offsets = np.empty(len(data), np.uint8), np.zeros(room + 1, np.int64)
    usual = np.full((2, kernel.USUAL), -1, np.int64)
    count, known, used, valued, odd = kernel.walk(data, ends, records, (keys, items, written, offsets, usual))
    paths = [_path(data[start : start + size].tobytes()) for start, size in where[:known].tolist()]
    return records, items[:count], paths, None if odd else _numbers(written[:used], offsets[: valued + 1])


def _path(header: bytes) -> tuple[str, ...]:
    return tuple(text(content) for _, content in fields(header))


def _numbers(written: npt.NDArray[np.uint8], offsets: _Ints) -> _Floats | None:
    """JSON numbers as floats; None where one of them is none."""
    import pyarrow as pa

    count = len(offsets) - 1
    if not count:
        return np.empty(0)
    texts = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(written))
    values = pl.Series(pl.from_arrow(texts)).cast(pl.Float64, strict=False)
    return None if values.null_count() else values.to_numpy()


def _placed(
    records: _Ints, history: _Taken, names: list[tuple[str, ...]]
) -> tuple[pl.DataFrame, dict[str, int]] | None:
    """One row for each step of history, in the columns of `INDEX` with the place in the batch as order.

    Then the number of each name that the history has. None where something about a place is out of the ordinary
    (a step that is no whole number, a time that is none): then the records are read one by one.
    """
    tags = [".".join(path) for path in names]
    number = {tag: i for i, tag in enumerate(tags)}
    if len(number) < len(tags):
        return None  # two paths with one name, of which the last in its record counts
    rows = np.flatnonzero(records[:, 0] == HISTORY)
    place = {key: _spread(history, number.get(key), len(records)) for key in (STEP, TIME, EPOCH)}
    if any(values is None for values in place.values()):
        return None
    step, time, epoch = (place[key][rows] for key in (STEP, TIME, EPOCH))  # type: ignore[index]
    told = time[~np.isnan(time)]
    if ((step != np.floor(step)) & ~np.isnan(step)).any() or (np.abs(step) >= _EXACT).any():
        return None
    if ((told < _YEARS[0]) | (told >= _YEARS[1])).any():
        return None
    counted = records[rows, 1]
    step = np.where(np.isnan(step), np.where(counted < 0, np.nan, counted), step)
    frame = pl.DataFrame({"order": rows, "step": step, "epoch": epoch, "time": np.rint(time * 1e6)})
    frame = frame.with_columns(pl.col("step", "epoch", "time").fill_nan(None))
    return frame.select(
        "order",
        pl.lit(0, pl.Int32).alias("rank"),
        pl.lit(0, pl.Int32).alias("attempt"),
        pl.col("step").cast(pl.Int64),
        "epoch",
        pl.col("time").cast(pl.Int64).cast(INDEX["time"]),
        pl.lit("").alias("split"),
    ), number


def _spread(taken: _Taken, name: int | None, count: int) -> _Floats | None:
    """The value of one name in each record, NaN where it has none; None where a value itself is not finite."""
    found = np.full(count, np.nan)
    if name is not None:
        mine = taken.name == name
        if not np.isfinite(taken.value[mine]).all():
            return None
        found[taken.record[mine]] = taken.value[mine]
    return found


def _add_history(reader: Reader, index: pl.DataFrame, taken: _Taken, number: dict[str, int]) -> None:
    """The numbers of the history, one column a name; long where most of the cells would be empty."""
    wanted = {tag: i for tag, i in number.items() if tag not in (STEP, TIME, EPOCH, RUNTIME, OWN)}
    present = np.bincount(taken.name, minlength=len(number))
    used = {tag: i for tag, i in wanted.items() if present[i]}
    rows = np.full(int(taken.record.max(initial=-1)) + 1, -1, np.int64)
    places = index["order"].to_numpy() - reader.order - 1
    places = places[places < len(rows)]
    rows[places] = np.arange(len(places))
    if len(used) * index.height > SPARSE * len(taken.record) + FREE:
        _add_long(reader, index, taken, used, rows)
        return
    order = np.argsort(taken.name, kind="stable")
    ends = np.cumsum(present)
    columns = []
    for tag, i in used.items():
        mine = order[ends[i] - present[i] : ends[i]]
        values, there = np.zeros(index.height), np.zeros(index.height, np.bool_)
        values[rows[taken.record[mine]]] = taken.value[mine]
        there[rows[taken.record[mine]]] = True
        column = pl.Series(tag, values)
        columns.append(column if there.all() else column.set(pl.Series(~there), None))
    if columns:
        reader.records.pieces.add_wide(index, pl.DataFrame(columns))


def _add_long(reader: Reader, index: pl.DataFrame, taken: _Taken, used: dict[str, int], rows: _Ints) -> None:
    tags = {i: tag for tag, i in used.items()}
    mine = np.isin(taken.name, list(tags))
    table = index[rows[taken.record[mine]]].with_columns(
        pl.Series("tag", taken.name[mine]).replace_strict(tags, return_dtype=pl.String),
        pl.Series("value", taken.value[mine]),
    )
    reader.records.pieces.add_long(table)


def _one_by_one(
    reader: Reader,
    batch: Batch,
    records: _Ints,
    index: pl.DataFrame,
    summarise: Callable[[int, int], None],
) -> None:
    """The records that were not taken, in their order, each knowing the step and the summary before it."""
    base = reader.order + 1
    places, steps = index["order"].to_numpy(), index["step"].to_list()
    done = summed = 0
    for place in np.flatnonzero(records[:, 0] == 0).tolist():
        offset, data = batch[place]
        before = int(np.searchsorted(places, base + place))
        reader.passed(base + place, before - done, steps[before - 1] if before else None)
        done = before
        if SUMMARY_HEADER in data:
            summarise(summed, place)
            summed = place
        reader.add(offset, data, base + place)
    summarise(summed, len(batch))
    reader.passed(base + len(batch) - 1, len(steps) - done, steps[-1] if steps else None)


@dataclass(frozen=True, slots=True)
class _Summary:
    """The items of the summary: record, name, and where the value stands in the batch."""

    items: _Ints
    names: list[tuple[str, ...]]
    batch: Batch

    def apply(self, reader: Reader, start: int, end: int) -> None:
        """Keep the last value of each name, of the records from `start` up to `end`."""
        first, stop = np.searchsorted(self.items[:, 0], [start, end])
        last = np.full(len(self.names), -1, np.int64)
        last[self.items[first:stop, 1]] = np.arange(first, stop)
        for record, name, at, size in self.items[np.sort(last[last >= 0])].tolist():
            data = self.batch.joined[at : at + size].tobytes()
            reader.summarise(self.names[name], data, int(self.batch.offsets[record]))
