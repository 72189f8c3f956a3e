"""Rotated logs: `train.log`, `train.log.1`, `train.log.2.gz` up to the oldest are one log in parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Any, cast

from eventstream.optional import need

__all__ = ["is_later_part", "opened", "parts_of"]

#: A number (larger is older) or a date (larger is newer) after the name, and how it is compressed.
_PART = re.compile(
    r"(?P<base>.+?\.[A-Za-z]\w*)(?:[.](?P<number>\d{1,4})|[.-](?P<date>\d{4}-?\d\d-?\d\d(?:[-_T]?[\d-]{2,8})?))"
    r"(?P<packed>\.gz|\.bz2|\.xz|\.zst)?"
)


def parts_of(path: Path) -> list[Path]:
    """The files of the rotated set that `path` is the newest of, the oldest first; `path` alone where there is no set.

    A set is what stands in one folder under one name with a number (`.1` is newer than `.2`) or a date behind it,
    compressed or not; where a part stands there twice, the one that is not compressed counts.
    """
    if is_later_part(path):
        return [path]
    match = _PART.fullmatch(path.name)
    base = match["base"] if match else path.name
    found = _set_of(path.parent, base)
    return [*(part for part in found if part.name != path.name), path] if found else [path]


def is_later_part(path: Path) -> bool:
    """Whether `path` belongs to a rotated set and is not the file that stands for it (the newest)."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return False
    if (path.parent / match["base"]).exists():
        return True
    found = _set_of(path.parent, match["base"])
    return bool(found) and found[-1].name != path.name


def _set_of(folder: Path, base: str) -> list[Path]:
    """The rotated parts of a name, the oldest first."""
    numbered: dict[tuple[str, int], Path] = {}
    for entry in sorted(folder.iterdir(), key=lambda p: len(p.name), reverse=True):  # the shorter name, later, counts
        match = _PART.fullmatch(entry.name)
        if match is None or match["base"] != base or entry.is_dir():
            continue
        if match["date"]:
            key = ("a" + re.sub(r"\D", "", match["date"]), 0)
        else:
            key = ("b", -int(match["number"]))
        numbered[key] = entry
    return [numbered[key] for key in sorted(numbered)]


class _Packed:
    """A compressed file that opens as what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The content, decompressed while it is read: never as a whole in memory or on disk."""
        raw = self.path.open("rb")
        return cast(IO[bytes], _unpacked(self.path.suffix, raw))

    def __str__(self) -> str:
        return str(self.path)


def opened(path: Path) -> Path:
    """`path`, or what opens as its content where it is compressed (gzip, bzip2, xz; zstandard where installed)."""
    return cast(Path, _Packed(path)) if path.suffix in {".gz", ".bz2", ".xz", ".zst"} else path


def _unpacked(suffix: str, raw: IO[bytes]) -> Any:
    if suffix == ".zst":
        module = need("zstandard", feature="reading .zst logs", extra="all")
        return module.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=True)
    module = need({".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}[suffix], feature="reading", extra="all")
    return module.open(raw, "rb")
