"""The records of a `.wandb` file: chunks of a log in blocks of 32 KiB, checksums checked, reading on after damage.

The file begins with `:W&B`, a magic number and a version (7 bytes). Then come blocks of 32 KiB, counted from the start
of the file, of chunks: CRC-32 of type and data (uint32), length (uint16), type (FULL, FIRST, MIDDLE, LAST), data. It is
the layout of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md) with the checksum of zlib and
without its mask.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from eventstream.errors import InputError
from parsers.tfevents.records import Damage

__all__ = ["MAGIC", "Batch", "is_wandb", "read_batches", "read_records"]

MAGIC = b":W&B"
HEADER = MAGIC + struct.pack("<HB", 0xBEE1, 0)
BLOCK = 32768
#: Blocks read at a time.
BLOCKS = 128
#: Longest record that is put together. One step of history stays far below; beyond, a chunk's type was damaged.
LIMIT = 256 << 20
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_CHUNK = struct.Struct("<IHB")


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole records, one after another in `joined`: where each ends there, and where it begins in the file."""

    joined: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, records: list[tuple[int, bytes]]) -> Batch:
        """Offset and bytes of each record as a batch.

        >>> list(Batch.of([(7, b"ab"), (16, b"c")]))
        [(7, b'ab'), (16, b'c')]
        """
        sizes = np.fromiter((len(data) for _, data in records), np.int64, len(records))
        offsets = np.fromiter((offset for offset, _ in records), np.int64, len(records))
        joined = np.frombuffer(b"".join([data for _, data in records]), np.uint8)
        return cls(joined, np.cumsum(sizes), offsets)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> tuple[int, bytes]:
        start = int(self.ends[place - 1]) if place else 0
        return int(self.offsets[place]), self.joined[start : self.ends[place]].tobytes()


def is_wandb(head: bytes) -> bool:
    """Whether `head` begins a `.wandb` file."""
    return head.startswith(MAGIC)


def read_records(path: Path, damage: Damage) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each whole record, in the order of the file; what is damaged goes to `damage`.

    After a damaged chunk reading goes on with the chunk that follows it, where one does, else with the next block.
    Raises `InputError` where the file cannot be opened or read.
    """
    for batch, _ in read_batches(path, damage, 0, BLOCKS):
        yield from batch


def read_batches(
    path: Path, damage: Damage, small: int, many: int
) -> Iterator[tuple[Batch | list[tuple[int, bytes]], bool]]:
    """As `read_records`, many records together, and whether they are of a file of `small` blocks or more.

    Of such a file, all but the first of these batches are put together by compiled code, `many` blocks at a time. With
    0 for `small`, no file is.
    """
    try:
        with path.open("rb") as file:
            yield from _read(file, damage, small, many)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read(
    file: BinaryIO, damage: Damage, small: int, many: int
) -> Iterator[tuple[Batch | list[tuple[int, bytes]], bool]]:
    joiner = _Joiner(damage)
    origin = 0
    large = False
    while data := _filled(file, BLOCK * (many if origin else small or many)):
        if not origin and data[: len(HEADER)] != HEADER:
            damage.note(0, "the header is not that of a .wandb file of version 0", data[: len(HEADER)])
        batch = joiner.at_once(data, origin) if large else None
        large = large or len(data) == BLOCK * small
        yield joiner.blocks(data, origin) if batch is None else batch, large
        origin += len(data)
    if not origin:
        damage.note(0, "the file is empty")
    joiner.end()


def _filled(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end: an unbuffered file may give less at a time."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Joiner:
    """Puts the chunks of a record together."""

    def __init__(self, damage: Damage) -> None:
        self._damage = damage
        self._parts: list[bytes] = []
        self._start, self._size = 0, 0

    def blocks(self, data: bytes, origin: int) -> list[tuple[int, bytes]]:
        """The records that end in these blocks, which begin at `origin` in the file."""
        found: list[tuple[int, bytes]] = []
        for start in range(0, len(data), BLOCK):
            at = len(HEADER) if origin + start == 0 else 0
            found += self.block(data[start : start + BLOCK], at, origin + start)
        return found

    def at_once(self, data: bytes, origin: int) -> Batch | None:
        """The same by compiled code; None, and nothing done, where a chunk is damaged or out of place."""
        from parsers.wandb_files.chunks import walk_chunks

        before = b"".join(self._parts)
        room = len(data) // _CHUNK.size + 1
        out, ends, starts = (
            np.empty(len(before) + len(data), np.uint8),
            np.empty(room, np.int64),
            np.empty(room, np.int64),
        )
        out[: len(before)] = np.frombuffer(before, np.uint8)
        state = np.array([len(before), bool(self._parts), self._start - origin], np.int64)
        count = walk_chunks(np.frombuffer(data, np.uint8), LIMIT, out, ends, starts, state)
        if count < 0:
            return None
        done = int(ends[count - 1]) if count else 0
        rest = out[done : state[0]].tobytes()
        self._parts, self._size = [rest] if state[1] else [], len(rest)
        self._start = int(state[2]) + origin
        out.flags.writeable = False  # as what is made of bytes: compiled code tells the two apart
        return Batch(out[:done], ends[:count], starts[:count] + origin)

    def block(self, block: bytes, at: int, origin: int) -> list[tuple[int, bytes]]:
        """The records that end in this block; `at` is where its chunks begin, `origin` where it stands in the file."""
        found: list[tuple[int, bytes]] = []
        unpack, crc_of, length = _CHUNK.unpack_from, zlib.crc32, len(block)
        while at + 7 <= length:
            crc, size, kind = unpack(block, at)
            if not kind and not size and not crc:
                return found  # a block that was laid out and not filled
            end = at + 7 + size
            if end > length or crc_of(block[at + 6 : end]) != crc or not FULL <= kind <= LAST:
                at = self._damaged(block, at, end, origin)
                continue
            if kind == FULL and not self._parts:  # nearly every chunk
                found.append((origin + at, block[at + 7 : end]))
            else:
                found += self._join(kind, block[at + 7 : end], origin + at)
            at = end
        if at < length < BLOCK:
            self._damage.note(origin + at, f"the file ends inside the header of a chunk ({length - at} bytes)")
        return found

    def _join(self, kind: int, data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
        if kind in (FULL, FIRST):
            self._drop("a record has no end; another begins")
            self._start = offset
        elif not self._parts:
            self._damage.note(offset, f"the rest of a record whose beginning is missing ({len(data):,} bytes)", data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > LIMIT:
            self._drop(f"a record of more than {LIMIT:,} bytes is not read")
        elif kind in (FULL, LAST):
            whole, self._parts, self._size = b"".join(self._parts), [], 0
            yield self._start, whole

    def _damaged(self, block: bytes, at: int, end: int, origin: int) -> int:
        """Note the damage at `at`; where to go on in this block."""
        self._drop("a record is damaged further on")
        shown = block[at + _CHUNK.size : end]
        if end > len(block) and len(block) < BLOCK:
            left = len(block) - at
            reason = f"the file ends inside a chunk ({left:,} of {end - at:,} bytes), as when writing was cut"
            self._damage.note(origin + at, reason, shown)
            return len(block)
        if _whole_chunk(block, end):
            reason = f"the checksum of a chunk of {end - at - _CHUNK.size:,} bytes does not match"
            self._damage.note(origin + at, reason, shown)
            return end
        passed = len(block) - at
        self._damage.note(origin + at, f"a chunk is damaged; {passed:,} bytes passed over to the next block", shown)
        return len(block)

    def _drop(self, reason: str) -> None:
        if self._parts:
            self._damage.note(self._start, f"{reason} ({self._size:,} bytes of it were read)", self._parts[0])
        self._parts, self._size = [], 0

    def end(self) -> None:
        """Note what the end of the file leaves unfinished."""
        self._drop("the file ends inside a record, as when writing was cut")


def _whole_chunk(block: bytes, at: int) -> bool:
    if at + _CHUNK.size > len(block):
        return at <= len(block)  # nothing but the filler of a block follows, or the end of the file
    crc, size, kind = _CHUNK.unpack_from(block, at)
    end = at + _CHUNK.size + size
    return bool(FULL <= kind <= LAST and end <= len(block) and zlib.crc32(block[at + 6 : end]) == crc)
