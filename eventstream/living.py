"""Who records into a run folder now: a second recorder of the same rank is refused at its start, a dead one is not."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from eventstream.errors import InputError
from eventstream.locks import folder_lock, try_lock
from eventstream.records import SegmentName

__all__ = ["Recording", "enter_folder", "remember"]

#: A process that was told to end may still be closing its run when the next one starts.
GRACE_S = 5.0
_PAUSE_S = 0.05

T = TypeVar("T")


class Recording(Protocol):
    """What is asked of a recorder of this process."""

    path: Path
    rank: int
    attempt: int

    @property
    def closed(self) -> bool:
        """Whether it records no more."""
        ...


_OPEN: weakref.WeakSet[Recording] = weakref.WeakSet()


def remember(recorder: Recording) -> None:
    """Know a recorder of this process for as long as it lives."""
    _OPEN.add(recorder)


def enter_folder(path: Path, rank: int, begin: Callable[[], T]) -> T:
    """What `begin` gives, called while no living recorder of `rank` is in the folder and no other can start.

    The newest segment of the rank is locked for as long as its writer lives. Raises InputError that names the process
    where it still lives after five seconds, and at once where it is this process. Where the file system has no locks,
    nobody is seen and nobody refused.
    """
    for former in _of_this_process(path, rank):
        raise InputError(
            f"{path}: this process records here already, as rank {rank} (attempt {former.attempt}); close that "
            "recorder first, or give this one another folder"
        )
    deadline = time.monotonic() + GRACE_S
    while True:
        with folder_lock(path):
            held = _held_segment(path, rank)
            if held is None:
                return begin()
        if time.monotonic() >= deadline:
            raise InputError(_refusal(path, held))
        time.sleep(_PAUSE_S)


def _of_this_process(path: Path, rank: int) -> Iterator[Recording]:
    for recorder in list(_OPEN):
        if not recorder.closed and recorder.rank == rank:
            with suppress(OSError):  # a folder that was removed meanwhile is not this one
                if recorder.path.samefile(path):
                    yield recorder


def _held_segment(path: Path, rank: int) -> Path | None:
    """The newest segment of the rank where a living process holds it.

    Older ones may be held for a while by the sealing that a dead process has left behind.
    """
    names = (SegmentName.parse(entry.name) for entry in os.scandir(path))
    newest = max((name for name in names if name is not None and name.rank == rank), default=None)
    if newest is None:
        return None
    segment = path / newest.jsonl
    with suppress(FileNotFoundError), segment.open("rb") as file:
        return segment if try_lock(file.fileno()) is False else None
    return None


def _refusal(path: Path, segment: Path) -> str:
    name = SegmentName.parse(segment.name)
    assert name is not None
    process = _holder(segment)
    who = "another process" if process is None else f"process {process}"
    return (
        f"{path}: {who} is recording here as rank {name.rank} (attempt {name.attempt}); give each run a folder of its "
        "own and each process of one run its rank (RANK, or rank=), or end that process first"
    )


def _holder(segment: Path) -> int | None:
    """The process that holds the lock on a file, where the system tells."""
    with suppress(OSError):
        inode = str(segment.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            parts = line.split()
            # "1: FLOCK ADVISORY WRITE 4711 08:02:131104 0 EOF"; the device's number is not the same everywhere
            if len(parts) > 5 and parts[1] == "FLOCK" and parts[5].rpartition(":")[2] == inode and int(parts[4]) > 0:
                return int(parts[4])
    return None
