"""What a pickle is read into: plain containers and scalars, and these objects, none of which does anything."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from parsers.checkpoints.tensors import Layout, Storage

__all__ = [
    "Buffer",
    "Buildable",
    "MisuseError",
    "Named",
    "PickledStorage",
    "PickledTensor",
    "Record",
    "Span",
    "shortened",
]

#: What pickles are read from: both give an int for an index and bytes for a slice.
Buffer = bytes | mmap.mmap

#: Characters of a text that are shown: a command is read whole, as a rule.
SHOWN = 200


class MisuseError(Exception):
    """A known callable is given what it cannot take; the message says what."""


class Buildable:
    """An object that takes a state after it is made (the pickle's BUILD)."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Take the state."""
        raise NotImplementedError


class Named:
    """A global of a pickle (`torch.float32`, `posix.system`) by its name; nothing was looked up or imported."""

    __slots__ = ("called", "known", "name", "risk")

    def __init__(self, name: str, known: bool, risk: Literal["dangerous", "unknown"]) -> None:
        self.name, self.known, self.risk, self.called = name, known, risk, False


class Record(Buildable):
    """An object of a class that is only a name here: what it would have been made of."""

    __slots__ = ("args", "items", "name", "pairs", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name, self.args = name, args
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: dict[Any, Any] = {}

    def build(self, state: Any) -> None:
        """Keep the state."""
        self.state = state

    def attributes(self) -> Mapping[Any, Any]:
        """The state by name; of a state in two parts (`__dict__`, slots) both; empty where it is no mapping."""
        if isinstance(self.state, dict):
            return self.state
        parts = [part for part in self.state if isinstance(part, dict)] if isinstance(self.state, tuple) else []
        return {key: value for part in parts[:2] for key, value in part.items()}


class Span:
    """Bytes inside the pickle, left where they are: `place` says where in the file, if they lie there as they are."""

    __slots__ = ("data", "file", "length", "offset", "start")

    def __init__(self, data: Buffer, start: int, length: int, file: Path, offset: int | None) -> None:
        self.data, self.start, self.length, self.file, self.offset = data, start, length, file, offset

    def __len__(self) -> int:
        return self.length

    def bytes(self) -> bytes:
        """A copy of the bytes."""
        return self.data[self.start : self.start + self.length]

    def place(self) -> Storage:
        """The bytes as a storage: mapped where they lie in the file, held where the pickle was packed."""
        if self.offset is None:
            return Storage(self.file, self.start, self.length, held=self.bytes())
        return Storage(self.file, self.offset + self.start, self.length)


@dataclass(slots=True, eq=False)
class PickledStorage:
    """A storage that tensors of a pickle refer to.

    `dtype` is None where it has no type of its own; `place` is where its bytes lie, as soon as that is known, and
    `trouble` why it is not (`unsupported`: for no fault of the file's).
    """

    key: str
    dtype: str | None
    count: int
    place: Storage | None = None
    trouble: str = ""
    unsupported: bool = False


@dataclass(slots=True, eq=False)
class PickledTensor:
    """A tensor as a pickle tells it; `parts` are tensors that belong to it by name (indices of a sparse one)."""

    dtype: str
    shape: tuple[int, ...]
    storage: PickledStorage | None
    offset: int = 0
    strides: tuple[int, ...] | None = None
    layout: Layout = "strided"
    stored: int | None = None
    scale: float | None = None
    zero_point: int = 0
    parts: dict[str, PickledTensor] = field(default_factory=dict)


def shortened(value: Any, depth: int = 2) -> str:
    """A text of any of these objects, never long and never deep.

    >>> shortened(["rm -r /", {"a": Record("posix.system")}])
    "['rm -r /', {'a': posix.system(...)}]"
    >>> len(shortened("x" * 1_000_000))
    205
    """
    if isinstance(value, str | bytes | bytearray):
        return repr(value[:SHOWN]) + ("..." if len(value) > SHOWN else "")
    if isinstance(value, bool | float | complex) or value is None:
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() < SHOWN else f"<an integer of {value.bit_length()} bits>"
    if isinstance(value, Named):
        return value.name[:SHOWN]
    if isinstance(value, Record):
        return f"{value.name[:SHOWN]}(...)"
    if isinstance(value, list | tuple | set | frozenset | dict):
        return _container(value, depth)
    return f"<{len(value):,} bytes>" if isinstance(value, Span) else f"<{type(value).__name__}>"


def _container(value: Any, depth: int) -> str:
    opened, closed = ("[", "]") if isinstance(value, list) else ("(", ")") if isinstance(value, tuple) else ("{", "}")
    if depth == 0:
        return f"{opened}...{closed}" if value else opened + closed
    first = [item for _, item in zip(range(4), value.items() if isinstance(value, dict) else value, strict=False)]
    if isinstance(value, dict):
        shown = [f"{shortened(k, 0)}: {shortened(v, depth - 1)}" for k, v in first]
    else:
        shown = [shortened(item, depth - 1) for item in first]
    return opened + ", ".join([*shown, "..."] if len(value) > len(first) else shown) + closed
