"""A small store of what was found before, by a key of the content: in the user's cache folder, safe to lose."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

__all__ = ["KEPT", "Store", "default_folder", "file_key", "reader_key"]

#: Content up to this size is part of the key as a whole; of larger files size, time of change, begin and end are.
WHOLE = 1 << 20
_END = 1 << 16
#: Entries that are kept, the last used ones: some ten megabytes.
KEPT = 20_000
#: A larger file is no store of ours.
_LIMIT = 256 << 20
_PACKAGE = Path(__file__).parents[1]


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/aftertrain`, else `~/.cache/aftertrain` (XDG Base Directory Specification 0.8)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if given and Path(given).is_absolute() else Path("~/.cache").expanduser()
    return base / "aftertrain"


class Store:
    """Values by key in one file. What is missing, damaged, of another reader or unwritable is an empty store.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder))
    ...     store["a"] = {"rows": 1}
    ...     store.save()
    ...     Store(Path(folder)).get("a")
    {'rows': 1}
    """

    def __init__(self, folder: Path, name: str = "runs-v1") -> None:
        self._file = folder / name
        self._entries = self._loaded()
        self._used: dict[str, Any] = {}
        self._changed = False

    def _loaded(self) -> dict[str, Any]:
        try:
            if self._file.stat().st_size > _LIMIT:
                return {}
            digest, _, body = self._file.read_bytes().partition(b"\n")
            if digest != _digest(body):
                return {}
            found = orjson.loads(body)
        except (OSError, ValueError):
            return {}  # the store only spares work: without it everything is read again
        if found.get("reader") != reader_key():
            return {}
        entries: dict[str, Any] = found["entries"]
        return entries

    def get(self, key: str) -> Any:
        """The value of `key`, or None."""
        if key in self._entries:
            self._used[key] = self._entries[key]
        return self._used.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._used[key] = value
        self._changed = True

    def save(self) -> None:
        """Write what is new, whole or not at all; a folder that cannot be written means no cache."""
        if not self._changed:
            return
        kept = {k: v for k, v in self._entries.items() if k not in self._used} | self._used
        entries = dict(list(kept.items())[-KEPT:])
        body = orjson.dumps({"reader": reader_key(), "entries": entries})
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=self._file.name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_digest(body) + b"\n" + body)
                Path(temporary).replace(self._file)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        self._changed = False


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


@cache
def reader_key() -> str:
    """What the results depend on beside the content: the files of this package, and the formats of other packages."""
    from parsers.plugins import plugins

    parts = [f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in sorted(_PACKAGE.rglob("*.py"))]
    return _digest("\n".join([*parts, *plugins().versions]).encode()).decode()


def file_key(path: str, *, log: bool) -> bytes:
    """A key of the content of a file: all of it up to 1 MiB, beyond that size, time of change and 64 KiB at each end.

    Of large files that are no logs (`log=False`: checkpoints, data), size and time of change alone. A file that
    cannot be read has the error as its key. A change that keeps size, time, begin and end of a large file is not seen.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            known = os.fstat(file.fileno())
            if known.st_size <= WHOLE:
                return hashlib.blake2b(file.readall(), digest_size=16).digest()
            told = f"{known.st_size} {known.st_mtime_ns}".encode()
            if not log:
                return told
            begin = file.read(_END)
            file.seek(-_END, os.SEEK_END)
            return hashlib.blake2b(begin + file.read(_END) + told, digest_size=16).digest()
    except OSError as error:
        return f"unreadable {error.errno}".encode()
