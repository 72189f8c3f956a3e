"""Runs in Parquet tables: long (one row a number) or wide (one row a step); a large long one is read when asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from eventstream.errors import InputError
from eventstream.records import SegmentName
from parsers.finish import finish
from parsers.naming.names import resolve
from parsers.places.place import for_library, is_local
from parsers.run import Run
from parsers.schema import SCALARS
from parsers.segments.footer import RowGroup, read_footer, row_groups
from parsers.segments.sealed import EAGER, guarded
from parsers.tables.bulk import Bulk
from parsers.tables.columns import SPLIT_WORDS, roles
from parsers.tables.generic import Records
from parsers.tables.generic_bulk import add_bulk
from parsers.tables.slices import KEYS, MANY, Source, lazy_slices, whole_slices

__all__ = ["read", "sniff"]

#: Rows that become numbers at a time where the table is read at once.
ROWS = 1 << 20

_Slices = tuple[pl.DataFrame, list[Source]]


def sniff(path: Path, head: bytes) -> bool:
    """Whether the file begins as Parquet does; whether it is whole is said by `read`."""
    return head.startswith(b"PAR1")


def read(path: Path | str) -> Run:
    """The run in a Parquet table.

    Columns have the same names and meanings as the keys of JSON lines (`parsers.jsonl.read`): long tables have a name
    and a value, wide ones one column a metric; structs are opened, their names joined with `/`. A long table of more
    than 32 MiB whose rows stand series by series stays on disk until it is asked for, and one metric is then read
    without the others; every other table is read at once. Raises `InputError` when the file is no whole Parquet file
    or holds no number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "demo.parquet")
    ...     pl.DataFrame({"step": [1, 2], "train/loss": [0.5, None]}).write_parquet(path)
    ...     run = read(path)
    >>> run.scalars.select("step", "split", "metric", "value").rows()
    [(1, 'train', 'loss', 0.5)]
    """
    path = Path(path) if isinstance(path, str) else path
    if SegmentName.parse(path.name):
        from parsers.event_stream import read as read_segment

        return read_segment(path)
    scan = pl.scan_parquet(for_library(path), glob=False)
    schema = guarded(scan.collect_schema, path)
    name = path.name.split(".")[0] or path.name
    having = roles(schema.names())
    if "name" not in having and not any(_counts(dtype) for dtype in schema.values()):
        raise InputError(f"{path}: no column of numbers (columns: {', '.join(schema.names()[:20])})")
    if is_local(path) and path.stat().st_size > EAGER and "run" not in having:
        lazy = _lazy(path, scan, schema, having, name)
        if lazy is not None:
            told = lazy[0]["attempt"]
            last = None if told.null_count() else max(told.to_list(), default=None)
            whole = partial(whole_slices, *lazy)
            return finish(name, str(path), "parquet", lazy_slices(*lazy), whole=whole, final_attempt=last)
    return _eager(path, scan, name)


def _counts(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_counts(pl.Field("", f.dtype).dtype) for f in dtype.fields)  # type: ignore[arg-type]
    return dtype.is_numeric()


def _eager(path: Path, scan: pl.LazyFrame, name: str) -> Run:
    frame = guarded(scan.collect, path)
    records = Records(str(path))
    for start in range(0, frame.height, ROWS):
        part = _plain(frame.slice(start, ROWS))
        add_bulk(records, Bulk(part, np.arange(start + 1, start + 1 + part.height)))
    return records.run(name, "parquet")


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Numbers as floats, times as seconds since 1970, categories as text, structs opened: as from JSON."""
    columns: list[pl.Series] = []
    for column in frame.get_columns():
        if isinstance(column.dtype, pl.Struct):
            opened = column.struct.unnest()
            columns += _plain(opened.rename({c: f"{column.name}/{c}" for c in opened.columns})).get_columns()
        else:
            columns.append(_plain_column(column))
    return pl.DataFrame(columns)


def _plain_column(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if dtype.is_numeric() or dtype == pl.Null:
        return column.cast(pl.Float64)
    if isinstance(dtype, pl.Datetime):
        return column.dt.epoch("us").cast(pl.Float64) / 1e6
    if dtype in (pl.String, pl.Boolean):
        return column
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return pl.Series(column.name, [None if v is None else str(v) for v in column], dtype=pl.String)


def _lazy(path: Path, scan: pl.LazyFrame, schema: pl.Schema, having: dict[str, str], name: str) -> _Slices | None:
    """The scalars of a long table on demand, or None where it is not long or its series are not each in one piece."""
    if "name" not in having or not _typed(schema, having) or set(schema.names()) - set(having.values()):
        return None
    stretches = _stretches(path, scan, having)
    if stretches is None or not {s.lower() for s in stretches["split"].unique()} <= SPLIT_WORDS.keys():
        return None
    return _sliced(path, scan, having, stretches, name)


def _typed(schema: pl.Schema, having: dict[str, str]) -> bool:
    integers = all(schema[having[role]].is_integer() for role in ("step", "rank", "attempt") if role in having)
    numbers = all(schema[having[role]].is_numeric() for role in ("value", "epoch") if role in having)
    text = all(schema[having[r]] in (pl.String, pl.Categorical) for r in ("name", "split") if r in having)
    return integers and numbers and text and ("time" not in having or isinstance(schema[having["time"]], pl.Datetime))


def _stretches(path: Path, scan: pl.LazyFrame, having: dict[str, str]) -> pl.DataFrame | None:
    """The rows of each series as offset and length, or None where one has several pieces, or rows lack name or value.

    Names come from the footer where a row group holds one only, which spares reading them.
    """
    keys: dict[str, str] = {r: having[r] for r in ("name", "split", "rank", "attempt") if r in having}
    groups = list(row_groups(read_footer(path)))
    if any(having["value"] not in group.whole for group in groups):
        return None  # missing values, or nobody knows
    mixed = [group for group in groups if not all(key in group.same for key in keys.values())]
    if len(groups) > MANY:
        return None
    parts = [scan.slice(g.offset, g.length).select(pl.col(key).alias(r) for r, key in keys.items()) for g in mixed]
    read = dict(zip([g.offset for g in mixed], guarded(lambda: pl.collect_all(parts), path), strict=True))
    pieces: list[tuple[object, ...]] = []
    for group in groups:
        pieces += _pieces(keys, group, read.get(group.offset))
        if len(pieces) > MANY + len(groups):
            return None
    return (
        _joined(_typed_keys(pl.DataFrame(pieces, schema=[*keys, "offset", "length"], orient="row"))) if pieces else None
    )


def _pieces(keys: dict[str, str], group: RowGroup, read: pl.DataFrame | None) -> list[tuple[object, ...]]:
    """Stretches of equal keys in one row group: the keys, then offset and length."""
    if read is None:
        return [(*(group.same[key] for key in keys.values()), group.offset, group.length)]
    changed = read.select(pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift()) for k in keys).arg_true())
    starts = np.union1d(changed.to_series().to_numpy(), [0]).astype(np.int64)
    lengths = np.diff(np.append(starts, group.length))
    values = read[starts].iter_rows()
    return [(*row, group.offset + int(a), int(n)) for row, a, n in zip(values, starts, lengths, strict=True)]


def _typed_keys(found: pl.DataFrame) -> pl.DataFrame:
    """The keys of slices with what the table does not say filled; an unknown attempt is null."""
    columns = []
    for name, default in (("name", None), ("split", ""), ("rank", 0), ("attempt", None)):
        dtype = pl.String if name in ("name", "split") else pl.Int32
        given = pl.col(name).cast(dtype) if name in found.columns else pl.lit(None, dtype=dtype)
        columns.append((given if default is None else given.fill_null(default)).alias(name))
    return found.select(*columns, "offset", "length")


def _joined(pieces: pl.DataFrame) -> pl.DataFrame | None:
    """Neighbouring pieces of one series as one, or None where a series stands apart from itself or has no name."""
    keys = ["name", "split", "rank", "attempt"]
    changed = pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift()) for k in keys)
    grouped = pieces.with_columns(_piece=changed.cum_sum()).group_by("_piece", maintain_order=True)
    joined = grouped.agg(*(pl.col(k).first() for k in [*keys, "offset"]), pl.col("length").sum()).drop("_piece")
    if joined["name"].null_count() or joined.select(pl.struct(keys).n_unique()).item() < joined.height:
        return None
    return joined.select(*keys, "offset", "length").sort("rank", "attempt", "name", "split", "offset")


def _sliced(path: Path, scan: pl.LazyFrame, having: dict[str, str], stretches: pl.DataFrame, name: str) -> _Slices:
    have = {r: pl.col(having[r]).cast(SCALARS[r]).alias(r) for r in ("step", "epoch", "time", "value") if r in having}
    total = int(stretches["length"].sum())

    def rows(wanted: list[str], offset: int, length: int) -> pl.DataFrame:
        # the value where nothing else is there, since rows have a height; without a slice, groups are read in parallel
        part = scan if length == total else scan.slice(offset, length)
        columns = [have[c] for c in have if c in wanted] or [have["value"]]
        return guarded(part.select(columns).collect, path)

    keys = []
    for tag, split, rank, attempt, offset, length in stretches.iter_rows():
        own, metric = resolve(tag, split)
        keys.append((name, rank, attempt, own, metric, tag, 0, offset, length))
    return pl.DataFrame(keys, schema=KEYS, orient="row"), [Source(total, rows)]
