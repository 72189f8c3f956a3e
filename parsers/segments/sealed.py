"""A sealed segment of an event stream: which series stand where, known from the footer, the numbers read when asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import polars as pl

from eventstream.errors import InputError
from eventstream.records import VERSION, SegmentName
from parsers.finish import Reject
from parsers.places.place import for_library, is_local
from parsers.schema import SCALARS
from parsers.segments.footer import RowGroup, first_line, read_footer, row_groups
from parsers.tables.slices import Source

__all__ = ["NewerVersionError", "Sealed", "guarded", "runs_of"]

_COLUMNS = {"kind", "seq", "step", "epoch", "time", "split", "tag", "value", "payload"}
#: A file up to this size is read at once, so that damage in it becomes a reject; a larger one is read when asked.
EAGER = 32 << 20
_T = TypeVar("_T")


class NewerVersionError(InputError):
    """The run was recorded in a version of the format that this reader does not know."""

    def __init__(self, path: Path, version: object) -> None:
        super().__init__(f"{path}: version {version} of the event stream; this aftertrain reads up to {VERSION}")


def guarded(call: Callable[[], _T], path: Path) -> _T:
    """What `call` gives; damage of the Parquet file at `path` that shows on reading becomes an `InputError`.

    >>> guarded(lambda: 1, Path("a.parquet"))
    1
    """
    try:
        return call()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged Parquet file ({first_line(error)})") from error


@dataclass(slots=True)
class Sealed:
    """One sealed segment: `slices` of (tag, split, offset, length), a `source` of rows, `events` and `rejects`.

    `read` raises `InputError` when the file has no footer, lacks columns or is of a newer version.
    """

    path: Path
    name: SegmentName
    slices: list[tuple[str, str, int, int]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    source: Source = field(default_factory=lambda: Source(0, lambda columns, offset, length: pl.DataFrame()))

    def read(self) -> Sealed:
        """Read the footer, the events, and the numbers too where the file is small; gives itself."""
        footer = self._footer()
        if not is_local(self.path) or self.path.stat().st_size <= EAGER:
            self._eager(footer)
        else:
            self._lazy(footer)
        return self

    def _footer(self) -> Any:
        footer = read_footer(self.path)
        names = set(footer.schema.to_arrow_schema().names)
        version = (footer.metadata or {}).get(b"aftertrain.version", b"1")
        if not version.isdigit() or int(version) > VERSION:
            shown = version.decode("utf-8", "replace")
            raise NewerVersionError(self.path, shown)
        if not names >= _COLUMNS:
            missing = ", ".join(sorted(_COLUMNS - names))
            raise InputError(f"{self.path}: not a sealed segment, column {missing} is missing")
        return footer

    def _eager(self, footer: Any) -> None:
        """Everything at once; where that fails, row group by row group, so that one damaged page costs its group."""
        try:
            self._take(self._rows(0, footer.num_rows))
            return
        except InputError:
            found, offset = [], 0
        for group in range(footer.num_row_groups):
            length = footer.row_group(group).num_rows
            try:
                found.append(self._rows(offset, length))
            except InputError as error:
                reason = f"row group {group} with {length:,} rows: {str(error).removeprefix(f'{self.path}: ')}"
                self.rejects.append(Reject(str(self.path), reason))
            offset += length
        if found:
            self._take(pl.concat(found))

    def _rows(self, offset: int, length: int, columns: list[str] | None = None) -> pl.DataFrame:
        def read() -> pl.DataFrame:
            scan = pl.scan_parquet(for_library(self.path), glob=False)
            if (offset, length) != (0, -1):
                scan = scan.slice(offset, length)
            texts = [pl.col(c).cast(pl.String) for c in ("kind", "split", "tag") if columns is None or c in columns]
            wanted = sorted(_COLUMNS) if columns is None else columns
            types = {c: SCALARS[c] for c in ("step", "epoch", "time", "value") if c in wanted}
            return scan.select(wanted).with_columns(texts).cast(types).collect()  # type: ignore[arg-type]

        return guarded(read, self.path)

    def _take(self, frame: pl.DataFrame) -> None:
        scalars = frame.filter(pl.col("tag").is_not_null() & pl.col("value").is_not_null())
        self.slices = runs_of(scalars["tag"], scalars["split"].fill_null(""))
        kept = scalars.select("step", "epoch", "time", "value")
        self.source = Source(kept.height, lambda columns, offset, length: kept.select(columns).slice(offset, length))
        self._take_events(frame.filter(pl.col("tag").is_null()))

    def _lazy(self, footer: Any) -> None:
        for group in row_groups(footer):
            if "tag" in group.empty:
                self._take_events(self._rows(group.offset, group.length))
            elif {"tag", "split"} <= group.same.keys() and "value" in group.whole:
                self.slices.append((group.same["tag"], group.same["split"], group.offset, group.length))
            else:
                self._look(group)
        self.source = Source(footer.num_rows, lambda columns, start, count: self._rows(start, count, columns))

    def _look(self, group: RowGroup) -> None:
        """A row group with several tags or splits, or of a writer that keeps no statistics: its names are read."""
        names = self._rows(group.offset, group.length, ["tag", "split"])
        slices = runs_of(names["tag"], names["split"].fill_null(""))
        self.slices += [(tag, split, group.offset + start, n) for tag, split, start, n in slices if tag is not None]
        if any(tag is None for tag, *_ in slices):
            rows = self._rows(group.offset, group.length)
            self._take_events(rows.filter(pl.col("tag").is_null()))

    def _take_events(self, frame: pl.DataFrame) -> None:
        rank, attempt = self.name.rank, self.name.attempt
        rows = frame.sort("seq").with_columns(pl.col("time").cast(pl.Int64), pl.col("split").fill_null(""))
        for row in rows.iter_rows(named=True):
            if row["kind"] == "unreadable":
                self._reject(row["payload"])
                continue
            index = (row["seq"], rank, attempt, row["step"], row["epoch"], row["time"], row["split"])
            self.events.append((*index, row["kind"], row["payload"]))

    def _reject(self, payload: str | None) -> None:
        """A line that could not be read when the segment was sealed; its number is that in the former `.jsonl`."""
        try:
            found = orjson.loads(payload or "")
        except orjson.JSONDecodeError:
            found = {}
        line, text = (found.get("line"), found.get("text")) if isinstance(found, dict) else (None, payload)
        reason = "the line could not be read when the segment was sealed"
        number = line if isinstance(line, int) else None
        self.rejects.append(Reject(str(self.path), reason, line=number, text=str(text)))


def runs_of(tag: pl.Series, split: pl.Series) -> list[tuple[Any, Any, int, int]]:
    """Stretches of equal tag and split: (tag, split, offset, length).

    >>> runs_of(pl.Series(["a", "a", "b"]), pl.Series(["", "eval", "eval"]))
    [('a', '', 0, 1), ('a', 'eval', 1, 1), ('b', 'eval', 2, 1)]
    """
    if tag.is_empty():
        return []
    changed = (tag.ne_missing(tag.shift()) | split.ne_missing(split.shift())).to_numpy().copy()
    changed[0] = True
    starts = np.flatnonzero(changed)
    lengths = np.diff(np.append(starts, len(tag)))
    return list(zip(tag[starts].to_list(), split[starts].to_list(), starts.tolist(), lengths.tolist(), strict=True))
