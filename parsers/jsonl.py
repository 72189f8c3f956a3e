"""Runs in JSON lines: wide (one object a step), long (one object a number), nested, or all of these in one file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from eventstream.errors import InputError
from eventstream.records import SegmentName
from parsers.content.jsontext import UnreadableError, parse_line, plain_pairs
from parsers.content.lines import Block, blocks, to_utf8
from parsers.finish import Reject
from parsers.plans.names import CONFIGURATIONS
from parsers.run import Run
from parsers.tables.bulk import Bulk, Shape, parts
from parsers.tables.columns import ALIASES, CONFIG_KEYS, number
from parsers.tables.generic import Records
from parsers.tables.generic_bulk import add_bulk

__all__ = ["read", "sniff"]

#: Lines of the head that are looked at to tell the format.
LOOK = 50
#: Largest top-level array that is read: it has to be held in memory whole.
ARRAY_LIMIT = 512 << 20
_ARRAY = re.compile(rb"\s*\[\s*\{")
_COUNTED = re.compile('"(' + "|".join(map(re.escape, ALIASES["step"] + ALIASES["epoch"])) + r')"\s*:\s*[\d"]')
_LINEWISE = {".jsonl", ".ndjson"}


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins a log of JSON objects, one a line, that hold numbers; or an array of such objects.

    A configuration, a package file or another document that happens to be JSON is none: it takes several lines for
    one object, or its only object says no step and no epoch.
    """
    text = to_utf8(head)
    if _ARRAY.match(text):
        return bool(_COUNTED.search(text.decode("utf-8", "replace")))
    lines = text.split(b"\n")
    whole = lines if len(head) < (1 << 16) else lines[:-1]
    lines = [line for line in whole if line.strip(b"\x00 \t\r")][:LOOK]
    if not lines:  # the first line is longer than the head
        return path.suffix in _LINEWISE and text.lstrip(b"\x00 \t\r").startswith((b'{"', b'{ "'))
    objects = [value for value in map(_value, lines) if isinstance(value, dict)]
    counting = [o for o in objects if _holds_number(o)]
    if not counting or len(objects) * 2 < len(lines):
        return False
    if len(counting) == 1 and path.name in CONFIGURATIONS:
        return False  # `args.json` in one line, with its number of epochs
    return len(counting) > 1 or path.suffix in _LINEWISE or bool(_COUNTED.search(orjson.dumps(counting[0]).decode()))


def read(path: Path | str) -> Run:
    r"""The run in a file of JSON lines, or in a top-level array of objects.

    The step, epoch, time, split, rank and run of a record are told by their keys (`parsers.tables.columns.ALIASES`);
    every other number is a scalar, nested keys joined with `/`, and numbers in quotes (`"0.5"`, `"NaN"`) are numbers.
    An object with a name and a value (`{"step": 1, "metric": "loss", "value": 0.5}`) is one scalar. What is no number
    is kept as events of kind `record`. Lines that cannot be read are rejects with their number; a last line without its
    end is said to be cut. Steps that go back and go on from there open another attempt. Raises `InputError` only when
    the file cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "demo.jsonl")
    ...     _ = path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "lo')
    ...     run = read(path)
    >>> run
    <Run demo: 1 scalars in 1 series, steps 1 to 1, 0 events, 1 rejects (jsonl)>
    >>> run.rejects["line"][0], run.rejects["reason"][0][:26]
    (2, 'the last line is cut: not ')
    """
    path = Path(path) if isinstance(path, str) else path
    if SegmentName.parse(path.name):
        from parsers.event_stream import read as read_segment

        return read_segment(path)
    records = Records(str(path))
    shape = Shape()
    for block in _array(path, records) or blocks(path):
        if isinstance(block, Reject):
            records.rejects.append(block)
            continue
        for part in parts(block, shape):
            if isinstance(part, Bulk):
                add_bulk(records, part)
                continue
            for line, text in part.rows:
                _line(records, shape, line, text, cut=not block.ended and line == block.first + block.count() - 1)
    return records.run(path.name.split(".")[0] or path.name, "jsonl")


def _line(records: Records, shape: Shape, line: int, text: bytes, *, cut: bool) -> None:
    if not text.strip():
        return
    shown = text[:400].decode("utf-8", "replace")
    try:
        value, note = parse_line(text)
    except UnreadableError as error:
        records.reject(line, f"the last line is cut: {error}" if cut else str(error), shown)
        return
    if note:
        records.reject(line, note, shown)
    if not isinstance(value, Mapping):
        records.reject(line, f"a JSON {_KINDS.get(type(value), 'value')} where an object was expected", shown)
        return
    if shape.fit:
        shape.learn(value)
    records.add(line, value)


_KINDS: dict[type, str] = {list: "array", str: "string", int: "number", float: "number", bool: "truth value"}


def _array(path: Path, records: Records) -> Iterator[Block | Reject] | None:
    """The objects of a top-level array as lines, in one block; None where the file is no array."""
    try:
        with path.open("rb") as file:
            if not _ARRAY.match(to_utf8(file.read(4096))):
                return None
            if path.stat().st_size > ARRAY_LIMIT:
                raise InputError(f"{path}: one JSON array of more than {ARRAY_LIMIT:,} bytes; write one object a line")
            text = to_utf8(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        value, note = parse_line(text)
    except UnreadableError as error:
        records.reject(1, f"a JSON array, read object by object because the whole is damaged: {error}")
        value, note = _objects(text.decode("utf-8", "replace")), ""
    if note:
        records.reject(1, note)
    for number_, item in enumerate(value, 1):
        if isinstance(item, Mapping):
            records.add(number_, item)
        else:
            records.reject(number_, "an element of the array that is no object", str(item)[:400])
    return iter(())


def _objects(text: str) -> list[Any]:
    """The elements of a damaged array up to the damage."""
    import json

    decoder, place = json.JSONDecoder(object_pairs_hook=plain_pairs), text.index("[") + 1
    found: list[Any] = []
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        try:
            value, place = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError):
            return found
        found.append(value)


def _value(line: bytes) -> Any:
    """The object in a line, or None; a line that begins with no brace is not looked at, which most of a table are."""
    if not line.lstrip(b"\x00 \t\r\n").startswith(b"{"):
        return None
    try:
        return parse_line(line)[0]
    except UnreadableError:
        return None


def _holds_number(record: Mapping[str, Any], depth: int = 0) -> bool:
    return any(
        number(v) is not None or (isinstance(v, Mapping) and depth < 8 and _holds_number(v, depth + 1))
        for k, v in record.items()
        if k not in CONFIG_KEYS
    )
