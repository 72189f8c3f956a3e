"""Which saves are one and the same: links to a file, and files of the same content under another name."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ["same_content", "same_file"]

#: Bytes that are compared in one go.
_BLOCK = 1 << 20
#: Places spread over the file that are compared before everything is: two saves of one model differ at most of them.
_PLACES, _SAMPLE = 64, 4_096


def same_file(files: Sequence[Path], preferred: Callable[[Path], bool]) -> dict[Path, Path]:
    """For each of `files` that is a link to another, that other.

    Of hard links the one that is `preferred`, else the first by name, is the one that the others are links to; of
    symbolic ones it is the file itself, where it is among `files`.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     step, last = Path(folder, "step_9.pt"), Path(folder, "last.pt")
    ...     _ = step.write_bytes(b"weights")
    ...     os.link(step, last)
    ...     same_file([last, step], lambda file: file.name.startswith("step"))[last].name
    'step_9.pt'
    """
    groups: dict[tuple[int, int], list[Path]] = {}
    for file in files:
        try:
            found = file.stat()
        except OSError:  # gone meanwhile
            continue
        groups.setdefault((found.st_dev, found.st_ino), []).append(file)
    links: dict[Path, Path] = {}
    for group in groups.values():
        origin = min(group, key=lambda file: (file.is_symlink(), not preferred(file), file.name))
        links |= {file: origin for file in group if file != origin}
    return links


def same_content(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; all are compared, unless a sample of them already differs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, other = Path(folder, "a"), Path(folder, "b")
    ...     _ = one.write_bytes(b"weights"), other.write_bytes(b"weights")
    ...     same_content(one, other)
    True
    """
    try:
        size = one.stat().st_size
        if size != other.stat().st_size or size == 0:
            return False
        with one.open("rb") as first, other.open("rb") as second, _mapped(first) as left, _mapped(second) as right:
            places = [*(size * n // _PLACES for n in range(_PLACES)), max(size - _SAMPLE, 0)]
            if any(left[at : at + _SAMPLE] != right[at : at + _SAMPLE] for at in places):
                return False
            return all(left[at : at + _BLOCK] == right[at : at + _BLOCK] for at in range(0, size, _BLOCK))
    except (OSError, ValueError):  # gone or cut meanwhile: no copy that could be told
        return False


def _mapped(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
