"""The pickles of one stream, and the storages behind them: torch before 1.6, or plain pickles one after the other.

A file of torch before 1.6 has five pickles (a magic number, a protocol, facts of the machine, the object, the keys of
its storages), then each storage with its count of elements before it. All pickles are read for what they would call,
and so is what lies behind the last storage, where torch would not look and a second program might.
Source: torch/serialization.py (`_legacy_save`, `_legacy_load`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parsers.checkpoints.checkpoint import Damage, UnsafeCall
from parsers.checkpoints.inert_objects import Buffer, MisuseError, PickledStorage, Record, Span
from parsers.checkpoints.inert_pickle import Unpickled, unpickle
from parsers.checkpoints.pickle_machine import Builders
from parsers.checkpoints.pickle_opcodes import HANDLERS
from parsers.checkpoints.storages import storage_asked
from parsers.checkpoints.tensors import DTYPES, Storage
from parsers.checkpoints.torch_objects import TORCH

__all__ = ["MAGIC", "Stream", "read_stream", "torch_builders"]

MAGIC = 0x1950A86A20F9469CFC6C
NO_OPCODE = 0xFF
#: Plain pickles in one file: more than any program that appends its results writes.
MOST_PICKLES = 10_000
#: What lies behind the last storage is searched for pickles as long as one follows another.
MOST_BEHIND = 100


@dataclass
class Stream:
    """The bytes of a file from `at` on, and what was found in them so far. `offset` is where in the file they begin."""

    file: Path
    data: Buffer
    at: int
    end: int
    offset: int | None = 0
    torch: bool = False
    values: list[Any] = field(default_factory=list)
    calls: list[UnsafeCall] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    storages: dict[str, PickledStorage] = field(default_factory=dict)
    views: list[tuple[PickledStorage, str, int]] = field(default_factory=list)
    nested: bool = False
    pickles: int = 0

    def next(self, builders: Builders, persistent: Callable[[Any], Any] | None = None) -> Unpickled:
        """The next pickle; what it would call and what of it is broken is kept here."""
        self.pickles += 1
        got = unpickle(
            self.data,
            file=self.file,
            builders=builders,
            member=f"pickle {self.pickles}",
            start=self.at,
            end=self.end,
            offset=self.offset,
            persistent=persistent,
        )
        self.at = got.end
        self.calls.extend(got.calls)
        self.damage.extend(got.damage)
        return got


def read_stream(stream: Stream) -> Stream:
    """Read all pickles of the stream; their values are in `values`, those of torch's own in the first."""
    builders = torch_builders(stream)
    first = stream.next(builders)
    if first.value == MAGIC and first.whole:
        stream.torch = True
        _read_torch(stream, builders)
    else:
        stream.values.append(first.value)
        whole = first.whole
        while whole and stream.at < stream.end and stream.pickles < MOST_PICKLES and _more(stream):
            got = stream.next(builders)
            stream.values.append(got.value)
            whole = got.whole
        if whole:
            _tell_rest(stream)
    return stream


def torch_builders(stream: Stream) -> Builders:
    """The callables of torch, and the one by which plain pickles carry storages: whole files of torch inside."""
    return {**TORCH, "torch.storage._load_from_bytes": lambda args: _nested(stream, args)}


def _nested(stream: Stream, args: tuple[Any, ...]) -> Any:
    given = args[0] if args else None
    if not isinstance(given, bytes | Span) or stream.nested:
        raise MisuseError("no bytes of a file of torch" if not stream.nested else "files within files within files")
    member = f"pickle {stream.pickles}, "
    if isinstance(given, Span):
        inner = Stream(stream.file, given.data, given.start, given.start + len(given), given.offset, nested=True)
    else:
        inner = Stream(stream.file, given, 0, len(given), None, nested=True)
    read_stream(inner)
    for call in inner.calls:
        stream.calls.append(UnsafeCall(call.file, f"{member}inner {call.member}", call.name, call.arguments, call.risk))
    stream.damage.extend(Damage(told.file, f"{member}inner {told.where}", told.reason) for told in inner.damage)
    return inner.values[0] if inner.values else Record("torch.storage")


def _read_torch(stream: Stream, builders: Builders) -> None:
    for _ in ("protocol", "facts of the machine"):
        if not stream.next(builders).whole:
            return
    main = stream.next(builders, lambda key: _asked(stream, key))
    stream.values.append(main.value)
    if not main.whole:
        return
    keys = stream.next(builders)
    if keys.whole and isinstance(keys.value, list):
        if _place_all(stream, keys.value):
            _read_behind(stream, builders)
    elif keys.whole:
        stream.damage.append(Damage(stream.file, f"byte {stream.at:,}", "the list of storages is no list: damaged"))
    _place_views(stream)


def _asked(stream: Stream, key: Any) -> Any:
    """The storage of a persistent id; one that is a view of another is placed when that one is."""
    if isinstance(key, tuple) and len(key) > 1 and key[0] in ("module", b"module"):
        return key[1]  # a class whose source was saved beside it, to be compared
    storage = storage_asked(key)
    if storage is None:
        return Record("persistent id", (key,))
    root = stream.storages.setdefault(storage.key, storage)
    view = key[5] if len(key) > 5 else None
    if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(n, int) and n >= 0 for n in view[1:]):
        return root if root.dtype == storage.dtype else _as_type(stream, storage)
    part = PickledStorage(f"{storage.key}/{str(view[0])[:50]}", storage.dtype, view[2])
    stream.views.append((part, storage.key, view[1]))
    return part


def _as_type(stream: Stream, storage: PickledStorage) -> PickledStorage:
    stream.views.append((storage, storage.key, 0))
    return storage


def _place_all(stream: Stream, keys: list[Any]) -> bool:
    """Find the bytes of each storage, one after the other; whether the end of the last was reached."""
    for key in keys:
        storage = stream.storages.get(key) if isinstance(key, str) else None
        if storage is None:
            why = f"storage {str(key)[:50]!r} belongs to no tensor, so that its length is not known"
            stream.damage.append(Damage(stream.file, f"byte {stream.at:,}", why))
            return False
        if not _place(stream, storage):
            return False
    return True


def _place(stream: Stream, storage: PickledStorage) -> bool:
    if stream.end - stream.at < 8:
        storage.trouble = f"the file ends before storage {storage.key!r}: cut off"
        return False
    count = int.from_bytes(stream.data[stream.at : stream.at + 8], "little", signed=True)
    stream.at += 8
    width = _width(storage)
    there = stream.end - stream.at
    storage.place = _stored(stream, stream.at, max(0, min(count * width, there)))
    if count < 0 or count * width > there:
        storage.trouble = f"storage {storage.key!r} should have {count:,} elements, the file ends after {there:,} bytes"
        stream.damage.append(Damage(stream.file, f"byte {stream.at:,}", storage.trouble))
        return False
    stream.at += count * width
    return True


def _width(storage: PickledStorage) -> int:
    return DTYPES[storage.dtype].bits // 8 if storage.dtype in DTYPES else 1


def _stored(stream: Stream, at: int, nbytes: int) -> Storage:
    if stream.offset is None:
        return Storage(stream.file, at, nbytes, held=stream.data[at : at + nbytes])
    return Storage(stream.file, stream.offset + at, nbytes)


def _place_views(stream: Stream) -> None:
    for part, key, offset in stream.views:
        root = stream.storages[key]
        part.trouble = root.trouble
        if root.place is not None:
            begin = offset * _width(part)
            nbytes = max(0, min(part.count * _width(part), root.place.nbytes - begin))
            held = None if root.place.held is None else root.place.held[begin : begin + nbytes]
            part.place = Storage(stream.file, root.place.start + begin, nbytes, held=held)


def _more(stream: Stream) -> bool:
    """Whether another pickle may begin here."""
    return HANDLERS[stream.data[stream.at]] is not HANDLERS[NO_OPCODE]


def _read_behind(stream: Stream, builders: Builders) -> None:
    """What follows the last storage is nothing of torch's: pickles there are read for their calls."""
    begin = stream.at
    for _ in range(MOST_BEHIND):
        if stream.at >= stream.end or not _more(stream) or not stream.next(builders).whole:
            break
    if begin < stream.end:
        why = f"{stream.end - begin:,} bytes lie behind the last storage, which torch does not write"
        stream.damage.append(Damage(stream.file, f"byte {begin:,}", why))


def _tell_rest(stream: Stream) -> None:
    if stream.at < stream.end:
        why = f"{stream.end - stream.at:,} bytes lie behind the last pickle and are none"
        stream.damage.append(Damage(stream.file, f"byte {stream.at:,}", why))
