"""The files that records are appended to: one process, one attempt, segment after segment, each line in one write."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from eventstream.locks import try_lock
from eventstream.records import SegmentName
from eventstream.troubles import NotRecordingError

__all__ = ["SegmentWriter"]

_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
CLOSED = "the recorder is closed; what comes after is not recorded"
FORKED = (
    "this process inherited the recorder from its parent, which alone can record; "
    "record in the parent, or make a Recorder with another rank here"
)


def _next_attempt(folder: Path, rank: int) -> int:
    names = (SegmentName.parse(entry.name) for entry in os.scandir(folder))
    return max((name.attempt + 1 for name in names if name is not None and name.rank == rank), default=0)


class SegmentWriter:
    """Appends lines to the newest segment of a new attempt of `rank` in `folder`.

    `full(path)` is called with each segment that was left for the next one, `trouble(kind, message)` where no next
    one could be opened (the old one then grows on). Threads may write at once. In a forked child the writer closes
    its copy of the descriptor and refuses to write, so that parent and child never share a file.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        limit: int,
        *,
        full: Callable[[Path], None],
        trouble: Callable[[str, str], None],
    ) -> None:
        self._folder, self._limit, self._full, self._trouble = folder, limit, full, trouble
        # Reentrant: a signal handler may record a note while the main thread is inside `write`.
        self._lock = threading.RLock()
        self._torn, self._room = False, limit
        self._stopped = CLOSED
        self._name, self._fd = self._open_attempt(rank)
        _LIVE.add(self)

    def _open_attempt(self, rank: int) -> tuple[SegmentName, int]:
        """The first segment of the first attempt that nobody has: exclusive creation settles two starts at once."""
        attempt = _next_attempt(self._folder, rank)
        while True:
            name = SegmentName(rank, attempt, 0)
            with suppress(FileExistsError):
                fd = self._open(name)
                if not (self._folder / name.parquet).exists():
                    return name, fd
                # Another start took, ended and sealed this attempt since the folder was listed.
                os.close(fd)
                (self._folder / name.jsonl).unlink()
            attempt += 1

    def _open(self, name: SegmentName) -> int:
        fd = os.open(self._folder / name.jsonl, _OPEN, 0o666)
        try_lock(fd)
        return fd

    @property
    def attempt(self) -> int:
        """The attempt that this writer writes."""
        return self._name.attempt

    @property
    def current(self) -> Path:
        """The segment that is written now."""
        return self._folder / self._name.jsonl

    @classmethod
    def stopped(cls) -> SegmentWriter:
        """A writer without a file that refuses every line: what a copy of a recorder has."""
        writer = cls.__new__(cls)
        writer._lock, writer._fd, writer._stopped = threading.RLock(), -1, FORKED
        return writer

    def check(self) -> None:
        """Raise what `write` would raise when nothing can be written any more."""
        if self._fd < 0:
            raise NotRecordingError(self._stopped)

    def write(self, line: bytes) -> None:
        """Hand one line, which ends in a newline, to the operating system; OSError where that fails."""
        with self._lock:
            if self._fd < 0:
                raise NotRecordingError(self._stopped)
            if self._torn:
                self._end_torn_line()
            written = os.write(self._fd, line)
            if written != len(line):
                self._complete(line, written)
            self._room -= written
            if self._room <= 0:
                self._roll()

    def _end_torn_line(self) -> None:
        """What stands of the torn record becomes a bad line by itself, and the next record a whole one."""
        os.write(self._fd, b"\n")
        self._torn = False

    def _complete(self, line: bytes, written: int) -> None:
        """Write the rest after a short write, or take the part back, so that no cut record stands before whole ones."""
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            self._torn = True
            with suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
                self._torn = False
            raise

    def _roll(self) -> None:
        old = self._name
        name = SegmentName(old.rank, old.attempt, old.number + 1)
        try:
            fd = self._open(name)
        except OSError as error:
            self._room = self._limit
            self._trouble("segment", f"no new segment could be opened ({error.strerror}); the old one grows on")
            return
        previous, self._fd, self._name = self._fd, fd, name
        self._room = self._limit
        os.close(previous)
        self._full(self._folder / old.jsonl)

    def close(self) -> None:
        """Close the segment; later writes are refused."""
        self._stop(CLOSED)

    def withdraw(self) -> None:
        """Take back a start that came to nothing: close the segment and remove it where it is empty."""
        self._stop(CLOSED)
        with suppress(OSError):
            if not self.current.stat().st_size:
                self.current.unlink()

    def abandon(self) -> None:
        """In a forked child: give up the copy of the descriptor, and with it the share in its lock."""
        self._lock = threading.RLock()  # another thread of the parent may have held the old one at the fork
        if self._fd >= 0:
            self._stop(FORKED)

    def _stop(self, why: str) -> None:
        with self._lock:
            fd, self._fd, self._stopped = self._fd, -1, why
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            with suppress(OSError):
                os.close(self._fd)


_LIVE: weakref.WeakSet[SegmentWriter] = weakref.WeakSet()


def _abandon_all() -> None:
    for writer in list(_LIVE):
        writer.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
