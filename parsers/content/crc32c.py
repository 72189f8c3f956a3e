"""CRC-32C, the checksum of TFRecord files, over many records at a time: NumPy in step, without a compiled library."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["crc_of", "crc_rows", "mask", "tables"]

_Crc = npt.NDArray[np.uint32]
#: The Castagnoli polynomial (RFC 3720, appendix B.4) with its bits reversed.
POLYNOMIAL = 0x82F63B78
#: What the TFRecord format adds to a rotated checksum, so that a checksum of checksums stays one.
DELTA = 0xA282EAD8
#: Below this many bytes one after the other is faster than lanes.
SHORT = 512
_START = np.uint32(0xFFFFFFFF)


@cache
def tables(count: int = 8, polynomial: int = POLYNOMIAL) -> _Crc:
    """`count` tables of 256 entries: row 0 moves the checksum over one byte, row k over k zero bytes more."""
    rows = np.empty((count, 256), np.uint32)
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, (crc >> 1) ^ np.uint32(polynomial), crc >> 1)
    rows[0] = crc
    for k in range(1, count):
        rows[k] = rows[0][rows[k - 1] & 255] ^ (rows[k - 1] >> 8)
    return rows


def mask(crc: _Crc) -> _Crc:
    """The checksums as TFRecord files store them: rotated by 15 bits, plus a constant."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(DELTA)


def crc_rows(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], length: int) -> _Crc:
    """The checksum of `length` bytes of `data` at each of `starts`; the loop runs over bytes, not over records.

    >>> crc_rows(np.frombuffer(b"123456789", np.uint8), np.array([0]), 9).tolist() == [0xE3069283]
    True
    """
    table = tables()[0]
    crc = np.full(len(starts), _START)
    for k in range(length):
        crc = table[(crc ^ data[starts + k]) & 255] ^ (crc >> np.uint32(8))
    return crc ^ _START


def crc_of(data: bytes) -> int:
    """The checksum of one piece of bytes (RFC 3720: that of 32 zero bytes is 0x8A9136AA).

    Long data is cut into equal lanes that are walked in step and joined by the linearity of the checksum.

    >>> hex(crc_of(bytes(32)))
    '0x8a9136aa'
    """
    if len(data) < SHORT:
        return _serial(0, data)
    lanes = min(len(data) // 64, 4096)
    width = len(data) // lanes
    body = np.frombuffer(data, np.uint8)
    parts = crc_rows(body, np.arange(lanes) * width, width).tolist()
    shift = _shift(width)
    crc = parts[0]
    for part in parts[1:]:
        crc = _apply(shift, crc) ^ part
    return _serial(crc, data[lanes * width :])


def _serial(crc: int, data: bytes) -> int:
    table = _bytewise()
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _bytewise() -> list[int]:
    table: list[int] = tables()[0].tolist()
    return table


def _apply(matrix: tuple[int, ...], crc: int) -> int:
    """Product of a 32 x 32 matrix over GF(2), one integer a column, and a checksum."""
    result = 0
    for bit in range(crc.bit_length()):
        if crc >> bit & 1:
            result ^= matrix[bit]
    return result


@cache
def _shift(length: int) -> tuple[int, ...]:
    """The matrix that moves a checksum over `length` zero bytes, by repeated squaring."""
    table = _bytewise()
    power = tuple(table[1 << bit & 255] ^ (1 << bit >> 8) for bit in range(32))  # one zero byte
    result = tuple(1 << bit for bit in range(32))
    while length:
        if length & 1:
            result = tuple(_apply(power, column) for column in result)
        power = tuple(_apply(power, column) for column in power)
        length >>= 1
    return result
