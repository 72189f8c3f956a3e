"""The lines of one segment as columns: numbers apart from events, nothing lost, memory bounded by the segment."""

from __future__ import annotations

import importlib
import json
import math
import re
from array import array
from collections.abc import Callable, Iterable
from typing import Any

from eventstream.lines import fast_dumps, strict_line
from eventstream.records import METRICS_PREFIX, expand, metric_values

__all__ = ["UNREADABLE", "Columns"]

UNREADABLE = "unreadable"
#: Of a line that cannot be read, this much text is kept: all of any sane line, little of a gigabyte of NULs.
TEXT_KEPT = 1 << 20

_INT64 = range(-(2**63), 2**63)
#: orjson reads integers of more than 64 bits as floats; the standard library keeps them exactly.
_LONG_INTEGER = re.compile(rb"[:\[,] ?-?\d{19}")


class _BadRecordError(ValueError):
    """A line that is JSON but no record."""


class Columns:
    """Collects records line by line.

    Per record: `steps`, `has_step`, `epochs` (NaN where unknown), `times` (microseconds since 1970), `has_time`,
    `lines` (from 0) and `kinds` (an index into `kind_names`). Per number: `series` (an index into `series_names`,
    pairs of tag and split), `values`, and per record how many numbers it has (`counts`). Events are rows of (record,
    kind, split, payload).
    """

    def __init__(self) -> None:
        self.lines, self.times, self.steps = array("q"), array("q"), array("q")
        self.has_step, self.has_time = array("b"), array("b")
        self.epochs = array("d")
        self.kinds, self.counts, self.series = array("i"), array("i"), array("i")
        self.values = array("d")
        self.kind_names: dict[str, int] = {}
        self.series_names: dict[tuple[str, str], int] = {}
        self.events: list[tuple[int, str, str, str]] = []
        self._layouts: dict[tuple[str, tuple[str, ...]], array[int]] = {}
        self._loads, self._dumps = _fast_loads(), fast_dumps()

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in every line; a line that is no record becomes an event of kind `unreadable`."""
        for number, line in enumerate(lines):
            if line.isspace():
                continue
            try:
                self._take(number, line)
            except (ValueError, RecursionError):
                self._unreadable(number, line)

    def _take(self, number: int, line: bytes) -> None:
        record = self._parsed(line)
        if not isinstance(record, dict):
            raise _BadRecordError("not an object")
        kind, split, epoch = record.get("kind"), record.get("split", ""), record.get("epoch", math.nan)
        if not isinstance(kind, str) or not isinstance(split, str) or not isinstance(epoch, (int, float)):
            raise _BadRecordError("kind, split or epoch of a wrong type")
        step, time = _whole(record.get("step")), _microseconds(record.get("time"))
        if kind == "metrics":
            count = self._metrics(record, split)
            self._record(number, kind, step, time, epoch, count)
        else:
            payload = record["payload"] if "payload" in record else _rest(record)
            text = strict_line(payload, self._dumps).decode("utf-8").rstrip("\n")
            count = self._numbers(expand(kind, payload), split)
            self.events.append((len(self.lines), kind, split, text))
            self._record(number, kind, step, time, epoch, count)

    def _parsed(self, line: bytes) -> Any:
        # Metrics become floats in any case.
        if line.startswith(METRICS_PREFIX) or not _LONG_INTEGER.search(line):
            try:
                return self._loads(line)
            except ValueError:
                pass  # NaN literals of another writer, read below as the strings that this format has for them
        return json.loads(line.decode("utf-8"), parse_constant=str)

    def _metrics(self, record: dict[str, Any], split: str) -> int:
        """Add the numbers of one record of metrics; most records have the names of the one before."""
        values = record.get("values")
        if not isinstance(values, dict):
            raise _BadRecordError("values is no object")
        layout = self._layouts.get((split, names := tuple(values)))
        if layout is None:
            layout = array("i", [self._index(name, split) for name in names])
            self._layouts[split, names] = layout
        start = len(self.values)
        try:
            self.values.extend(values.values())
        except (TypeError, OverflowError):  # a null, an integer beyond floats, or something that is no number
            del self.values[start:]
            return self._odd_metrics(record, split)
        self.series.extend(layout)
        return len(layout)

    def _odd_metrics(self, record: dict[str, Any], split: str) -> int:
        found = list(metric_values(record))
        nulls = sum(value is None for value in record["values"].values())
        if len(found) < len(record["values"]) - nulls:
            raise _BadRecordError("a value is no number")
        return self._numbers(found, split)

    def _numbers(self, pairs: Iterable[tuple[str, float]], split: str) -> int:
        count = 0
        for tag, value in pairs:
            self.series.append(self._index(tag, split))
            self.values.append(value)
            count += 1
        return count

    def _index(self, tag: str, split: str) -> int:
        return self.series_names.setdefault((tag, split), len(self.series_names))

    def _record(self, line: int, kind: str, step: int | None, time: int | None, epoch: float, count: int) -> None:
        self.lines.append(line)
        self.kinds.append(self.kind_names.setdefault(kind, len(self.kind_names)))
        self.steps.append(step or 0)
        self.has_step.append(step is not None)
        self.times.append(time or 0)
        self.has_time.append(time is not None)
        self.epochs.append(epoch)
        self.counts.append(count)

    def _unreadable(self, number: int, line: bytes) -> None:
        text = line[:TEXT_KEPT].decode("utf-8", "backslashreplace").rstrip("\n")
        payload = {"line": number + 1, "text": text} | ({"bytes": len(line)} if len(line) > TEXT_KEPT else {})
        self.events.append((len(self.lines), UNREADABLE, "", strict_line(payload, self._dumps).decode().rstrip("\n")))
        self._record(number, UNREADABLE, None, None, math.nan, 0)


def _fast_loads() -> Callable[[bytes], Any]:
    try:
        return importlib.import_module("orjson").loads  # type: ignore[no-any-return]
    except ImportError:
        return json.loads


def _whole(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise _BadRecordError("step is no integer of 64 bits")
    return value


def _microseconds(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not abs(value) < 1e12:
        raise _BadRecordError("time is no number of seconds")
    return round(value * 1e6)


def _rest(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("kind", "step", "time", "epoch", "split")}
