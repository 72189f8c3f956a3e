"""Rotated logs: `train.log`, `train.log.1`, `train.log.2.gz` up to the oldest are one log in parts."""

from __future__ import annotations

import re
from pathlib import Path

from eventstream.errors import InputError
from parsers.places.archives import Packed, packed_suffix
from parsers.places.unpack import PACKED

__all__ = ["is_later_part", "packed_of", "part_before", "parts_of"]

#: A number (larger is older) or a date (larger is newer) after the name.
_PART = re.compile(
    r"(?P<base>.+?\.[A-Za-z]\w*)(?:[.](?P<number>\d{1,4})|[.-](?P<date>\d{4}-?\d\d-?\d\d(?:[-_T]?[\d-]{2,8})?))"
)


def parts_of(path: Path) -> list[Path]:
    """The files of the rotated set that `path` is the newest of, the oldest first; `path` alone where there is no set.

    A set is what stands in one folder under one name with a number (`.1` is newer than `.2`) or a date behind it,
    compressed or not; where a part stands there twice, the one that is not compressed counts.
    """
    if is_later_part(path):
        return [path]
    match = _PART.fullmatch(_plain(path.name))
    base = match["base"] if match else path.name
    return [*(part for part in _set_of(path.parent, base) if _plain(part.name) != _plain(path.name)), path]


def is_later_part(path: Path) -> bool:
    """Whether `path` belongs to a rotated set and is not the file that stands for it (the newest)."""
    match = _PART.fullmatch(_plain(path.name))
    if match is None:
        return False
    if any((path.parent / f"{match['base']}{packed}").exists() for packed in ("", *PACKED)):
        return True
    found = _set_of(path.parent, match["base"])
    return bool(found) and _plain(found[-1].name) != _plain(path.name)


def part_before(path: Path, size: int) -> bytes:
    """The beginning of the part `.1` that was rotated away last, empty where there is none: tells what a log is whose
    newest part has nothing to tell yet. Without a look into the folder, which a tree of many small logs would feel."""
    for packed in ("", *PACKED):
        part = path.parent / f"{path.name}.1{packed}"
        try:
            if part.is_file():
                with (packed_of(part) or part).open("rb") as file:
                    return file.read(size)
        except (OSError, InputError):
            return b""  # the part is judged when it is read
    return b""


def packed_of(path: Path) -> Packed | None:
    """What reads a compressed part as its content and gathers the damage that it meets; None for any other file."""
    return Packed(path) if packed_suffix(path.name) else None


def _set_of(folder: Path, base: str) -> list[Path]:
    """The rotated parts of a name, the oldest first."""
    parts: dict[tuple[str, int], Path] = {}
    # the shorter of two names comes later and counts: the one that is not compressed
    for entry in sorted(folder.iterdir(), key=lambda p: len(p.name), reverse=True):
        match = _PART.fullmatch(_plain(entry.name))
        if match is None or match["base"] != base or entry.is_dir():
            continue
        if match["date"]:
            parts["a" + re.sub(r"\D", "", match["date"]), 0] = entry
        else:
            parts["b", -int(match["number"])] = entry
    return [parts[key] for key in sorted(parts)]


def _plain(name: str) -> str:
    return name[: len(name) - len(packed_suffix(name))]
