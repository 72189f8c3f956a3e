"""The runs below a folder or inside an archive: each once, in order of path, and what could not be looked into."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from parsers.archives import Member, archive_suffix, damage_of, packed_suffix
from parsers.place import entered, is_link
from parsers.registry import Format, detect, formats

__all__ = ["SKIPPED", "Unread", "find_runs", "in_folder", "may_be_log", "walk"]

#: Path and reason of each thing that could not be read.
Unread = list[tuple[str, str]]
#: Folders that never hold runs, skipped on the way down.
SKIPPED = {".git", "__pycache__", "node_modules", ".venv", "site-packages", "__MACOSX"}


def find_runs(root: Path, unread: Unread) -> Iterator[tuple[Path, Format]]:
    """Path and format of each run at or below `root`, sorted by path; a run folder is not searched further.

    Archives are folders, and compressed files what is in them (archives inside archives stay closed). Links to folders
    are not followed, links to files that stand below `root` neither: what they point to is found where it stands. What
    cannot be looked into is added to `unread`. Raises `InputError` where `root` itself cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"step": 1, "loss": 2.0}\\n{"step": 2, "loss": 1.5}\\n')
    ...     [(path.name, format.name) for path, format in find_runs(Path(folder), [])]
    [('a.jsonl', 'jsonl')]
    """
    top = entered(root)
    if not top.is_dir():
        format = detect(top)
        if format is not None:
            yield from ((top, one) for one in format.each(top))
        else:
            unread += damage_of(top)
        return
    yield from walk(top, top, unread)


def walk(start: Path, top: Path, unread: Unread) -> Iterator[tuple[Path, Format]]:
    """Path and format of each run at or below `start`, which stands below `top` or is it, as `find_runs` says."""
    waiting = [start]
    while waiting:
        here = waiting.pop()
        try:
            if here.is_dir():
                format, deeper = in_folder(here, unread)
                if format is not None:
                    yield here, format
                waiting += reversed(deeper)
            else:
                yield from _file(here, top, unread, waiting)
        except InputError as error:
            unread.append((str(here), str(error).removeprefix(f"{here}: ")))
        except OSError as error:
            if here is top:
                raise InputError(f"{here}: cannot be looked into ({error.strerror or error})") from error
            unread.append((str(here), f"cannot be looked into ({error.strerror or error})"))


def in_folder(here: Path, unread: Unread) -> tuple[Format | None, list[Path]]:
    """The format of a folder that is a run, or the folders and possible logs in it, by name."""
    unread += _refused(here)
    format = detect(here)
    if format is not None:
        return format, []
    deeper = []
    for entry in sorted(here.iterdir(), key=lambda p: p.name):
        if entry.is_dir():
            if entry.name not in SKIPPED and not is_link(entry):
                deeper.append(entry)
        elif may_be_log(entry.name) and entry.is_file():
            deeper.append(entry)
    return None, deeper


def _refused(here: object) -> Unread:
    return here.archive.refused if isinstance(here, Member) and not here.inner else []


def _file(here: Path, top: Path, unread: Unread, waiting: list[Path]) -> Iterator[tuple[Path, Format]]:
    if is_link(here) and _below(here, top):
        return
    content = entered(here)
    if content.is_dir():
        waiting.append(content)
        return
    format = detect(content)
    if format is None:
        unread += damage_of(content)
    elif not format.is_part(content):
        yield from ((content, one) for one in format.each(content))


def _below(link: Path, top: Path) -> bool:
    return link.resolve().is_relative_to(top.resolve())


def may_be_log(name: str) -> bool:
    """Whether people give this name to a log of any known format, or to an archive."""
    if archive_suffix(name):
        return True
    plain = name[: len(name) - len(packed_suffix(name))]
    return bool(_patterns().fullmatch(name) or (plain and _patterns().fullmatch(plain)))


@cache
def _patterns() -> re.Pattern[str]:
    """The file names that people use for any format."""
    globs: dict[str, Any] = {pattern: None for f in formats() if not f.folder for pattern in f.patterns}
    return re.compile("|".join(map(translate, globs)))
