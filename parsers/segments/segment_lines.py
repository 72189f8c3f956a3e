"""A segment of an event stream that is still JSON lines: metrics in bulk, other records one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eventstream.records import METRICS_PREFIX, NON_FINITE, SegmentName, expand, metric_values
from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.lines import Block, blocks
from parsers.finish import Reject
from parsers.tables.assemble import INDEX, Pieces
from parsers.tables.bulk import Bulk, Shape, parts
from parsers.tables.columns import to_step
from parsers.tables.events import payload_text

__all__ = ["SegmentLines"]

_EXACT = 2.0**53


class _BadRecordError(ValueError):
    """A JSON object that is no record of the format."""


@dataclass(slots=True)
class SegmentLines:
    """What stands in one `.jsonl` segment: `pieces` of scalars, rows of `events`, and `rejects`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rank00000-attempt0000-000000.jsonl")
    ...     _ = path.write_text('{"kind":"metrics","step":1,"time":1.7e9,"values":{"loss":0.5}}')
    ...     segment = SegmentLines(path, SegmentName(0, 0, 0)).read()
    >>> segment.pieces.table("demo")["value"].to_list()
    [0.5]
    """

    path: Path
    name: SegmentName
    pieces: Pieces = field(default_factory=Pieces)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    _shape: Shape = field(default_factory=Shape)

    def read(self) -> SegmentLines:
        """Read the file; gives itself."""
        for block in blocks(self.path):
            if isinstance(block, Reject):
                self.rejects.append(block)
            else:
                self._block(block)
        return self

    def _block(self, block: Block) -> None:
        last = 0 if block.ended else block.first + block.count() - 1
        metrics = block.data.count(b"\n" + METRICS_PREFIX) + block.data.startswith(METRICS_PREFIX)
        if metrics == block.count():
            self._metrics(block, None, last)
            return
        lines = block.lines()
        bulk = np.array([line.startswith(METRICS_PREFIX) for line in lines])
        numbers = np.arange(block.first, block.first + len(lines))
        chosen = [line for line, mine in zip(lines, bulk, strict=True) if mine]
        if chosen:
            self._metrics(Block(b"\n".join(chosen) + b"\n", block.first), numbers[bulk], last)
        for number in numbers[~bulk].tolist():
            self._line(number, lines[number - block.first], last)

    def _metrics(self, block: Block, numbers: Any, last: int) -> None:
        for part in parts(block, self._shape, numbers):
            if isinstance(part, Bulk):
                self._bulk(part)
            else:
                for number, line in part.rows:
                    self._line(number, line, last)

    def _line(self, number: int, line: bytes, last: int) -> None:
        if not line.strip():
            return
        shown = line[:400].decode("utf-8", "replace")
        try:
            record, note = parse_line(line)
            if note:
                self._reject(number, note, shown)
            self._record(number, record)
        except UnreadableError as error:
            self._reject(number, f"the last line is cut: {error}" if number == last else str(error), shown)
        except _BadRecordError as error:
            self._reject(number, str(error), shown)

    def _reject(self, line: int, reason: str, text: str) -> None:
        self.rejects.append(Reject(str(self.path), reason, line=line, text=text))

    def _record(self, number: int, record: Any) -> None:
        if not isinstance(record, Mapping) or not isinstance(record.get("kind"), str):
            raise _BadRecordError("not a record: an object with a `kind` is expected")
        index = self._index(number, record)
        kind = record["kind"]
        if kind == "metrics":
            values = record.get("values")
            if not isinstance(values, Mapping):
                raise _BadRecordError("`values` of a record of metrics is not an object")
            if self._shape.fit:
                self._shape.learn(record)
            found = dict(metric_values(record))
            for tag, value in found.items():
                self.pieces.add_row(index, tag, value)
            odd = [key for key, value in values.items() if value is not None and key not in found]
            if odd:
                raise _BadRecordError(f"{odd[0]!r} is {str(values[odd[0]])[:40]!r}, not a number; the others are read")
            return
        payload = record["payload"] if "payload" in record else _rest(record)
        for tag, value in expand(kind, payload):
            self.pieces.add_row(index, tag, value)
        self.events.append((*index, kind, payload_text(payload)))

    def _index(self, number: int, record: Mapping[str, Any]) -> tuple[Any, ...]:
        step, time = record.get("step"), record.get("time")
        epoch, split = record.get("epoch"), record.get("split", "")
        if step is not None and (isinstance(step, str | bool) or to_step(step) is None):
            raise _BadRecordError(f"`step` is {str(step)[:40]!r}, not a whole number of 64 bits")
        if not all(v is None or (_is_number(v) and abs(v) < 1e12) for v in (time, epoch)):
            raise _BadRecordError("`time` or `epoch` is no number")
        if not isinstance(split, str):
            raise _BadRecordError("`split` is no text")
        micros = None if time is None else round(time * 1e6)
        fraction = None if epoch is None else float(epoch)
        return number, self.name.rank, self.name.attempt, to_step(step), fraction, micros, split

    def _bulk(self, bulk: Bulk) -> None:
        frame = bulk.frame
        values, nonfinite = _under(frame, "values/"), _under(frame, "nonfinite/")
        index = self._bulk_index(frame, bulk)
        nested = any(isinstance(kind, dict) for kind in self._shape.tree.get("values", {}).values())
        texts = all(dtype == pl.String for dtype in nonfinite.dtypes)
        if index is None or nested or not texts or any(dtype != pl.Float64 for dtype in values.dtypes):
            for number, row in zip(bulk.numbers.tolist(), frame.iter_rows(named=True), strict=True):
                self._row(number, row)
            return
        self.pieces.add_wide(index, _restored(values, nonfinite))

    def _row(self, number: int, row: Mapping[str, Any]) -> None:
        """One row of a table, put back into the form of its record."""
        record: dict[str, Any] = {"values": {}, "nonfinite": {}}
        for key, value in row.items():
            head, _, name = key.partition("/")
            if head == "values" and value is None and row.get(f"nonfinite/{name}") is None:
                continue
            if head in ("values", "nonfinite") and name:
                record[head][name] = value
            elif value is not None:
                record[key] = value
        try:
            self._record(number, record)
        except _BadRecordError as error:
            self._reject(number, str(error), payload_text(record)[:400])

    def _bulk_index(self, frame: pl.DataFrame, bulk: Bulk) -> pl.DataFrame | None:
        """The columns of `INDEX`, or None where one of them is not what the format says in every row."""
        given = {name: frame[name] for name in ("step", "time", "epoch") if name in frame.columns}
        if any(c.dtype != pl.Float64 for c in given.values()):
            return None
        if "split" in frame.columns and frame["split"].dtype != pl.String:
            return None
        bounds = {"step": _EXACT, "time": 1e12, "epoch": 1e12}
        if any(not (c.drop_nulls().abs() <= bounds[name]).all() for name, c in given.items()):
            return None
        if "step" in given and not (given["step"].drop_nulls() == given["step"].drop_nulls().floor()).all():
            return None
        columns = {name: pl.lit(None, dtype=dtype) for name, dtype in INDEX.items()}
        columns |= {name: pl.col(name).cast(INDEX[name]) for name in given if name != "time"}
        if "time" in given:
            columns["time"] = (pl.col("time") * 1e6).round().cast(pl.Int64).cast(INDEX["time"])
        columns["order"] = pl.lit(pl.Series(bulk.numbers))
        columns["rank"] = pl.lit(self.name.rank, dtype=pl.Int32)
        columns["attempt"] = pl.lit(self.name.attempt, dtype=pl.Int32)
        columns["split"] = pl.col("split").fill_null("") if "split" in frame.columns else pl.lit("")
        return frame.select([expression.alias(name) for name, expression in columns.items()])


def _under(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    names = [name for name in frame.columns if name.startswith(prefix)]
    return pl.DataFrame([frame[name].alias(name.removeprefix(prefix)) for name in names])


def _restored(values: pl.DataFrame, nonfinite: pl.DataFrame) -> pl.DataFrame:
    """The values with NaN and infinities put back where they are null."""
    columns = {column.name: column for column in values.get_columns()}
    for column in nonfinite.get_columns():
        found = column.replace_strict(NON_FINITE, default=None, return_dtype=pl.Float64)
        known = columns.get(column.name)
        columns[column.name] = found if known is None else known.zip_with(known.is_not_null(), found)
    return pl.DataFrame(list(columns.values()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rest(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("kind", "step", "time", "epoch", "split")}
