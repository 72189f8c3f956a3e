"""Many JSON lines at once through Polars, with a proof that nothing was lost, and line by line where the proof fails.

Polars ignores keys that its schema lacks and takes the first of two equal keys. So the schema is learnt from the
objects seen, and the colons in the text are counted against the cells of the table: where the two differ, something
was passed over, and that part is read again in halves until the odd lines stand alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.lines import Block

__all__ = ["Bulk", "Lines", "Shape", "parts"]

#: Below this many lines, a part that failed is read line by line.
FEW = 256
#: A part is not read in bulk when fewer than one in `SPARSE` cells would be filled: memory would grow without need.
SPARSE, MANY_CELLS = 8, 4_000_000
MAX_DEPTH = 32

_LEAVES: dict[str, type[pl.DataType]] = {"number": pl.Float64, "text": pl.String, "flag": pl.Boolean}


@dataclass(frozen=True, slots=True)
class Bulk:
    """Lines read together: one row a line, nested keys joined with `/`; `numbers` are their line numbers."""

    frame: pl.DataFrame
    numbers: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines to be read one by one: (line number, bytes)."""

    rows: list[tuple[int, bytes]]


@dataclass(slots=True)
class Shape:
    """The keys of the objects seen and what stands under them, as a schema for Polars.

    >>> shape = Shape()
    >>> shape.learn({"step": 1, "train": {"loss": 0.5, "ok": True}, "note": None})
    >>> shape.schema()
    Schema([('step', Float64), ('train', Struct({'loss': Float64, 'ok': Boolean}))])
    """

    tree: dict[str, Any] = field(default_factory=dict)
    #: False once bulk reading cannot pay: lists, keys with two meanings, too many lines that fail.
    fit: bool = True
    version: int = 0

    def learn(self, record: Mapping[str, Any]) -> None:
        """Take in the keys of one object."""
        self._learn(self.tree, record, 0)

    def _learn(self, tree: dict[str, Any], record: Mapping[str, Any], depth: int) -> None:
        for key, value in record.items():
            kind = _kind(value)
            if kind == "null":
                continue
            known = tree.get(key)
            if kind == "other" or depth > MAX_DEPTH:
                self.fit = False
            elif kind == "object":
                if known is None:
                    known = tree[key] = {}
                    self.version += 1
                if not isinstance(known, dict):
                    self.fit = False
                    return
                self._learn(known, value, depth + 1)
            elif known is None:
                tree[key] = kind
                self.version += 1
            elif known != kind:
                self._reconcile(tree, key, {known, kind} if isinstance(known, str) else set())

    def _reconcile(self, tree: dict[str, Any], key: str, kinds: set[str]) -> None:
        # numbers read as text lose nothing and are turned back; a flag or an object read as text would
        if kinds == {"number", "text"}:
            self.version += tree[key] != "text"
            tree[key] = "text"
        else:
            self.fit = False

    def schema(self) -> pl.Schema:
        """The schema for `polars.read_ndjson`."""
        return pl.Schema({key: _dtype(kind) for key, kind in self.tree.items()})


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "object" if isinstance(value, Mapping) else "other"


def _dtype(kind: Any) -> pl.DataType | type[pl.DataType]:
    return pl.Struct({k: _dtype(v) for k, v in kind.items()}) if isinstance(kind, dict) else _LEAVES[kind]


def parts(block: Block, shape: Shape, numbers: npt.NDArray[np.int64] | None = None) -> Iterator[Bulk | Lines]:
    """The block in parts, in order: read in bulk where that is proven whole, as lines where it is not.

    `shape` may learn from the objects of `Lines` while this runs: what follows is read with what was learnt.
    """
    if numbers is None:
        numbers = np.arange(block.first, block.first + block.count())
    many = len(numbers) > FEW
    if many and not shape.tree and shape.fit:
        _learn_sample(block, shape)
    bulk = _parse(block.data, shape, numbers) if many and shape.fit else None
    if bulk is not None:
        yield bulk
        return
    lines, slow = block.lines(), 0
    for part in _halves(lines, numbers, shape):
        slow += len(part.rows) if isinstance(part, Lines) else 0
        yield part
    if slow > max(len(lines) // 2, 4 * FEW):
        shape.fit = False


def _learn_sample(block: Block, shape: Shape) -> None:
    for line in block.data[: 1 << 18].split(b"\n")[:FEW]:
        try:
            value, _ = parse_line(line)
        except UnreadableError:
            continue  # the line is judged, with its number, when it is read
        if isinstance(value, dict):
            shape.learn(value)


def _halves(lines: list[bytes], numbers: npt.NDArray[np.int64], shape: Shape) -> Iterator[Bulk | Lines]:
    # a stack and not recursion: the shape learns from early parts before later ones are tried
    stack = [(0, len(lines))]
    tried = shape.version
    while stack:
        start, end = stack.pop()
        if end - start <= FEW or not shape.fit:
            yield Lines([(int(n), line) for n, line in zip(numbers[start:end], lines[start:end], strict=True)])
            continue
        if (start, end) != (0, len(lines)) or tried != shape.version:
            bulk = _parse(b"\n".join(lines[start:end]), shape, numbers[start:end])
            if bulk is not None:
                yield bulk
                continue
        middle = (start + end) // 2
        stack += [(middle, end), (start, middle)]


def _parse(data: bytes, shape: Shape, numbers: npt.NDArray[np.int64]) -> Bulk | None:
    """The lines as a table, or None where Polars fails or the proof does."""
    schema = shape.schema()
    colons = int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord(":")))
    leaves = _leaves(shape.tree)
    cells = leaves * len(numbers)
    if not schema or (cells > MANY_CELLS and cells > SPARSE * colons):
        return None
    # an escaped colon or half a surrogate pair would pass the count unseen
    if b"\\" in data and (b"\\u003" in data or b"\\ud" in data or b"\\uD" in data):
        return None
    try:
        frame = pl.read_ndjson(data, schema=schema)
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
        return None
    found = _colons(frame)
    if found < 0 or (found != colons and found + data.count(b":null") + data.count(b": null") != colons):
        return None
    flat = _flat(frame)
    if flat is None:
        return None
    if frame.height != len(numbers):  # blank lines make no row
        numbers = numbers[[bool(line.strip()) for line in data.split(b"\n")[: len(numbers)]]]
    return Bulk(flat, numbers) if frame.height == len(numbers) else None


def _leaves(tree: Mapping[str, Any]) -> int:
    return sum(_leaves(kind) if isinstance(kind, dict) else 1 for kind in tree.values())


def _colons(frame: pl.DataFrame) -> int:
    """How many colons the text of this table has at least: one a key that is present, and those inside texts.

    Negative where a text was none: Polars turns objects, lists and flags into text where the schema says text.
    """
    total = 0
    for column in frame.get_columns():
        present = len(column) - column.null_count()
        total += present * (1 + column.name.count(":"))
        if column.dtype == pl.String:
            if column.str.contains(r"^(?:[{\[]|true$|false$)").any():
                return -(1 << 62)
            total += int(column.str.count_matches(":", literal=True).sum() or 0)
        elif isinstance(column.dtype, pl.Struct):
            total += _colons(column.struct.unnest())
    return total


def _flat(frame: pl.DataFrame) -> pl.DataFrame | None:
    """Structs opened, their names joined with `/`; None where two keys then have one name."""
    columns = list(_opened(frame.get_columns(), ""))
    names = [name for name, _ in columns]
    if len(set(names)) < len(names):
        return None
    return pl.DataFrame([column.alias(name) for name, column in columns])


def _opened(columns: list[pl.Series], prefix: str) -> Iterator[tuple[str, pl.Series]]:
    for column in columns:
        if isinstance(column.dtype, pl.Struct):
            yield from _opened(column.struct.unnest().get_columns(), f"{prefix}{column.name}/")
        else:
            yield f"{prefix}{column.name}", column
