"""Objects of a generic log as numbers and events: which key is the step, what is a measurement, what is neither."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.finish import Reject, finish
from parsers.run import Run
from parsers.schema import EVENTS
from parsers.tables.assemble import Pieces
from parsers.tables.attempts import attempt_of
from parsers.tables.columns import CONFIG_KEYS, SPLIT_WORDS, number, roles, timestamp, to_step
from parsers.tables.events import event_frame, payload_text

__all__ = ["Records"]

#: The columns of our own table of events that are never empty.
_EVENT = set(EVENTS.names()) - {"step", "epoch", "time"}
_RANKS = range(2**31)


@lru_cache(maxsize=1024)
def _roles(keys: tuple[str, ...]) -> dict[str, str]:
    return roles(keys)


@dataclass(slots=True)
class Records:
    """What is read of one generic log, record by record; `run` ends it.

    What is no number is kept as an event of kind `record`: always where the object holds no number at all, else
    once and again whenever it changes. An object under `config`, `args` and the like becomes the
    configuration. Where several runs stand in one file, the tags of all but the first have the run's name in front.

    >>> records = Records("demo.jsonl")
    >>> records.add(1, {"step": 3, "train": {"loss": "0.5"}, "phase": "warm"})
    >>> run = records.run("demo", "jsonl")
    >>> run.scalars.select("step", "split", "metric", "value").row(0), run.events["payload"][0]
    ((3, 'train', 'loss', 0.5), '{"phase":"warm"}')
    """

    file: str
    pieces: Pieces = field(default_factory=Pieces)
    rejects: list[Reject] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    #: Name of the run that the records give, where they do.
    named: str | None = None
    #: Whether records number their attempts themselves.
    numbered: bool = False
    _events: list[tuple[Any, ...]] = field(default_factory=list)
    _last: dict[int, str] = field(default_factory=dict)

    def reject(self, line: int, reason: str, text: str = "") -> None:
        """Note a piece of input that could not be read, or only in part."""
        self.rejects.append(Reject(self.file, reason, line=line, text=text))

    def add(self, line: int, record: Mapping[str, Any]) -> None:
        """One object; one of the columns of `EVENTS`, as `aftertrain convert` writes them, is an event as it was."""
        having = _roles(tuple(record))
        if record.keys() >= _EVENT and isinstance(record["payload"], Mapping):
            self._known_event(line, having, dict(record))
            return
        rest = {key: value for key, value in record.items() if key != having.get("implied")}
        index = self._index(line, having, rest)
        prefix = self._run(having, rest)
        values, others = self._measured(having, rest)
        for key in CONFIG_KEYS & rest.keys():
            if isinstance(rest[key], Mapping):
                self.config.update(rest[key])
                self.event(index, "config", rest[key])
        named = "name" in having and having["name"] not in rest  # taken out as the name of a number
        for tag, value in values:
            self.pieces.add_row(index, prefix + tag, value, named=named)
        if others:
            self.leftover(index, others, repeat=not values)

    def _known_event(self, line: int, having: Mapping[str, str], rest: dict[str, Any]) -> None:
        index = self._index(line, having, rest)
        if rest["kind"] == "config":
            self.config.update(rest["payload"])
        self.event(index, str(rest["kind"]), rest["payload"])

    def event(self, index: tuple[Any, ...], kind: str, payload: Any) -> None:
        """One event, its payload kept as JSON."""
        self._events.append((*index, kind, payload_text(payload)))

    def leftover(self, index: tuple[Any, ...], others: Mapping[str, Any], *, repeat: bool) -> None:
        """What a record holds beside numbers; dropped where it only repeats what the record before said."""
        payload = payload_text(others)
        if repeat or self._last.get(index[1]) != payload:
            self._last[index[1]] = payload
            self._events.append((*index, "record", payload))

    def run(self, name: str, format: str) -> Run:
        """The run of everything that was added."""
        tags = self.pieces.tags()
        opened = {} if self.numbered else self.pieces.find_attempts()
        events = _event_frame(self._events, opened)
        self.rejects += list(_mixed(self._events, tags, self.file))
        self.rejects.sort(key=lambda r: r.line or 0)
        name = self.named or name
        table = self.pieces.table(name)
        return finish(
            name, self.file, format, table, events=events, rejects=self.rejects, config=self.config, ready=True
        )

    def _index(self, line: int, having: Mapping[str, str], rest: dict[str, Any]) -> tuple[Any, ...]:
        """Order, rank, attempt, step, epoch, time and split of a record, their keys taken out of `rest`."""
        step = self._step(line, having, rest)
        epoch = _take(having, rest, "epoch", number)
        time = _take(having, rest, "time", timestamp)
        split = _take(having, rest, "split", _split)
        rank = _take(having, rest, "rank", _rank)
        attempt = _take(having, rest, "attempt", _rank)
        self.numbered |= attempt is not None
        micros = None if time is None else round(time * 1e6)
        return line, rank or 0, attempt or 0, step, epoch, micros, split or ""

    def _step(self, line: int, having: Mapping[str, str], rest: dict[str, Any]) -> int | None:
        if "step" not in having or rest[having["step"]] is None:
            return None
        given = rest.pop(having["step"])
        step = to_step(given)
        if step is None:
            reason = f"{having['step']} is {str(given)[:40]!r}, not a whole number of 64 bits; read without its step"
            self.reject(line, reason)
        return step

    def _run(self, having: Mapping[str, str], rest: dict[str, Any]) -> str:
        """What stands before the tags of this record: nothing, or the name of a run that is not the file's first."""
        if "run" not in having or not isinstance(rest[having["run"]], str | int):
            return ""
        name = str(rest.pop(having["run"]))
        if self.named is None:
            self.named = name
        return "" if name == self.named else f"{name}/"

    def _measured(
        self, having: Mapping[str, str], rest: dict[str, Any]
    ) -> tuple[list[tuple[str, float]], dict[str, Any]]:
        values: list[tuple[str, float]] = []
        others: dict[str, Any] = {}
        prefix = ""
        if "name" in having and isinstance(rest[having["name"]], str):
            value = number(rest[having["value"]])
            if value is not None:
                tag = rest.pop(having["name"])
                values.append((tag, value))
                del rest[having["value"]]
                prefix = f"{tag}/"
        for key, value in _leaves(rest, prefix):
            found = number(value)
            if found is not None:
                values.append((key, found))
            elif value is not None:
                others[key] = value
        return values, others


def _leaves(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    stack = [(prefix + key, value) for key, value in reversed(list(record.items())) if not _is_config(key, value)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, Mapping):  # an empty one holds nothing
            stack += [(f"{key}/{k}", v) for k, v in reversed(list(value.items()))]
        else:
            yield key, value


def _is_config(key: str, value: Any) -> bool:
    return key in CONFIG_KEYS and isinstance(value, Mapping)


def _take(having: Mapping[str, str], rest: dict[str, Any], role: str, read: Any) -> Any:
    """The value of a role where it can be read as one; its key then leaves `rest`, else it stays as any other."""
    found = None if role not in having else read(rest.get(having[role]))
    if found is not None:
        del rest[having[role]]
    return found


def _split(value: object) -> str | None:
    return value if isinstance(value, str) and value.lower() in SPLIT_WORDS else None


def _rank(value: object) -> int | None:
    found = to_step(value)
    return found if found is not None and found in _RANKS else None


def _event_frame(events: list[tuple[Any, ...]], opened: Mapping[int, npt.NDArray[np.int64]]) -> pl.DataFrame:
    frame = event_frame(events)
    if opened:
        attempt = attempt_of(frame["rank"].to_numpy(), frame["order"].to_numpy(), opened)
        frame = frame.with_columns(pl.Series("attempt", attempt))
    return frame if frame["order"].is_sorted() else frame.sort("order", maintain_order=True)


def _mixed(events: list[tuple[Any, ...]], tags: set[str], file: str) -> Iterator[Reject]:
    """A reject for each key that holds numbers elsewhere and something else here."""
    for event in events:
        if event[-2] != "record":
            continue
        for key, value in json.loads(event[-1]).items():
            if key in tags:
                reason = f"{key!r} holds {str(value)[:40]!r} here and numbers elsewhere; kept as an event"
                yield Reject(file, reason, line=event[0], text=event[-1])
