"""One segment rewritten as Parquet, atomically: the sealed file is whole or absent, and only then the lines go."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventstream.columns import Columns
from eventstream.locks import try_lock
from eventstream.optional import need
from eventstream.records import VERSION

__all__ = ["seal"]

#: Rows of one row group at most. A metric of a full segment fits in one.
GROUP_ROWS = 1 << 20
#: Up to so many tags have row groups of their own; of more, small ones share about as many.
FEW_TAGS = 64
#: Events of one row group at most: payloads can be large.
EVENT_ROWS = 1 << 13
_DICTIONARY = ["kind", "split", "tag"]


def seal(segment: Path, *, leftover: bool = False) -> bool:
    """Rewrite `segment` (a `.jsonl`) as Parquet beside it and remove it; False where that is left to another.

    The Parquet is written under a temporary name, synchronised and renamed before the lines are removed, so that a
    crash at any moment leaves at least one whole copy; where the Parquet stands already, only the removal is made up
    for. With `leftover`, a segment whose writer may be alive is left alone: one that is locked, one that is empty, and
    every one where the file system has no locks. Needs pyarrow; raises OSError where writing fails, and leaves no
    temporary file then. Memory stays within eight times the segment's size.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rank00000-attempt0000-000000.jsonl"
    >>> _ = path.write_text('{"kind":"metrics","step":1,"time":5.0,"values":{"loss":0.5}}\\n')
    >>> seal(path), sorted(p.name for p in path.parent.iterdir())
    (True, ['rank00000-attempt0000-000000.parquet'])
    """
    with contextlib.suppress(FileNotFoundError), segment.open("rb") as file:
        # Emptiness first: a writer locks its segment before its first line, so that lines without a lock are dead.
        empty = os.fstat(file.fileno()).st_size == 0
        locked = try_lock(file.fileno())
        if locked is False or (leftover and (empty or locked is None)) or os.fstat(file.fileno()).st_nlink == 0:
            return False
        sealed = segment.with_suffix(".parquet")
        if not sealed.exists():
            columns = Columns()
            columns.read(file)
            _write_whole(columns, sealed)
        segment.unlink()
        return True
    return False


def _write_whole(columns: Columns, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write_parquet(columns, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The rename must be on disk before the lines are removed. Not every system can open a folder."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_parquet(columns: Columns, file: Any) -> None:
    """Write the columns to an open file: row groups of whole tags, each in the order of `seq`, then the events."""
    pa = need("pyarrow", feature="sealing a segment", extra="all")
    pq = need("pyarrow.parquet", feature="sealing a segment", extra="all")
    schema = _schema(pa)
    options = {"compression": "zstd", "use_dictionary": _DICTIONARY, "write_statistics": True}
    with pq.ParquetWriter(file, schema, **options) as writer:
        for table in (*_scalar_tables(pa, columns), *_event_tables(pa, columns)):
            writer.write_table(table, row_group_size=GROUP_ROWS)


def _schema(pa: Any) -> Any:
    fields = {
        "kind": pa.string(),
        "seq": pa.int64(),
        "step": pa.int64(),
        "epoch": pa.float64(),
        "time": pa.timestamp("us", tz="UTC"),
        "split": pa.string(),
        "tag": pa.string(),
        "value": pa.float64(),
        "payload": pa.string(),
    }
    return pa.schema(list(fields.items()), metadata={"aftertrain.version": str(VERSION)})


class _Records:
    """The columns that belong to a record, to be taken for any choice of records."""

    def __init__(self, pa: Any, columns: Columns) -> None:
        self._pa, self._schema = pa, _schema(pa)
        self._lines, self._steps, self._times = _np(columns.lines), _np(columns.steps), _np(columns.times)
        self._no_step, self._no_time = _np(columns.has_step) == 0, _np(columns.has_time) == 0
        self._epochs = _np(columns.epochs)
        self._kinds = _np(columns.kinds)
        self._kind_names = pa.array(list(columns.kind_names), pa.string())

    def take(self, rows: Any, split: Any, tag: Any, value: Any, payload: Any) -> Any:
        """The table of the records `rows`, with the columns that are their own."""
        pa, epochs = self._pa, self._epochs[rows]
        return pa.Table.from_arrays(
            [
                self._kind_names.take(pa.array(self._kinds[rows])),
                pa.array(self._lines[rows]),
                pa.array(self._steps[rows], mask=self._no_step[rows]),
                pa.array(epochs, mask=epochs != epochs),
                pa.array(self._times[rows], mask=self._no_time[rows]).cast(pa.timestamp("us", tz="UTC")),
                split,
                tag,
                value,
                payload,
            ],
            schema=self._schema,
        )


def _np(values: Any) -> Any:
    import numpy as np

    return np.frombuffer(values, dtype=values.typecode) if len(values) else np.empty(0, dtype=values.typecode)


def _scalar_tables(pa: Any, columns: Columns) -> Iterator[Any]:
    """One table a row group: a tag with its splits one after the other, or several whole tags."""
    import numpy as np

    records = _Records(pa, columns)
    series, values = _np(columns.series), _np(columns.values)
    if not len(series):
        return
    owner = np.repeat(np.arange(len(columns.counts), dtype=np.int32), _np(columns.counts))
    names = list(columns.series_names)
    counts = np.bincount(series, minlength=len(names)).tolist()
    groups = row_groups([tag for tag, _ in names], counts)
    ordered = [index for group in groups for index in group]
    rank = np.empty(len(names), dtype=np.int32)
    rank[ordered] = np.arange(len(ordered), dtype=np.int32)
    order = np.argsort(rank[series], kind="stable")
    tags = pa.array([names[index][0] for index in ordered], pa.string())
    splits = pa.array([names[index][1] for index in ordered], pa.string())
    start = 0
    for group in groups:
        rows = order[start : start + sum(counts[index] for index in group)]
        at = pa.array(rank[series[rows]])
        nothing = pa.nulls(len(rows), pa.string())
        yield records.take(owner[rows], splits.take(at), tags.take(at), pa.array(values[rows]), nothing)
        start += len(rows)


def row_groups(tags: list[str], counts: list[int]) -> list[list[int]]:
    """Which series share a row group: the tag of each series and how many rows it has, to places of series.

    Up to `FEW_TAGS` tags have a group each, in the order of first appearance. Of more, a group takes whole tags in the
    order of their names up to one part in `FEW_TAGS` of all rows: a group costs about a millisecond to write and half
    of that to read, and one metric of many still needs a small part of the file. What has no rows stands nowhere.

    >>> row_groups(["loss", "acc", "loss", "null"], [5, 3, 2, 0])
    [[0, 2], [1]]
    """
    members: dict[str, list[int]] = {}
    for index, (tag, count) in enumerate(zip(tags, counts, strict=True)):
        if count:
            members.setdefault(tag, []).append(index)
    if len(members) <= FEW_TAGS:
        return list(members.values())
    groups: list[list[int]] = []
    room = sum(counts) // FEW_TAGS
    left = 0
    for tag in sorted(members):
        size = sum(counts[index] for index in members[tag])
        if not groups or size > left:
            groups.append([])
            left = room
        groups[-1] += members[tag]
        left -= size
    return groups


def _event_tables(pa: Any, columns: Columns) -> Iterator[Any]:
    import numpy as np

    records = _Records(pa, columns)
    for start in range(0, len(columns.events), EVENT_ROWS):
        part = columns.events[start : start + EVENT_ROWS]
        rows, _, splits, payloads = zip(*part, strict=True)
        yield records.take(
            np.array(rows),
            pa.array(splits, pa.string()),
            pa.nulls(len(part), pa.string()),
            pa.nulls(len(part), pa.float64()),
            pa.array(payloads, pa.string()),
        )


if __name__ == "__main__":
    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)  # training comes first
    for name in sys.argv[2:]:
        seal(Path(name), leftover=sys.argv[1] == "leftover")
