"""Records of event files as bytes, for whoever writes them: scalars, framed and with their checksums."""

from __future__ import annotations

import struct

import numpy as np

from parsers.content.crc32c import crc_of, mask

__all__ = ["record", "scalar_event"]


def record(data: bytes) -> bytes:
    """One record of a TFRecord file.

    >>> record(b"").hex()
    '000000000000000029039807d8ea82a2'
    """
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    return int(mask(np.array([crc_of(data)], np.uint32))[0]).to_bytes(4, "little")


def scalar_event(tag: str, value: float, step: int, wall_time_s: float) -> bytes:
    """The Event of one scalar, as `SummaryWriter.add_scalar` writes it.

    >>> scalar_event("a", 1.0, 1, 0.0).hex()
    '09000000000000000010012a0a0a080a0161150000803f'
    """
    name = tag.encode()
    value_ = b"\x0a" + _varint(len(name)) + name + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + _varint(len(value_)) + value_
    number = b"\x10" + _varint(step) if step else b""
    return b"\x09" + struct.pack("<d", wall_time_s) + number + b"\x2a" + _varint(len(summary)) + summary


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
