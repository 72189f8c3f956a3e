"""Events of TensorBoard out of their records: what each value is, and where the numbers of one file are collected.

The messages are those of event.proto, summary.proto and tensor.proto of https://github.com/tensorflow/tensorboard
(tensorboard/compat/proto).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from parsers.content.protobuf import WireError, body, fields, integer, signed, text
from parsers.tfevents.hparams import read_hparams, stated_config
from parsers.tfevents.records import Damage, Stop, frames
from parsers.tfevents.tensors import Tensor, histogram, read_tensor, summarise

__all__ = ["Columns", "EventFile", "PlainWalker", "Tags", "join"]

#: Longest text that is kept whole; of a longer one the start.
TEXT_LIMIT = 1 << 20
#: Records framed at a time: few after damage, more as long as all is well.
FEW, MANY = 8, 8192
_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")
#: Fields of an event that hold no measurement: their bytes are counted and passed over.
_GRAPHS = {4: "graph", 8: "run-metadata", 9: "graph"}
_SESSION = {1: "start", 2: "stop", 3: "checkpoint"}

#: Tag number, step, wall time in seconds and value of each number.
Columns = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


def join(parts: list[Columns]) -> Columns:
    """Pieces one after the other as one."""
    if len(parts) == 1:
        return parts[0]
    tags, steps, walls, values = zip(*parts, strict=True)
    return np.concatenate(tags), np.concatenate(steps), np.concatenate(walls), np.concatenate(values)


@dataclass(slots=True)
class Tags:
    """The tags of a run, numbered in the order met."""

    names: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, tag: str) -> int:
        """The number of a tag."""
        found = self._numbers.setdefault(tag, len(self.names))
        if found == len(self.names):
            self.names.append(tag)
        return found


@dataclass(slots=True)
class _Value:
    """One value of a summary as it came."""

    tag: str = ""
    simple: float | None = None
    histogram: bytes | None = None
    tensor: bytes | None = None
    metadata: bytes | None = None
    media: str = ""


@dataclass(slots=True)
class EventFile:
    """What one event file holds: numbers, events, configuration, and where it says that training began anew.

    Numbers come as whole arrays in `blocks` (from the compiled walk) and one by one through `add`; `pieces` joins both
    in the order of the file.
    """

    tags: Tags
    damage: Damage
    histograms: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    #: Place among the numbers, step, wall time, kind and payload.
    events: list[tuple[int, int, float, str, Any]] = field(default_factory=list)
    #: Place among the numbers of each SessionLog START.
    starts: list[int] = field(default_factory=list)
    #: Wall time of the first and of the last event.
    began: float | None = None
    ended: float = 0.0
    blocks: list[Columns] = field(default_factory=list)
    fast: int = 0
    _rows: list[tuple[int, int, int, float, float]] = field(default_factory=list)
    _plugins: dict[str, str] = field(default_factory=dict)
    _counts: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    def add_block(self, block: Columns) -> None:
        """Numbers in arrays, which follow all that were added before."""
        if len(block[0]):
            self.blocks.append(block)
            self.fast += len(block[0])
            self._seen(float(block[2][0]))
            self._seen(float(block[2][-1]))

    def add(self, data: bytes, offset: int) -> None:
        """One record, an Event; one that is none becomes a reject."""
        self.add_at(data, offset, self.fast)

    def add_at(self, data: bytes, offset: int, at: int) -> None:
        """One record, after the first `at` numbers of the blocks."""
        kept = len(self._rows)
        try:
            self._event(data, at)
        except WireError as error:
            del self._rows[kept:]
            self.damage.note(offset, f"a record whose checksum matches is no event ({error})", data)

    def pieces(self) -> list[Columns]:
        """All numbers in the order of the file, in pieces; they are handed over and kept no longer."""
        parts = self.blocks if self.blocks and not self._rows else [*self.blocks, self._slow()]
        self.blocks = []
        if self.fast and self._rows:
            place = np.concatenate([np.arange(self.fast) * 2 + 1, np.array([row[0] * 2 for row in self._rows])])
            order = np.argsort(place, kind="stable")
            tags, steps, walls, values = join(parts)
            parts = [(tags[order], steps[order], walls[order], values[order])]
        return parts

    def all_events(self) -> Iterator[tuple[int, int, float, str, Any]]:
        """The events, then one for each kind and tag of what is only counted: images, audio, graphs, histograms."""
        yield from self.events
        for (kind, tag), (count, first, last, wall) in self._counts.items():
            yield (
                self.fast + len(self._rows),
                last,
                wall,
                kind,
                {"tag": tag, "count": count, "first_step": first, "last_step": last},
            )

    def _slow(self) -> Columns:
        rows = list(zip(*self._rows, strict=True)) or [(), (), (), (), ()]
        _, tag, step, wall, value = rows
        return (
            np.array(tag, np.int32), np.array(step, np.int64), np.array(wall, np.float64), np.array(value, np.float64)
        )  # fmt: skip

    def _seen(self, wall: float) -> None:
        if wall == wall and wall > 0:
            self.began = wall if self.began is None else min(self.began, wall)
            self.ended = max(self.ended, wall)

    def _event(self, data: bytes, at: int) -> None:
        wall, step = 0.0, 0
        parts: list[tuple[int, int | bytes]] = []
        for number, value in fields(data):
            if number == 1:
                wall = _number(_DOUBLE, value)
            elif number == 2:
                step = signed(value)
            else:
                parts.append((number, value))
        self._seen(wall)
        for number, value in parts:
            if number == 5:
                for key, one in fields(body(value)):
                    if key == 1:
                        self._value(_read_value(body(one)), at, step, wall)
            elif number in _GRAPHS:
                self._count(_GRAPHS[number], "", step, wall)
            elif number in (6, 7):
                self._message(number, body(value), (at, step, wall))

    def _value(self, value: _Value, at: int, step: int, wall: float) -> None:
        if value.metadata is not None:
            self._metadata(value.tag, value.metadata, (at, step, wall))
        plugin = self._plugins.get(value.tag, "")
        if value.simple is not None:
            self._number(value.tag, at, step, wall, value.simple)
        elif value.histogram is not None:
            self._histogram(value.tag, at, step, wall, lambda: histogram(value.histogram or b""))
        elif value.media:
            self._count(value.media, value.tag, step, wall)
        elif value.tensor is not None and plugin != "hparams":
            self._tensor(value.tag, plugin, read_tensor(value.tensor), (at, step, wall))

    def _tensor(self, tag: str, plugin: str, tensor: Tensor, where: tuple[int, int, float]) -> None:
        at, step, wall = where
        rows = tensor.table(3) if plugin == "histograms" else None
        if rows is not None:
            self._histogram(tag, at, step, wall, lambda: rows)
        elif tensor.strings is not None and plugin in ("text", ""):
            self._text(tag, tensor.strings, where)
        elif tensor.scalar is not None and plugin in ("scalars", ""):
            self._number(tag, at, step, wall, tensor.scalar)
        else:
            self._count({"images": "image"}.get(plugin, plugin or "tensor"), tag, step, wall)

    def _number(self, tag: str, at: int, step: int, wall: float, value: float) -> None:
        self._rows.append((at, self.tags.number(tag), step, wall, value))

    def _histogram(
        self, tag: str, at: int, step: int, wall: float, read: Callable[[], npt.NDArray[np.float64]]
    ) -> None:
        if not self.histograms:
            self._count("histogram", tag, step, wall)
            return
        for part, value in summarise(read()).items():
            self._number(f"{tag}/{part}", at, step, wall, value)

    def _text(self, tag: str, strings: list[bytes], where: tuple[int, int, float]) -> None:
        whole = [one[:TEXT_LIMIT].decode("utf-8", "replace") for one in strings]
        payload: dict[str, Any] = {"tag": tag, "text": whole[0] if len(whole) == 1 else whole}
        longest = max((len(one) for one in strings), default=0)
        if longest > TEXT_LIMIT:
            payload["bytes"] = longest
        self._note(where, "text", payload)
        self.config |= stated_config(tag, whole)

    def _metadata(self, tag: str, data: bytes, where: tuple[int, int, float]) -> None:
        for number, value in fields(data):
            if number != 1:
                continue
            plugin = {1: b"", 2: b"", **{key: body(one) for key, one in fields(body(value)) if key in (1, 2)}}
            self._plugins[tag] = text(plugin[1])
            if plugin[1] == b"hparams":
                for kind, payload in read_hparams(plugin[2]):
                    self._note(where, kind, payload)
                    self.config |= payload if kind == "config" else {}

    def _message(self, number: int, data: bytes, where: tuple[int, int, float]) -> None:
        found = dict(fields(data))
        if number == 6:
            payload = {"level": str(integer(found.get(1, 0))), "text": text(found.get(2, b""))}
            self._note(where, "note", payload)
            return
        status = _SESSION.get(integer(found.get(1, 0)), "unknown")
        if status == "start":
            self.starts.append(where[0] + len(self._rows))
        if status == "checkpoint":
            self._note(where, "checkpoint", {"path": text(found.get(2, b""))})
        else:
            self._note(where, "session", {"status": status, "text": text(found.get(3, b""))})

    def _note(self, where: tuple[int, int, float], kind: str, payload: Any) -> None:
        at, step, wall = where
        self.events.append((at + len(self._rows), step, wall, kind, payload))

    def _count(self, kind: str, tag: str, step: int, wall: float) -> None:
        count = self._counts.setdefault((kind, tag), [0, step, step, wall])
        count[0] += 1
        count[2:] = step, wall


def _read_value(data: bytes) -> _Value:
    found = _Value()
    for number, value in fields(data):
        if number == 1:
            found.tag = text(value)
        elif number == 2:
            found.simple = _number(_FLOAT, value)
        elif number == 8:
            found.tensor = body(value)
        elif number == 9:
            found.metadata = body(value)
        elif number == 5:
            found.histogram = body(value)
        elif number in (3, 4, 6):
            found.media = {3: "histogram", 4: "image", 6: "audio"}[number]
    return found


def _number(form: struct.Struct, value: int | bytes) -> float:
    data = body(value)
    if len(data) != form.size:
        raise WireError(f"a number of {len(data)} bytes where {form.size} belong")
    return float(form.unpack(data)[0])


@dataclass(slots=True)
class PlainWalker:
    """Takes every record in plain Python: the way for small files, which must not wait for a compiler."""

    file: EventFile
    _count: int = FEW

    def walk(self, data: bytes, at: int, origin: int) -> tuple[int, Stop]:
        """As `parsers.tfevents.records.Walker` says."""
        while True:
            found, place, stop = frames(data, at, self._count)
            self._count = FEW if stop is Stop.HEADER else min(self._count * 2, MANY)
            last = len(found) - 1
            for index, (start, size, good) in enumerate(found):
                if good:
                    self.file.add(data[start : start + size], origin + start - 12)
                elif index == last:  # what follows decides whether its length can be trusted
                    return start - 12, Stop.DATA
                else:
                    self.file.damage.note(
                        origin + start - 12, f"the checksum of a record of {size:,} bytes does not match",
                        data[start : start + size],
                    )  # fmt: skip
            if stop is not None:
                return place, stop
            at = place
