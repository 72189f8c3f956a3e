"""A folder of pieces of bytes by key, bounded, each file whole or not there; safe to lose."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["PIECE", "TOTAL", "Shelf"]

#: A larger piece is not kept: checking its digest alone would take a third of a second, and four fill the shelf.
PIECE = 256 << 20
#: All pieces together: what a cache may take of a home folder without being asked. The least used go first.
TOTAL = 1 << 30
#: More files than this slow down the folder itself.
FILES = 20_000
#: After the bound is passed, this share of it stays.
_STAYS = 0.8
#: Pieces of this size and more are mapped and not read: what is never looked at is never loaded.
_MAPPED = 1 << 20
#: A piece counts as used once a day: writing the time at each use would cost as much as the use.
_DAY = 86_400.0
_TEMPORARY = ".new"


class Shelf:
    """Pieces of bytes by key, in files of one folder. What cannot be read is not there, what cannot be written is lost.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shelf = Shelf(Path(folder))
    ...     shelf.put("a1", b"some bytes")
    ...     bytes(shelf.get("a1")), shelf.get("b2")
    (b'some bytes', None)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._grown = False

    def get(self, key: str) -> memoryview | None:
        """The bytes under `key`, or None. The file may go while they are in use."""
        try:
            with (self._folder / key).open("rb", buffering=0) as file:
                known = os.fstat(file.fileno())
                if not 0 < known.st_size <= PIECE:
                    return None
                if time.time() - known.st_mtime > _DAY:
                    with suppress(OSError):
                        os.utime(file.name)
                if known.st_size < _MAPPED:
                    return memoryview(file.read())
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError:
            return None  # it only spares work: without it everything is read again

    def drop(self, key: str) -> None:
        """Forget what is under `key`: it was damaged."""
        with suppress(OSError):
            (self._folder / key).unlink(missing_ok=True)

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, whole or not at all; more than `PIECE` bytes are not kept."""
        if len(data) > PIECE:
            return
        with suppress(OSError):  # a full disk, a folder of somebody else: no cache, and no reason to stop
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=key, suffix=_TEMPORARY)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(temporary).replace(self._folder / key)
                self._grown = True
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    def trim(self) -> None:
        """Where something was added: remove the least used until the bounds hold, and what others left half-written."""
        if not self._grown:
            return
        self._grown = False
        with suppress(OSError):
            kept: list[tuple[float, int, str]] = []
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    known = entry.stat(follow_symlinks=False)
                    if not entry.name.endswith(_TEMPORARY):
                        kept.append((known.st_mtime, known.st_size, entry.path))
                    elif time.time() - known.st_mtime > _DAY:
                        Path(entry.path).unlink(missing_ok=True)
            _remove_oldest(kept)


def _remove_oldest(kept: list[tuple[float, int, str]]) -> None:
    size, files = sum(one[1] for one in kept), len(kept)
    if size <= TOTAL and files <= FILES:
        return
    for _, bytes_of, path in sorted(kept):
        if size <= TOTAL * _STAYS and files <= FILES * _STAYS:
            return
        Path(path).unlink(missing_ok=True)
        size, files = size - bytes_of, files - 1
