"""Which event files make one run: a folder of them, with the sub-folders that their writers open beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parsers.content.protobuf import WireError, body, fields, text
from parsers.places.place import is_link
from parsers.tables.columns import SPLIT_WORDS
from parsers.tfevents.records import frames, next_header

__all__ = ["Part", "event_files", "is_event_file", "layout"]

MARK = "tfevents"
HEAD = 1 << 16
#: How deep sub-folders are looked into: a name given to `add_scalars` may hold slashes, but not many.
DEPTH = 4
#: torch's `add_hparams` names its sub-folder by the clock, as HF's callback does.
_CLOCK = re.compile(r"\d{9,11}(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Part:
    """Event files of one folder: `name` is its own inside the run (empty for the run's), `split` what it stands for."""

    files: tuple[Path, ...]
    name: str = ""
    split: str = ""

    def tag(self, tag: str) -> str:
        """The tag that the training logged: torch's `add_scalars("loss", {"a": 1})` writes `loss` in folder `loss_a`.

        >>> Part((), "loss_a").tag("loss"), Part((), "1700000000.5").tag("hparam/accuracy")
        ('loss/a', 'hparam/accuracy')
        """
        opened = tag.replace("/", "_") + "_"
        return f"{tag}/{self.name[len(opened) :]}" if self.name.startswith(opened) else tag


def is_event_file(name: str, head: bytes) -> bool:
    """Whether a file begins as an event file: a record with a valid checksum that names the version of the format.

    Where the first record is damaged, the file's name and any record with a whole header in `head` count.
    """
    found = frames(head, 0, 1)[0]
    if found and found[0][2]:
        start, size, _ = found[0]
        try:
            version = [value for key, value in fields(head[start : start + size]) if key == 3]
        except WireError:
            return False
        if version and isinstance(version[0], bytes) and version[0].startswith(b"brain.Event:"):
            return True
    return MARK in name and next_header(head) >= 0


def event_files(folder: Path) -> list[Path]:
    """The files of a folder that have an event file's name, sorted by name."""
    return sorted((p for p in folder.iterdir() if MARK in p.name and p.is_file()), key=lambda p: p.name)


def layout(folder: Path) -> list[Part]:
    """The parts of the run in `folder`; none where it is no run, or holds other runs too.

    Event files of a folder are one run with those of its sub-folders `train`, `validation`, `eval` and the like, of
    `add_scalars` (`loss_a` with the tag `loss`) and of `add_hparams` (named by the clock). A folder that holds only
    sub-folders of the first kind is one run as well.
    """
    own = event_files(folder)
    below = [part for name, sub in _folders(folder, DEPTH if own else 1) if (part := _part(name, sub)) is not None]
    if own:
        every = [Part(tuple(own)), *below]
        return every if all(part == every[0] or _belongs(part) for part in every) else []
    return below if all(part.split for part in below) else []


def _folders(folder: Path, depth: int, prefix: str = "") -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.iterdir(), key=lambda p: p.name):
        if depth and not entry.name.startswith(".") and entry.is_dir() and not is_link(entry):
            yield prefix + entry.name, entry
            yield from _folders(entry, depth - 1, f"{prefix}{entry.name}/")


def _part(name: str, folder: Path) -> Part | None:
    files = event_files(folder)
    return Part(tuple(files), name, SPLIT_WORDS.get(name.lower(), "")) if files else None


def _belongs(part: Part) -> bool:
    if part.split or _CLOCK.fullmatch(part.name):
        return True
    tags = [_first_tag(file) for file in part.files]
    return all(tag is not None and part.tag(tag) != tag for tag in tags)


def _first_tag(path: Path) -> str | None:
    """The tag of the first value of an event file, looked for in its head."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for start, size, good in frames(head, 0, 100)[0]:
        try:
            found = _tags(head[start : start + size]) if good else []
        except WireError:
            found = []
        if found:
            return found[0]
    return None


def _tags(event: bytes) -> list[str]:
    values = [body(v) for n, s in fields(event) if n == 5 for k, v in fields(body(s)) if k == 1]
    return [text(tag) for value in values for key, tag in fields(value) if key == 1]
