"""The records of a TFRecord file: checksums checked, damage rejected with its offset, reading on at the next header.

A record is its length (uint64, little endian), the masked CRC-32C of these eight bytes, the data, and the masked
CRC-32C of the data (https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details").
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from eventstream.errors import InputError
from parsers.content.crc32c import crc_of, crc_rows, mask
from parsers.finish import Reject

__all__ = ["Damage", "Stop", "Walker", "frames", "next_header", "walk_file"]

HEADER, FRAME = 12, 16
#: Bytes read first, and after that: a file that ends within the first is small, and nothing is compiled for it. Larger
#: pieces fall out of the processor's cache between reading and walking, which costs a third of the speed.
FIRST, CHUNK = 2 << 20, 8 << 20
#: Longest record that is held in memory. Graphs and images stay below; a longer one is passed over and rejected.
LIMIT = 256 << 20
#: Rejects kept of one file; the others are counted, so that a file of nothing but damage stays cheap.
KEPT = 1000
#: Bytes of the damage that a reject shows.
EXCERPT = 32
#: Fewer records than this of one length are checked one by one: in step, every byte costs some microseconds.
ALONE = 32
_LENGTH = struct.Struct("<Q")


class Stop(IntEnum):
    """Why a walker stopped: the bytes end inside a record, a header is damaged, or the data of a record."""

    END, HEADER, DATA = 0, 1, 2


class Walker(Protocol):
    """What takes records out of bytes."""

    def walk(self, data: bytes, at: int, origin: int) -> tuple[int, Stop]:
        """Take the whole records of `data` from `at` on; where the first that cannot be taken begins, and why.

        `origin` is the offset of `data` in the file.
        """


@dataclass(slots=True)
class Damage:
    """The rejects of one file, bounded in number."""

    file: str
    rejects: list[Reject] = field(default_factory=list)
    more: int = 0

    def note(self, offset: int, reason: str, data: bytes = b"") -> None:
        """One piece that could not be read."""
        if len(self.rejects) < KEPT:
            # in hexadecimal: bytes of a damaged file may be anything, and a terminal would obey some of them
            self.rejects.append(Reject(self.file, reason, offset=offset, text=data[:EXCERPT].hex(" ")))
        else:
            self.more += 1

    def all(self) -> list[Reject]:
        """Every reject, and one that counts what was left out."""
        rest = [Reject(self.file, f"{self.more:,} more damaged records")] if self.more else []
        return self.rejects + rest


@dataclass(slots=True)
class _Window:
    """The part of a file that is in memory."""

    file: BinaryIO
    data: bytes = b""
    origin: int = 0
    ended: bool = False

    def more(self, at: int) -> None:
        """Drop what stands before `at` and read on; `at` is 0 then."""
        kept = len(self.data) - at
        chunk = self.file.read(max(CHUNK, kept) if self.origin or self.data else FIRST)
        self.ended = not chunk
        self.origin += at
        self.data = self.data[at:] + chunk

    def skip(self, size: int) -> None:
        """Drop `size` bytes, in memory or not."""
        while size > len(self.data) and not self.ended:
            size -= len(self.data)
            self.more(len(self.data))
        size = min(size, len(self.data))
        self.data, self.origin = self.data[size:], self.origin + size


def walk_file(path: Path, choose: Callable[[bool], Walker], damage: Damage) -> None:
    """Every whole record of a file, passed to the walker that `choose(small)` gives; damage goes to `damage`.

    The file is read once and forwards, in pieces. Raises `InputError` where it cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            window = _Window(file)
            window.more(0)
            if window.ended:
                damage.note(0, "the file is empty")
                return
            start = len(window.data)
            window.more(0)
            _walk(window, choose(start < FIRST and window.ended), damage)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _walk(window: _Window, walker: Walker, damage: Damage) -> None:
    at = 0
    while True:
        at, stop = walker.walk(window.data, at, window.origin)
        if stop is Stop.HEADER:
            at = _after_header(window, at, damage)
        elif stop is Stop.DATA:
            at = _after_data(window, at, damage)
        elif not window.ended:
            at = _more(window, at, damage)
        elif at == len(window.data):
            return
        else:
            at = _after_cut(window, at, damage)


def _more(window: _Window, at: int, damage: Damage) -> int:
    window.more(at)
    size = _size(window.data, 0)
    if size > LIMIT and _valid(window.data, 0):  # else the walker will say what is wrong with the header
        damage.note(window.origin, f"a record of {size:,} bytes; records beyond {LIMIT:,} bytes are not read")
        window.skip(size + FRAME)
    return 0


def _after_header(window: _Window, at: int, damage: Damage) -> int:
    """On to the next whole header: the length cannot be trusted, so every byte is tried."""
    start, shown = window.origin + at, window.data[at : at + EXCERPT]
    found = _search(window, at + 1)
    passed = window.origin + found - start
    damage.note(start, f"the checksum of a record's length does not match; {passed:,} bytes passed over", shown)
    return found


def _after_data(window: _Window, at: int, damage: Damage) -> int:
    """Past a record whose data is damaged: its length is whole, unless bytes were lost or added inside it."""
    size, start = _size(window.data, at), window.origin + at
    shown = window.data[at + HEADER : at + HEADER + EXCERPT]
    while len(window.data) < at + size + FRAME + HEADER and not window.ended:
        window.more(at)
        at = 0
    after = at + size + FRAME
    if after == len(window.data) or _valid(window.data, after):
        damage.note(start, f"the checksum of a record of {size:,} bytes does not match", shown)
        return after
    found = _search(window, at + HEADER)
    passed = window.origin + found - start
    reason = f"the checksum of a record of {size:,} bytes does not match and no record follows it"
    damage.note(start, f"{reason}; {passed:,} bytes passed over", shown)
    return found


def _after_cut(window: _Window, at: int, damage: Damage) -> int:
    """The file ends inside a record; records may still follow where bytes were lost in the middle."""
    left = len(window.data) - at
    start, shown = window.origin + at, window.data[at : at + EXCERPT]
    found = _search(window, at + HEADER) if left > HEADER else len(window.data)
    size = f"{left:,} of {_size(window.data, at) + FRAME:,} bytes" if left >= HEADER else f"{left} bytes of its header"
    if found == len(window.data):
        damage.note(start, f"the file ends inside a record ({size}), as when writing was cut", shown)
    else:
        passed = window.origin + found - start
        damage.note(start, f"bytes of a record are missing; {passed:,} bytes passed over", shown)
    return found


def _search(window: _Window, at: int) -> int:
    """Where the next whole header begins at or after `at`, or the end of the file; what is before it is dropped."""
    while True:
        found = next_header(window.data, at)
        if found >= 0:
            return found
        if window.ended:
            return len(window.data)
        window.more(max(at, len(window.data) - HEADER + 1))
        at = 0


def next_header(data: bytes, at: int = 0) -> int:
    """Where the first whole header at or after `at` begins, or -1.

    >>> from parsers.content.crc32c import crc_of, mask
    >>> length = (5).to_bytes(8, "little")
    >>> crc = int(mask(np.array([crc_of(length)], np.uint32))[0]).to_bytes(4, "little")
    >>> next_header(b"some bytes" + length + crc)
    10
    """
    whole = np.frombuffer(data, np.uint8)
    size, end = 256, len(data) - HEADER + 1
    while at < end:
        starts = np.arange(at, min(at + size, end))
        good = starts[_headers_match(whole, starts)]
        likely = next((int(p) for p in good if _size(data, int(p)) < 1 << 40), -1)
        if likely >= 0:
            return likely
        at, size = at + size, min(size * 4, 1 << 20)
    return -1


def frames(data: bytes, at: int, count: int) -> tuple[list[tuple[int, int, bool]], int, Stop | None]:
    """Up to `count` records from `at` on: where the data begins, its length, whether its checksum matches.

    Then where the next begins, and why it stopped there, None where `count` were found. All have a whole header.
    """
    chain: list[int] = []
    sizes: list[int] = []
    place, stop = at, None
    while len(chain) < count:
        if place + HEADER > len(data):
            stop = Stop.END
            break
        size = _size(data, place)
        chain.append(place)
        sizes.append(size)
        if size > len(data) - place - FRAME:
            stop = Stop.END
            break
        place += size + FRAME
    whole = np.frombuffer(data, np.uint8)
    starts = np.array(chain, np.int64)
    bad = np.flatnonzero(~_headers_match(whole, starts)) if chain else starts
    if len(bad):
        place, stop = chain[bad[0]], Stop.HEADER
        starts, sizes = starts[: bad[0]], sizes[: bad[0]]
    elif chain and place == chain[-1]:  # its data is not all there
        starts, sizes = starts[:-1], sizes[:-1]
    good = _data_match(data, whole, starts, np.array(sizes, np.int64))
    return list(zip((starts + HEADER).tolist(), sizes, good.tolist(), strict=True)), place, stop


def _headers_match(whole: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.asarray(mask(crc_rows(whole, starts, 8)) == _stored(whole, starts + 8))


def _data_match(
    data: bytes, whole: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    crc = np.zeros(len(starts), np.uint32)
    for size in np.unique(sizes).tolist():
        same = np.flatnonzero(sizes == size)
        if len(same) < ALONE:
            crc[same] = [crc_of(data[p + HEADER : p + HEADER + size]) for p in starts[same].tolist()]
        else:
            crc[same] = crc_rows(whole, starts[same] + HEADER, size)
    return np.asarray(mask(crc) == _stored(whole, starts + HEADER + sizes))


def _stored(whole: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """The little-endian number of four bytes at each place."""
    parts = [whole[places + k].astype(np.uint32) << np.uint32(8 * k) for k in range(4)]
    return np.asarray(parts[0] | parts[1] | parts[2] | parts[3])


def _valid(data: bytes, at: int) -> bool:
    if len(data) - at < HEADER:
        return False
    stored = int.from_bytes(data[at + 8 : at + HEADER], "little")
    return int(mask(np.array([crc_of(data[at : at + 8])], np.uint32))[0]) == stored


def _size(data: bytes, at: int) -> int:
    return int(_LENGTH.unpack_from(data, at)[0]) if len(data) - at >= 8 else 0
