"""One line of JSON as a Python object: fast where it is strict, patient where it is not, and saying what was wrong."""

from __future__ import annotations

import json
from typing import Any

import orjson

from eventstream.values import plain_text

__all__ = ["UnreadableError", "parse_line", "plain_pairs"]


#: orjson turns integers beyond 64 bits into floats.
_EXACT = 2.0**63


class UnreadableError(ValueError):
    """A line that holds no JSON; the message says why."""


def parse_line(line: bytes) -> tuple[Any, str]:
    r"""The value in `line`, and a note where something of it was damaged (empty where all is well).

    Read although JSON forbids it: `NaN` and `Infinity` as Python's json writes them, integers of any size, lone
    surrogates (kept as their escape). Read with a note: bytes that are not UTF-8 (taken as Latin-1), NUL bytes around
    the record (a crash leaves them), keys that stand twice (the last counts). Raises `UnreadableError` for the rest.

    >>> parse_line(b'{"loss": NaN}')
    ({'loss': nan}, '')
    >>> parse_line(b'\x00\x00{"loss": 1}')
    ({'loss': 1}, '2 NUL bytes around the record')
    >>> parse_line(b'{"loss": 1')
    Traceback (most recent call last):
    ...
    parsers.content.jsontext.UnreadableError: not JSON: Expecting ',' delimiter at character 11
    """
    bare = line.strip(b"\x00 \t\r\n")
    nuls = len(line.strip(b" \t\r\n")) - len(bare)
    notes = [f"{nuls:,} NUL bytes around the record"] if nuls else []
    if not bare:
        raise UnreadableError(f"nothing but NUL bytes ({nuls:,})" if nuls else "the line is empty")
    try:
        value = orjson.loads(bare)
        apart = b" :" in bare or b"\t:" in bare  # a key so written would not be counted
        if type(value) is dict and not apart and bare.count(b'":') == _keys(value):
            return value, "; ".join(notes)
    except orjson.JSONDecodeError:
        pass  # what is not strict JSON may still be what Python's json writes
    return _patiently(bare, notes)


def _keys(value: Any) -> int:
    """How many keys all objects in `value` have; -1 where a number is so large that it may have been an integer."""
    count, left = 0, [value]
    while left:  # a stack, for orjson reads what is nested deeper than Python calls
        inner = left.pop()
        kind = type(inner)
        if kind is dict:
            count += len(inner)
            left.extend(inner.values())
        elif kind is list:
            left.extend(inner)
        elif kind is float and not -_EXACT < inner < _EXACT:
            return -1
    return count


def plain_pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    r"""An object of Python's json whose texts UTF-8 can hold: what `json.loads` takes as its `object_pairs_hook`.

    >>> json.loads(r'{"a\ud800": ["\udfff", 1]}', object_pairs_hook=plain_pairs)
    {'a\\ud800': ['\\udfff', 1]}
    """
    return {plain_text(key): _plain(value) for key, value in items}


def _plain(value: Any) -> Any:
    if type(value) is str:
        return plain_text(value)
    return [_plain(inner) for inner in value] if type(value) is list else value


def _patiently(bare: bytes, notes: list[str]) -> tuple[Any, str]:
    try:
        text = bare.decode("utf-8")
    except UnicodeDecodeError as error:
        text = bare.decode("latin-1")
        notes.append(f"byte 0x{bare[error.start]:02x} at {error.start} is not UTF-8; the line was read as Latin-1")
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = plain_pairs(items)
        if len(found) < len(items):
            keys = [plain_text(k) for k, _ in items]
            twice.extend(key for key in found if keys.count(key) > 1)
        return found

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UnreadableError(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise UnreadableError("nested too deeply to be read") from error
    if twice:
        notes.append(f"key {twice[0]!r} stands twice; the last value counts")
    return value, "; ".join(notes)


def _integer(digits: str) -> int | float:
    # Python refuses to turn more than 4,300 digits into an integer; as a float such a number is infinite
    return int(digits) if len(digits) < 400 else float(digits)
