"""A file that lines are appended to and that is rotated: `train.log`, `train.log.1.gz` (newer) to `train.log.5.gz`."""

from __future__ import annotations

import gzip
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["RotatingFile"]

_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
_CHUNK = 1 << 20
#: A text log becomes a fifth of its size, as it does at level 9 within a tenth, at six times the speed.
_LEVEL = 1


class RotatingFile:
    """Appends text to `path`; beyond `limit` bytes the file becomes backup 1, of which `backups` are kept.

    What `write` was given is with the operating system when it returns. Rotating is a rename; the backup is compressed
    by a thread beside the training (zlib gives the interpreter free), and where that is not done when the next
    rotation comes, the file grows on meanwhile. A compression that was cut (the process killed) leaves the backup as
    it was, which readers take as well, and is made up for at the next rotation. The file is opened at the first write
    and again at a write after `close`. A forked child appends to the file of that name and leaves rotating to its
    parent.
    """

    def __init__(self, path: Path, limit: int, backups: int) -> None:
        self.path = path
        self._limit, self._backups = limit, backups
        self._fd, self._size, self._ceiling = -1, 0, limit
        self._owner = os.getpid()
        self._torn = False
        self._packing: threading.Thread | None = None

    def write(self, text: bytes) -> None:
        """Append `text`, whole lines; OSError where the system refuses it."""
        if os.getpid() != self._owner:
            self._follow()
        self.open()
        if self._size and self._size + len(text) > self._ceiling and os.getpid() == self._owner:
            self._rotate()
        if self._torn:  # what stands of a block that was refused halfway becomes a line by itself
            text = b"\n" + text
        written = 0
        try:
            while written < len(text):
                written += os.write(self._fd, text[written:] if written else text)
            self._torn = False
        except OSError:
            self._torn = self._torn or written > 0
            raise
        finally:
            self._size += written

    def open(self) -> None:
        """Open the file, made with its folders where it is missing; nothing where it is open."""
        if self._fd < 0:
            self._open()

    def close(self) -> None:
        """Close the file and wait until its backups are compressed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._packing is not None and os.getpid() == self._owner:
            self._packing.join()
            self._packing = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, _OPEN, 0o666)
        self._size = os.fstat(self._fd).st_size
        self._ceiling = self._limit

    def _follow(self) -> None:
        """In a child: leave a file that the parent has rotated away."""
        if self._fd < 0:
            return
        try:
            same = os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            same = False
        if not same:
            os.close(self._fd)
            self._fd = -1

    def _rotate(self) -> None:
        if self._packing is not None and self._packing.is_alive():
            return
        os.close(self._fd)  # an open file cannot be renamed everywhere
        self._fd = -1
        try:
            self._shift()
            self.path.replace(self._backup(1))
        except OSError:
            # Full folders and odd permissions pass; the log grows on and the next try comes a whole file later.
            self._open()
            self._ceiling = self._size + self._limit
            return
        self._open()
        plain = [path for n in range(1, self._backups + 1) if (path := self._backup(n)).exists()]
        self._packing = threading.Thread(target=_pack_all, args=(plain,), name="aftertrain-log", daemon=True)
        self._packing.start()

    def _shift(self) -> None:
        """Each backup takes the next number, compressed or not; the last one goes."""
        for number in range(self._backups, 0, -1):
            plain, packed = self._backup(number), _packed(self._backup(number))
            if plain.exists():
                packed.unlink(missing_ok=True)  # a compression that ended before its source was removed
            for path in (plain, packed):
                if not path.exists():
                    continue
                if number == self._backups:
                    path.unlink()
                else:
                    target = self._backup(number + 1)
                    path.replace(target if path == plain else _packed(target))

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _packed(backup: Path) -> Path:
    return backup.with_name(f"{backup.name}.gz")


def _pack_all(backups: list[Path]) -> None:
    for backup in backups:
        target = _packed(backup)
        # A hidden name: no reader of logs takes it for a part of the set.
        begun = target.with_name(f".{target.name}.tmp")
        try:
            with backup.open("rb") as source, gzip.open(begun, "wb", compresslevel=_LEVEL) as packed:
                shutil.copyfileobj(source, packed, _CHUNK)
            begun.replace(target)
            backup.unlink()
        except OSError:
            # No room to compress: the backup stays as it is, readable, until the next rotation.
            with suppress(OSError):
                begun.unlink(missing_ok=True)
