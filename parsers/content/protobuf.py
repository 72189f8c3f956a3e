"""Messages of protocol buffers read from the wire without their library: fields in order, as raw values."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["Field", "WireError", "fields", "floats", "signed", "submessages", "text", "varints"]

#: Field number and raw value: an integer for a varint, the bytes of a fixed number, message, string or packed list.
Field = tuple[int, int | bytes]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are no message: a field runs over the end, or a type is none that exists."""


def fields(data: bytes) -> Iterator[Field]:
    r"""Number and raw value of each field, in the order written; unknown fields come too.

    Raises `WireError` at the first byte that cannot be (https://protobuf.dev/programming-guides/encoding/). Groups,
    which no writer of logs uses, count as such.

    >>> list(fields(b"\x08\x96\x01\x12\x02hi"))
    [(1, 150), (2, b'hi')]
    """
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        at += 1
        if key > 127:
            key, at = _varint(data, at - 1)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"byte {at - 1}: wire type {kind}")
        if size > end - at:
            raise WireError(f"byte {at}: a field of {size} bytes where {end - at} are left")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The value at `at` (64 bits, as the format keeps) and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError(f"byte {at}: a number without its end")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise WireError(f"byte {at}: a number of more than ten bytes")


def signed(value: int | bytes) -> int:
    """A varint as the int64 or int32 that it stands for.

    >>> signed(2**64 - 1), signed(7)
    (-1, 7)
    """
    number = integer(value)
    return number - (1 << 64) if number >> 63 else number


def integer(value: int | bytes) -> int:
    """A varint, or `WireError` where the field has another type."""
    if isinstance(value, bytes):
        raise WireError("bytes where a number belongs")
    return value


def body(value: int | bytes) -> bytes:
    """The bytes of a field, or `WireError` where it is a number."""
    if not isinstance(value, bytes):
        raise WireError("a number where bytes belong")
    return value


def text(value: int | bytes) -> str:
    """A string; what is not UTF-8 is replaced."""
    return body(value).decode("utf-8", "replace")


def submessages(data: bytes, number: int) -> list[bytes]:
    """The bytes of each field `number`: the elements of a repeated message, or the one of a single field.

    >>> submessages(bytes([0x0A, 1, 65, 0x0A, 1, 66, 0x10, 1]), 1)
    [b'A', b'B']
    """
    return [body(value) for key, value in fields(data) if key == number]


def floats(value: int | bytes, code: str) -> list[float]:
    """Fixed numbers, one or packed, `code` being `f` or `d` of `struct`.

    >>> floats(struct.pack("<2d", 0.5, 2.0), "d")
    [0.5, 2.0]
    """
    data = body(value)
    count, rest = divmod(len(data), struct.calcsize(code))
    if rest:
        raise WireError(f"{len(data)} bytes are no list of numbers")
    return list(struct.unpack(f"<{count}{code}", data))


def varints(value: int | bytes) -> list[int]:
    """Varints, one or packed, as signed numbers.

    >>> varints(3), varints(bytes([1, 0x96, 1]))
    ([3], [1, 150])
    """
    if isinstance(value, int):
        return [signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(signed(number))
    return found
