"""SHA-256 of a checkpoint that may be replaced while it is read: the digest of what stood there, or an error."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["AT_ONCE", "ChangedError", "State", "bytes_of", "digest_of", "state_of"]

#: Large, because the interpreter is asked for between chunks, and the training has it.
_CHUNK = 4 << 20
#: Bytes that are hashed in the call itself, in about a hundredth of a second; larger checkpoints in the background.
AT_ONCE = 8 << 20

#: Relative name (empty for a file itself) with inode, size and time of change, in the order of names.
State = tuple[tuple[str, tuple[int, int, int]], ...]


class ChangedError(Exception):
    """A checkpoint was replaced or removed while it was read, so that no digest of it can be given."""


def state_of(path: Path) -> State:
    """What stands at `path`, a file or a folder of files. Raises OSError where nothing does."""
    return tuple(_files(path))


def bytes_of(state: State) -> int:
    """Size of all files together."""
    return sum(size for _, (_, size, _) in state)


def digest_of(path: Path, state: State) -> str:
    """SHA-256 of a file's content; of a folder, over `name\\\\0size\\\\0content` of its files in the order of names.

    From `state` on, what `state_of` gave, until the end of the reading the files must stay as they are: raises
    ChangedError where they were replaced, grew or vanished, and OSError where they cannot be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "model.pt")
    >>> path.write_bytes(b"weights")
    7
    >>> digest_of(path, state_of(path))[:16]
    '9a129038d9a00aed'
    """
    digest = hashlib.sha256()
    try:
        for name, (_, size, _) in state:
            if name:
                digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            _update(digest, path / name if name else path)
        after = state_of(path)
    except FileNotFoundError as error:
        raise ChangedError("it was removed before it was read") from error
    if after != state:
        raise ChangedError("it was replaced before it was read")
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    if not path.is_dir():
        yield "", _facts(path.stat())
        return
    for file in sorted(part for part in path.rglob("*") if part.is_file()):
        yield file.relative_to(path).as_posix(), _facts(file.stat())


def _facts(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _update(digest: Any, file: Path) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            digest.update(buffer[:count])
