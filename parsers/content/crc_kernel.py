"""Checksums by compiled code, eight bytes at a time; importing this module loads numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from parsers.tables.compiled import compiled

__all__ = ["crc_of", "u32"]

_ALL = np.uint32(0xFFFFFFFF)
_LOW = np.uint32(255)


@compiled
def u32(data: Any, at: int) -> Any:  # pragma: no cover - compiled
    """The 32 bits at `at`, the lowest byte first."""
    i = np.uintp(at)  # an unsigned place needs no test for counting from the end: the four loads become one
    return (
        np.uint32(data[i])
        | (np.uint32(data[i + np.uintp(1)]) << np.uint32(8))
        | (np.uint32(data[i + np.uintp(2)]) << np.uint32(16))
        | (np.uint32(data[i + np.uintp(3)]) << np.uint32(24))
    )


@compiled
def crc_of(data: Any, at: int, end: int, table: Any) -> Any:  # pragma: no cover - compiled
    """The checksum of data[at:end] (Kounavis and Berry, slicing by 8); `table` is `crc32c.tables(8)`, flat."""
    crc = _ALL
    while end - at >= 8:
        a = crc ^ u32(data, at)
        b = u32(data, at + 4)
        crc = (
            table[1792 + (a & _LOW)]
            ^ table[1536 + ((a >> np.uint32(8)) & _LOW)]
            ^ table[1280 + ((a >> np.uint32(16)) & _LOW)]
            ^ table[1024 + (a >> np.uint32(24))]
            ^ table[768 + (b & _LOW)]
            ^ table[512 + ((b >> np.uint32(8)) & _LOW)]
            ^ table[256 + ((b >> np.uint32(16)) & _LOW)]
            ^ table[b >> np.uint32(24)]
        )
        at += 8
    if end - at >= 4:
        a = crc ^ u32(data, at)
        crc = (
            table[768 + (a & _LOW)]
            ^ table[512 + ((a >> np.uint32(8)) & _LOW)]
            ^ table[256 + ((a >> np.uint32(16)) & _LOW)]
            ^ table[a >> np.uint32(24)]
        )
        at += 4
    while at < end:
        crc = table[(crc ^ np.uint32(data[np.uintp(at)])) & _LOW] ^ (crc >> np.uint32(8))
        at += 1
    return crc ^ _ALL
