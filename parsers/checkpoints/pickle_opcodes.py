"""What each opcode of a pickle does to the machine that reads it (`pickle_machine.Machine`).

Source: the comments of Python's `pickletools`, protocols 0 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from parsers.checkpoints.inert_objects import Buildable, Named, Record
from parsers.checkpoints.pickle_machine import MOST_INTEGER_BYTES, BrokenPickleError, Machine

__all__ = ["HANDLERS", "STOP"]

STOP = 0x2E
NEWEST_PROTOCOL = 5
#: Elements of a tuple that is a key: hashing walks through all of them at every use.
MOST_IN_KEY = 64
#: Integers from here on collide in Python's dictionaries when they are chosen to; as keys they become texts.
LARGEST_KEY = 1 << 60

Handler = Callable[[Machine], None]


def _unknown(machine: Machine) -> None:
    byte = machine.data[machine.at - 1]
    raise BrokenPickleError(f"byte {byte:#04x} is no opcode: no pickle, or damaged")


HANDLERS: list[Handler] = [_unknown] * 256


def _opcode(byte: bytes) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[byte[0]] = handler
        return handler

    return register


def _pushes(byte: bytes, make: Callable[[Machine], Any]) -> None:
    """An opcode that puts one value on the stack."""

    def handler(machine: Machine) -> None:
        value = make(machine)  # before the stack is looked at: what a mark ends is another one
        machine.stack.append(value)

    HANDLERS[byte[0]] = handler


def _u1(machine: Machine) -> int:
    at = machine.at
    if at >= machine.end:
        machine.take(1)
    machine.at = at + 1
    return machine.data[at]


def _u2(machine: Machine) -> int:
    return int.from_bytes(machine.take(2), "little")


def _u4(machine: Machine) -> int:
    return int.from_bytes(machine.take(4), "little")


def _u8(machine: Machine) -> int:
    return int.from_bytes(machine.take(8), "little")


def _i4(machine: Machine) -> int:
    return int.from_bytes(machine.take(4), "little", signed=True)


def _double(machine: Machine) -> float:
    (value,) = struct.unpack(">d", machine.take(8))
    return float(value)


def _text(count: Callable[[Machine], int]) -> Callable[[Machine], str]:
    def read(machine: Machine) -> str:
        return _decoded(machine.take(count(machine)))

    return read


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise BrokenPickleError("a text is not UTF-8: damaged") from error


def _old_text(count: Callable[[Machine], int]) -> Callable[[Machine], Any]:
    """A `str` of Python 2: text where it is ASCII, else bytes (the data of arrays)."""

    def read(machine: Machine) -> Any:
        found = machine.bytes_or_span(count(machine))
        return found.decode("ascii") if isinstance(found, bytes) and found.isascii() else found

    return read


def _bytes(count: Callable[[Machine], int]) -> Callable[[Machine], Any]:
    return lambda machine: machine.bytes_or_span(count(machine))


def _integer(machine: Machine, count: int) -> Any:
    raw = machine.take(count)
    return int.from_bytes(raw, "little", signed=True) if count <= MOST_INTEGER_BYTES else Record("builtins.int")


def _long4(machine: Machine) -> Any:
    if (count := _i4(machine)) < 0:
        raise BrokenPickleError(f"an integer of {count} bytes: damaged")
    return _integer(machine, count)


def _decimal(machine: Machine) -> Any:
    line = machine.line().rstrip(b"L")
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > MOST_INTEGER_BYTES:
        return Record("builtins.int")
    try:
        return int(line)
    except ValueError as error:
        raise BrokenPickleError(f"{line[:20]!r} is no integer: damaged") from error


def _decimal_fraction(machine: Machine) -> float:
    line = machine.line()
    try:
        return float(line[:100])
    except ValueError as error:
        raise BrokenPickleError(f"{line[:20]!r} is no number: damaged") from error


def _quoted(machine: Machine) -> Any:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise BrokenPickleError("a text without its quotes: damaged")
    return _unescaped(line[1:-1], "unicode_escape")


def _unescaped(line: bytes, how: str) -> str:
    try:
        return line.decode(how)
    except UnicodeDecodeError as error:
        raise BrokenPickleError("a text with broken escapes: damaged") from error


for _byte, _make in (
    (b"N", lambda machine: None),
    (b"\x88", lambda machine: True),
    (b"\x89", lambda machine: False),
    (b"J", _i4),
    (b"K", _u1),
    (b"M", _u2),
    (b"G", _double),
    (b"I", _decimal),
    (b"L", _decimal),
    (b"F", _decimal_fraction),
    (b"\x8a", lambda machine: _integer(machine, _u1(machine))),
    (b"\x8b", _long4),
    (b"S", _quoted),
    (b"V", lambda machine: _unescaped(machine.line(), "raw_unicode_escape")),
    (b"T", _old_text(_u4)),
    (b"U", _old_text(_u1)),
    (b"X", _text(_u4)),
    (b"\x8c", _text(_u1)),
    (b"\x8d", _text(_u8)),
    (b"B", _bytes(_u4)),
    (b"C", _bytes(_u1)),
    (b"\x8e", _bytes(_u8)),
    (b"\x96", _bytes(_u8)),
    (b"]", lambda machine: []),
    (b"}", lambda machine: {}),
    (b")", lambda machine: ()),
    (b"\x8f", lambda machine: set()),
    (b"t", lambda machine: tuple(machine.above_mark())),
    (b"l", lambda machine: machine.above_mark()),
    (b"2", lambda machine: machine.top()),
    (b"\x85", lambda machine: (machine.pop(),)),
    (b"\x97", lambda machine: Record("out-of-band buffer")),
    (b"P", lambda machine: machine.persistent(_decoded(machine.line()))),
    (b"Q", lambda machine: machine.persistent(machine.pop())),
    (b"\x82", lambda machine: _extension(machine, _u1(machine))),
    (b"\x83", lambda machine: _extension(machine, _u2(machine))),
    (b"\x84", lambda machine: _extension(machine, _i4(machine))),
    (b"g", lambda machine: _remembered(machine, _decimal(machine))),
    (b"h", lambda machine: _remembered(machine, _u1(machine))),
    (b"j", lambda machine: _remembered(machine, _u4(machine))),
    (b"c", lambda machine: machine.named(_decoded(machine.line()), _decoded(machine.line()))),
):
    _pushes(_byte, _make)


def _extension(machine: Machine, code: int) -> Named:
    """An object that programs agree on by number (`copyreg.add_extension`): of an import, so never harmless."""
    return machine.named("copyreg", f"extension_{code}")


def _remembered(machine: Machine, index: Any) -> Any:
    try:
        return machine.memo[index]
    except KeyError as error:
        raise BrokenPickleError(f"entry {index} of the memo was never made: damaged") from error


def _remember(machine: Machine, index: Any) -> None:
    if not isinstance(index, int) or index < 0:
        raise BrokenPickleError(f"{index} is no entry of a memo: damaged")
    machine.memo[index] = machine.top()


HANDLERS[ord("p")] = lambda machine: _remember(machine, _decimal(machine))
HANDLERS[ord("q")] = lambda machine: _remember(machine, _u1(machine))
HANDLERS[ord("r")] = lambda machine: _remember(machine, _u4(machine))
HANDLERS[0x94] = lambda machine: _remember(machine, len(machine.memo))
HANDLERS[0x98] = lambda machine: None  # READONLY_BUFFER
HANDLERS[ord("0")] = lambda machine: _pop(machine)
HANDLERS[ord("1")] = lambda machine: machine.above_mark().clear()


@_opcode(b"\x80")
def _protocol(machine: Machine) -> None:
    if (protocol := _u1(machine)) > NEWEST_PROTOCOL:
        raise BrokenPickleError(
            f"protocol {protocol} of pickle; {NEWEST_PROTOCOL} is the newest: no pickle, or damaged"
        )


@_opcode(b"\x95")
def _frame(machine: Machine) -> None:
    machine.take(8)  # how much a reader of streams may read ahead


@_opcode(b"(")
def _mark(machine: Machine) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.above_mark()


@_opcode(b"\x86")
def _tuple2(machine: Machine) -> None:
    second, first = machine.pop(), machine.pop()
    machine.stack.append((first, second))


@_opcode(b"\x87")
def _tuple3(machine: Machine) -> None:
    third, second, first = machine.pop(), machine.pop(), machine.pop()
    machine.stack.append((first, second, third))


@_opcode(b"d")
def _dict(machine: Machine) -> None:
    items = machine.above_mark()
    machine.stack.append({})
    _set_items(machine, items)


@_opcode(b"\x91")
def _frozenset(machine: Machine) -> None:
    items = machine.above_mark()
    machine.stack.append(frozenset(_key(item) for item in items))


@_opcode(b"s")
def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


HANDLERS[ord("u")] = lambda machine: _set_items(machine, machine.above_mark())
HANDLERS[ord("a")] = lambda machine: _extend(machine, [machine.pop()])
HANDLERS[ord("e")] = lambda machine: _extend(machine, machine.above_mark())
HANDLERS[0x90] = lambda machine: _extend(machine, machine.above_mark())


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, Named):
        return machine.change(target, "items set:", items)
    into = target.pairs if isinstance(target, Record) else target
    if not isinstance(into, dict):
        raise BrokenPickleError(f"items are set in a {type(target).__name__}: damaged")
    into.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=False))
    return None


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, Named):
        return machine.change(target, "items appended:", items)
    if isinstance(target, set):
        target.update(_key(item) for item in items)
        return None
    into = target.items if isinstance(target, Record) else target
    if not isinstance(into, list):
        raise BrokenPickleError(f"items are appended to a {type(target).__name__}: damaged")
    into.extend(items)
    return None


def _key(key: Any) -> Any:
    """The key itself where hashing it is cheap and harmless, else a record in its place."""
    if isinstance(key, int) and not -LARGEST_KEY < key < LARGEST_KEY:
        return str(key)
    if isinstance(key, str | int | float | bytes | Record | Named | complex) or key is None:
        return key
    small = isinstance(key, tuple) and len(key) <= MOST_IN_KEY
    if small and all(isinstance(part, str | int | float | bytes | Named) or part is None for part in key):
        return tuple(_key(part) for part in key)
    return Record(type(key).__name__, (key,))


@_opcode(b"\x93")
def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise BrokenPickleError("a global whose name is no text: damaged")
    machine.stack.append(machine.named(module, name))


@_opcode(b"R")
def _reduce(machine: Machine) -> None:
    args, function = machine.pop(), machine.pop()
    machine.stack.append(machine.call(function, args))


HANDLERS[0x81] = _reduce  # NEWOBJ: the same stack, a class in place of a function


@_opcode(b"\x92")
def _new_object_by_keywords(machine: Machine) -> None:
    keywords, args, function = machine.pop(), machine.pop(), machine.pop()
    given = args if isinstance(args, tuple) else (args,)
    machine.stack.append(machine.call(function, (*given, keywords) if keywords else given))


@_opcode(b"i")
def _instance(machine: Machine) -> None:
    named = machine.named(_decoded(machine.line()), _decoded(machine.line()))
    args = tuple(machine.above_mark())
    machine.stack.append(machine.call(named, args))


@_opcode(b"o")
def _object(machine: Machine) -> None:
    items = machine.above_mark()
    if not items:
        raise BrokenPickleError("an object without a class: damaged")
    machine.stack.append(machine.call(items[0], tuple(items[1:])))


@_opcode(b"b")
def _build(machine: Machine) -> None:
    state, target = machine.pop(), machine.top()
    if isinstance(target, Named):
        machine.change(target, "state set:", state)
    elif isinstance(target, Buildable):
        machine.build(target, state)
