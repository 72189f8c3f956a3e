"""Records of a `.wandb` file as numbers, events and configuration.

Each record is a message of wandb_internal.proto (https://github.com/wandb/wandb/blob/main/wandb/proto); the numbers of
its fields stand below. Values are JSON texts under a key or a path of keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.protobuf import WireError, body, fields, floats, integer, signed, text
from parsers.tables.columns import number, timestamp, to_step
from parsers.tables.generic import Records
from parsers.tfevents.records import Damage

__all__ = ["EPOCH", "HISTORY", "OWN", "RUNTIME", "STEP", "SUMMARY", "TIME", "Reader", "items", "put"]

#: Fields of Record.
HISTORY, SUMMARY, OUTPUT, CONFIG, STATS, ALERT, OUTPUT_RAW, RUN, EXIT, HEADER = 2, 3, 4, 5, 7, 10, 13, 17, 18, 21
#: Texts of RunRecord that are kept, by field.
_ABOUT = {
    1: "id", 2: "entity", 3: "project", 6: "group", 7: "job_type", 8: "name", 9: "notes", 12: "sweep", 13: "host",
}  # fmt: skip
_STARTING_STEP, _START_TIME, _TAGS, _RUN_CONFIG = 14, 17, 10, 4
#: What a start says of one before: that the server knew it, from where it branched off, that it was asked to resume.
_RESUMED, _BRANCH_POINT, _RESUME = 18, 23, 24
#: What W&B keeps for itself in a configuration, a summary and a step of history.
OWN = "_wandb"
#: Keys of a step that place it; `_runtime` is the time once more, counted from the start.
STEP, TIME, RUNTIME, EPOCH = "_step", "_timestamp", "_runtime", "epoch"
#: Most bytes of console output that are kept, from its end.
CONSOLE = 64 << 10

Item = tuple[tuple[str, ...], Any]


def items(message: bytes, number_of_items: int = 1) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Path of keys and JSON text of each item of a history, summary, config or stats record.

    >>> inner = bytes([0x12, 1]) + b"a" + bytes([0x12, 1]) + b"b" + bytes([0x82, 1, 3]) + b"0.5"
    >>> list(items(bytes([0x0A, len(inner)]) + inner))
    [(('a', 'b'), b'0.5')]
    """
    for field_number, item in fields(message):
        if field_number != number_of_items:
            continue
        keys, value = [], b"null"
        for place, content in fields(body(item)):
            if place in (1, 2):
                keys.append(text(content))
            elif place == 16:
                value = body(content)
        yield tuple(keys), value


@dataclass(slots=True)
class Reader:
    """Takes the records of one file in turn; `records` is what it makes of them."""

    records: Records
    damage: Damage
    about: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    #: How many steps of history were read.
    steps: int = 0
    #: How often console output was written, and the end of it.
    console_lines: int = 0
    _console: list[str] = field(default_factory=list)
    _console_size: int = 0
    _order: int = 0
    _step: int | None = None

    def add(self, offset: int, data: bytes, order: int | None = None) -> None:
        """One record; what of it is no message becomes a reject. `order` is its place where it is not the next."""
        self._order = self._order + 1 if order is None else order
        try:
            for kind, content in fields(data):
                self._one(kind, content, offset)
        except WireError as error:
            self.damage.note(offset, f"not a record of W&B: {error}", data)

    def _one(self, kind: int, content: int | bytes, offset: int) -> None:
        if kind == HISTORY:
            self.history(body(content), offset, self._order)
        elif kind == STATS:
            self._stats(body(content), offset)
        elif kind == SUMMARY:
            for path, value in self._values(body(content), offset):
                put(self.summary, path, value)
        elif kind == CONFIG:
            self._configure(body(content), offset)
        elif kind in (OUTPUT, OUTPUT_RAW):
            self._output(body(content))
        elif kind == RUN:
            self._run(body(content), offset)
        elif kind == EXIT:
            self._exit(body(content))
        elif kind == ALERT:
            said = {place: text(value) for place, value in fields(body(content)) if place in (1, 2, 3)}
            words = ": ".join(said[place] for place in (1, 2) if place in said)
            self.records.event(self._index(), "note", {"text": words, "level": said.get(3, "info").lower()})

    def history(self, message: bytes, offset: int, order: int) -> None:
        """One step: its numbers, and as an event what in it is none."""
        step = None
        for place, content in fields(message):
            if place == 2:
                step = next((signed(n) for key, n in fields(body(content)) if key == 1), 0)
        values = {".".join(path): value for path, value in self._values(message, offset)}
        self.place(values, step, order)

    def place(self, values: dict[str, Any], step: int | None, order: int) -> None:
        """The values of one step by their names."""
        own = to_step(values.pop(STEP, None))
        step = step if own is None else own
        seconds = timestamp(values.pop(TIME, None))
        values.pop(RUNTIME, None)
        values.pop(OWN, None)
        epoch = number(values.get(EPOCH))
        if epoch is not None:
            del values[EPOCH]
        micros = None if seconds is None else round(seconds * 1e6)
        index = (order, 0, 0, step, epoch, micros, "")
        self._step = step
        self.steps += 1
        others = {}
        numbers = False
        for tag, value in values.items():
            found = number(value)
            if found is not None:
                numbers = True
                self.records.pieces.add_row(index, tag, found)
            elif value is not None:
                others[tag] = value
        if others:  # in the order of names: W&B writes the keys of a step in any order
            self.records.leftover(index, dict(sorted(others.items())), repeat=not numbers)

    @property
    def order(self) -> int:
        """The place of the record read last."""
        return self._order

    def passed(self, order: int, steps: int, step: int | None) -> None:
        """Say that `steps` steps of history were taken elsewhere, the last of them `step`, up to the place `order`."""
        self._order = order
        if steps:
            self.steps, self._step = self.steps + steps, step

    def end(self) -> None:
        """What is known only when the file has been read: the configuration, the last values, the console."""
        self.config.pop(OWN, None)
        self.summary.pop(OWN, None)
        if self.console_lines:
            payload = {"lines": self.console_lines, "text": "".join(self._console)[-CONSOLE:]}
            self.records.event(self._index(), "console", payload)
        if self.summary:
            self.records.event(self._index(), "results", self.summary)

    def summarise(self, path: tuple[str, ...], data: bytes, offset: int) -> None:
        """One value of the summary as JSON."""
        try:
            put(self.summary, path, parse_line(data)[0])
        except UnreadableError as error:
            self.damage.note(offset, f"{'.'.join(path)}: {error}", data)

    def _index(self, micros: int | None = None) -> tuple[Any, ...]:
        return self._order, 0, 0, self._step, None, micros, ""

    def _values(self, message: bytes, offset: int) -> Iterator[Item]:
        for path, data in items(message):
            if not path:
                self.damage.note(offset, "a value without a name", data)
                continue
            try:
                yield path, parse_line(data)[0]
            except UnreadableError as error:
                self.damage.note(offset, f"{'.'.join(path)}: {error}", data)

    def _stats(self, message: bytes, offset: int) -> None:
        """What the machine was measured to do: numbers without a step, called as W&B calls them."""
        micros = next((_micros(body(value)) for place, value in fields(message) if place == 2), None)
        for path, data in items(message, 3):
            value = number(_plain(data))
            name = ".".join(path)
            if value is None:
                self.damage.note(offset, f"system.{name} is no number", data)
            else:
                index = (self._order, 0, 0, None, None, micros, "")
                self.records.pieces.add_row(index, f"system.{name}", value, named=True)

    def _configure(self, message: bytes, offset: int) -> None:
        given: dict[str, Any] = {}
        for path, value in self._values(message, offset):
            if path[0] != OWN:
                put(given, path, value)
                put(self.config, path, value)
        if given:
            self.records.event(self._index(), "config", given)

    def _run(self, message: bytes, offset: int) -> None:
        tags: list[str] = []
        micros = None
        for place, content in fields(message):
            if place in _ABOUT:
                self.about[_ABOUT[place]] = text(content)
            elif place == _TAGS:
                tags.append(text(content))
            elif place == _START_TIME:
                micros = _micros(body(content))
            elif place == _STARTING_STEP:
                self.about["starting_step"] = signed(content)
            elif place in (_RESUMED, _RESUME) and integer(content):
                self.about["resumed"] = True
            elif place == _BRANCH_POINT:
                self.about["branched_from"] = _branch_point(body(content))
        if tags:
            self.about["tags"] = tags
        self.records.event(self._index(micros), "run", self.about)
        for place, content in fields(message):
            if place == _RUN_CONFIG:
                self._configure(body(content), offset)

    def _exit(self, message: bytes) -> None:
        code = next((signed(value) for place, value in fields(message) if place == 1), 0)
        payload: dict[str, Any] = {"status": "failed" if code else "finished"}
        if code:
            payload["error"] = f"exit code {code}"
        self.records.event(self._index(), "end", payload)

    def _output(self, message: bytes) -> None:
        for place, content in fields(message):
            if place == 3:
                line = text(content)
                self.console_lines += 1
                self._console.append(line)
                self._console_size += len(line)
        if self._console_size > 4 * CONSOLE:
            self._console = ["".join(self._console)[-CONSOLE:]]
            self._console_size = CONSOLE


def _branch_point(message: bytes) -> dict[str, Any]:
    """The run, and its step, that a fork or a rewound run goes on from."""
    found: dict[str, Any] = {}
    for place, content in fields(message):
        if place in (1, 3):
            found["run" if place == 1 else "axis"] = text(content)
        elif place == 2:
            found["at"] = next(iter(floats(content, "d")), None)
    return found


def _plain(data: bytes) -> Any:
    try:
        return parse_line(data)[0]
    except UnreadableError:
        return None


def put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Put a value under a path of keys; a value that stands where the path goes on gives way, as in W&B."""
    for key in path[:-1]:
        below = target.get(key)
        if not isinstance(below, dict):
            below = target[key] = {}
        target = below
    target[path[-1]] = value


def _micros(stamp: bytes) -> int | None:
    """A Timestamp as microseconds since 1970, None outside of the years that a log can be of."""
    parts = {place: integer(value) for place, value in fields(stamp) if place in (1, 2)}
    seconds = parts.get(1, 0)
    return None if timestamp(seconds) is None else seconds * 1_000_000 + parts.get(2, 0) // 1000
