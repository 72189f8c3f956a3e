"""Bytes of files to which others may write meanwhile: small ones are copied, large ones mapped, all checked."""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CHANGED", "DELETED", "FileBytes", "content"]

#: Shorter spans are copied: a map costs a system call or two and a descriptor, and more pages than it shows.
_COPIED = 64 << 10
#: Files up to this length are read in one go, and so many of the last ones kept: saves of small models by the thousand.
_WHOLE, _KEPT = 8 << 20, 3
#: Bytes of a large page of most systems: what one entry of the page table can hold of a file.
_LARGE_PAGE = 2 << 20
#: Files that are mapped at a time: each holds a descriptor, and many systems allow a process 256 or 1,024.
_MOST_MAPPED = 64
#: What stands in each message about a file that was written to between opening and reading.
CHANGED = "changed while it was read"
DELETED = "it was deleted"

#: Inode, length, and time of the last writing.
_State = tuple[int, int, int]


class FileBytes:
    """Bytes of files, opened when first asked for. A file must stay as it was when it was first seen, or `expect`ed.

    Touching a mapped page beyond the end of a file that was cut meanwhile kills the process (SIGBUS), and no exception
    can be made of that. So the state of the file is looked at before each span is given out; small spans are copied by
    `read`, which cannot fault. What remains is a file that is cut in the moment in which a large span is worked on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a").write_bytes(b"abcdef")
    ...     bytes(FileBytes().span(Path(folder, "a"), 1, 3))
    b'bcd'
    """

    def __init__(self) -> None:
        self._states: dict[Path, _State] = {}
        self._maps: OrderedDict[Path, mmap.mmap] = OrderedDict()
        self._whole: OrderedDict[Path, bytes] = OrderedDict()

    def expect(self, states: dict[Path, os.stat_result]) -> None:
        """Take these states for those in which the files have to stay."""
        self._states.update((file, _state(found)) for file, found in states.items())

    def joined(self, others: Iterable[FileBytes]) -> None:
        """Expect of files what `others` expect of them."""
        for other in others:
            self._states.update(other._states)

    def changed(self) -> bool:
        """Whether any of the files that were seen or expected is not any more what it was, or is gone."""
        for file, known in self._states.items():
            try:
                now = _state(file.stat())
            except OSError:
                return True
            if now != known:
                return True
        return False

    def span(self, file: Path, start: int, length: int) -> memoryview:
        """The bytes of `file` from `start` on; `ValueError` where they are not there or the file changed."""
        if file in self._maps:
            self._maps.move_to_end(file)
            self._still(file, self._maps[file])
            return _cut(memoryview(self._maps[file]), start, length)
        if file in self._whole:
            self._whole.move_to_end(file)
            return _cut(memoryview(self._whole[file]), start, length)
        try:
            descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError as error:
            if file not in self._states:
                raise
            raise ValueError(f"the file {CHANGED}: {DELETED}") from error
        try:
            return self._opened(file, descriptor, start, length)
        finally:
            os.close(descriptor)

    def release(self, file: Path, start: int, length: int) -> None:
        """Drop the pages that hold these bytes from this process's memory; later reads bring them again."""
        if file not in self._maps or not hasattr(mmap, "MADV_DONTNEED"):  # some systems drop pages of their own accord
            return
        # by whole large pages: to cut one costs more than to keep it until what follows is done with too
        first, end = (place - place % _LARGE_PAGE for place in (start, start + length))
        if end > first:
            self._maps[file].madvise(mmap.MADV_DONTNEED, first, end - first)

    def close(self) -> None:
        """Unmap all files, but for those of which a view is still held: these go with the view."""
        for mapped in self._maps.values():
            _unmapped(mapped)
        self._maps.clear()
        self._whole.clear()

    def _opened(self, file: Path, descriptor: int, start: int, length: int) -> memoryview:
        found = os.fstat(descriptor)
        self._check(file, _state(found))
        size = found.st_size
        if start < 0 or start + length > size:
            raise ValueError(_beyond(start, length, size))
        if size <= _WHOLE:
            self._whole[file] = _copied(descriptor, 0, size)
            if len(self._whole) > _KEPT:
                self._whole.popitem(last=False)
            return _cut(memoryview(self._whole[file]), start, length)
        if length <= _COPIED:
            return memoryview(_copied(descriptor, start, length))
        self._maps[file] = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        if len(self._maps) > _MOST_MAPPED:
            _unmapped(self._maps.popitem(last=False)[1])
        return _cut(memoryview(self._maps[file]), start, length)

    def _still(self, file: Path, mapped: mmap.mmap) -> None:
        """A file that was deleted, or replaced under its name, is still whole where it is mapped; a cut one is not."""
        if mapped.size() < len(mapped):
            raise ValueError(_told((0, len(mapped), 0), (0, mapped.size(), 0)))
        try:
            now = _state(file.stat())
        except OSError:  # deleted, or its folder: what is mapped stays
            return
        if now[0] == self._states[file][0]:
            self._check(file, now)

    def _check(self, file: Path, now: _State) -> None:
        known = self._states.setdefault(file, now)
        if now != known:
            raise ValueError(_told(known, now))


@contextmanager
def content(file: Path) -> Iterator[bytes | mmap.mmap]:
    """All bytes of a file: of a small one a copy, which nobody can cut off meanwhile, of a large one a map.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a").write_bytes(b"abc")
    ...     with content(Path(folder, "a")) as found:
    ...         found[1:]
    b'bc'
    """
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size <= _WHOLE:
            yield opened.read()
            return
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def _state(found: os.stat_result) -> _State:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _told(known: _State, now: _State) -> str:
    how = f"it had {known[1]:,} bytes and has {now[1]:,}" if known[1] != now[1] else "it was written again"
    return f"the file {CHANGED}: {how}; read it when nothing writes to it, or read a copy"


def _cut(held: memoryview, start: int, length: int) -> memoryview:
    if start < 0 or start + length > len(held):
        raise ValueError(_beyond(start, length, len(held)))
    return held[start : start + length]


def _beyond(start: int, length: int, size: int) -> str:
    return f"bytes {start:,} to {start + length:,} of a file of {size:,}"


def _copied(descriptor: int, start: int, length: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    parts, left = [], length
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    if left:
        raise ValueError(f"the file {CHANGED}: it ends {left:,} bytes before the end of what was to be read")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unmapped(mapped: mmap.mmap) -> None:
    try:
        mapped.close()
    except BufferError:  # an array of the caller's still looks at it
        return
