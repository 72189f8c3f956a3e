"""The walker for large event files: feeds the compiled walk, keeps its table of tags, and turns bits into numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from parsers.tfevents import kernel
from parsers.tfevents.events import Columns, EventFile
from parsers.tfevents.records import Stop

__all__ = ["CompiledWalker"]

#: Rows and odd records taken in one call; a summary of more values doubles it.
ROOM, ODD = 1 << 20, 4096


@dataclass(slots=True)
class _Table:
    """The tags met in one file, by the hash of their bytes; at most half of the slots are taken."""

    slots: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(256, -1, np.int32))
    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(128, np.uint64))
    starts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(128, np.int64))
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(128, np.int64))
    pool: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(8192, np.uint8))
    #: The number of each tag among all of the run.
    numbers: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(128, np.int32))
    #: The tag that followed each when it was last met, -1 where none did.
    after: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(128, -1, np.int32))
    _known: int = 0
    _used: int = 0

    def arrays(self) -> tuple[Any, ...]:
        return self.slots, self.hashes, self.starts, self.lengths, self.pool

    def add(self, tag: bytes, number: int) -> None:
        """A tag that is not in the table yet."""
        new = self._known
        if new == len(self.hashes):
            self.hashes, self.starts, self.lengths = map(_doubled, (self.hashes, self.starts, self.lengths))
            self.numbers, self.after = _doubled(self.numbers), np.full(2 * new, -1, np.int32)
            self.slots = np.full(4 * new, -1, np.int32)
            for old in range(new):
                self._place(old)
        while self._used + len(tag) > len(self.pool):
            self.pool = _doubled(self.pool)
        self.pool[self._used : self._used + len(tag)] = np.frombuffer(tag, np.uint8)
        self.starts[new], self.lengths[new] = self._used, len(tag)
        self.hashes[new] = kernel.tag_hash(self.pool, self._used, len(tag))
        self._used += len(tag)
        self.numbers[new] = number
        self._known += 1
        self._place(new)

    def _place(self, tag: int) -> None:
        hashed, last = int(self.hashes[tag]), len(self.slots) - 1
        place = (hashed ^ hashed >> 32) & last
        while self.slots[place] >= 0:
            place = (place + 1) & last
        self.slots[place] = tag


def _doubled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([array, np.empty_like(array)])


class CompiledWalker:
    """Takes plain scalar events by the compiled walk, and every other record as the plain walker does."""

    def __init__(self, file: EventFile) -> None:
        self._file, self._table = file, _Table()
        self._others = np.empty((ODD, 3), np.int64)
        self._make_room(ROOM)

    def walk(self, data: bytes, at: int, origin: int) -> tuple[int, Stop]:
        """As `parsers.tfevents.records.Walker` says."""
        whole, table = np.frombuffer(data, np.uint8), self._table
        count = odd = 0
        while True:
            at, stop, count, odd, tag, length = kernel.walk(
                whole, at, table.arrays(), table.after, self._rows, self._others, (count, odd)
            )
            if stop == kernel.NEW_TAG:
                name = data[tag : tag + length]
                table.add(name, self._file.tags.number(name.decode("utf-8", "replace")))
                continue
            self._take(count, odd, data, origin)
            if stop != kernel.FULL:
                return at, Stop(stop)
            if not count and not odd:
                self._make_room(2 * len(self._rows[0]))
            count = odd = 0

    def _take(self, count: int, odd: int, data: bytes, origin: int) -> None:
        """Hand over what one piece of the file gave."""
        before = self._file.fast
        if count:
            self._file.add_block(self._block(count))
        for start, size, rows in self._others[:odd].tolist():
            self._file.add_at(data[start : start + size], origin + start - 12, before + rows)

    def _make_room(self, size: int) -> None:
        bits = np.empty(size, np.uint64)
        self._rows = np.empty(size, np.int32), np.empty(size, np.int64), bits, bits.copy(), np.empty(size, np.int8)

    def _block(self, count: int) -> Columns:
        tags, steps, walls, bits, forms = self._rows
        times = walls[:count].copy().view(np.float64)
        return self._table.numbers[tags[:count]], steps[:count].copy(), times, _floats(bits[:count], forms[:count])


def _floats(bits: npt.NDArray[np.uint64], forms: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """The numbers that the bits stand for, each in its form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a signalling NaN of a file stays a NaN
        found = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    if forms.any():
        double, whole = forms == kernel.FORM["f8"], forms == kernel.FORM["i8"]
        found[double] = bits[double].view(np.float64)
        found[whole] = bits[whole].view(np.int64)
    return found
