"""The logs below a folder or inside an archive, by path, and which of them may tell of one run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache, partial
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from parsers.places.archives import Member, archive_suffix, damage_of, packed_suffix
from parsers.places.place import entered, is_link
from parsers.registry import Format, detect, detect_folder, formats

__all__ = ["SKIPPED", "Folder", "Found", "Look", "Unread", "find_groups", "find_runs", "look", "may_be_log"]

#: Path and reason of each thing that could not be read.
Unread = list[tuple[str, str]]
#: Where a log of a run stands, and its format.
Found = tuple[Path, Format]
#: Folders that never hold runs, skipped on the way down.
SKIPPED = {".git", "__pycache__", "node_modules", ".venv", "site-packages", "__MACOSX"}
#: A folder with logs of its own and more logs than this, all counted, holds many runs and not one of many sources.
MOST = 50
#: How far below a folder without logs its loggers have their own folders: `version_1`, or `csv/version_0`.
NEAR = 2
#: Names that people give to the folder of one logger.
_LOGGERS = re.compile(
    r"version_\d+|(?:.*[-_. ])?(?:tb|tensorboards?|csv|wandb|mlflow|mlruns|jsonl?|tfevents|events)"
    r"(?:[-_. ]?(?:logs?|logger|runs?))?",
    re.IGNORECASE,
)


def find_runs(root: Path, unread: Unread) -> Iterator[Found]:
    """Path and format of each log at or below `root`, sorted by path; several may be sources of one run.

    Archives are folders, and compressed files what is in them (archives inside archives stay closed). Links to folders
    are not followed, links to files that stand below `root` neither: what they point to is found where it stands. What
    cannot be looked into is added to `unread`. Raises `InputError` where `root` itself cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"step": 1, "loss": 2.0}\\n{"step": 2, "loss": 1.5}\\n')
    ...     [(path.name, format.name) for path, format in find_runs(Path(folder), [])]
    [('a.jsonl', 'jsonl')]
    """
    found = [one for group in find_groups(root, unread) for one in group]
    return iter(sorted(found, key=lambda one: one[0]))


def find_groups(
    root: Path,
    unread: Unread,
    top: Path | None = None,
    *,
    asked: Sequence[Format] | None = None,
    looking: Look | None = None,
) -> list[list[Found]]:
    """The logs that `find_runs` finds, together where they may be sources of one run.

    These are the logs of a folder and all that stand below it, where there are at most `MOST`; else those of the folder
    alone; and logs of different formats in the folders of loggers beside one another. Whether they tell of one run is
    for `parsers.sources` to judge. `root` may stand below `top`, the path that was given by name. `asked` are the
    formats that are tried (`parsers.registry.detect`); `looking` is called in the place of `look`, by one who remembers
    what it gave.
    """
    start = entered(root)
    if not start.is_dir():
        format = detect(start, asked)
        if format is None:
            unread += damage_of(start)
            return []
        return [[(start, one)] for one in format.each(start)]
    chosen = looking or partial(look, asked=asked)
    return _grouped(_folders(start, start if top is None else top, unread, chosen))


@dataclass(slots=True)
class Folder:
    """What a folder (or archive) holds itself, and which folder above it in the list it stands in."""

    above: int
    logs: list[Found] = field(default_factory=list)
    deeper: list[Path] = field(default_factory=list)
    name: str = ""


#: Called as `look(here, top, unread, above)`.
Look = Callable[[Path, Path, Unread, int], Folder]


def _folders(start: Path, top: Path, unread: Unread, looking: Look) -> list[Folder]:
    """Every folder at and below `start`, each after the one that it stands in."""
    found: list[Folder] = []
    waiting = [(start, -1)]
    while waiting:
        here, above = waiting.pop()
        folder = looking(here, top, unread, above)
        folder.name = here.name
        waiting += [(entry, len(found)) for entry in reversed(folder.deeper)]
        found.append(folder)
    return found


@dataclass(slots=True)
class _Group:
    """Logs that may be of one run, and how far below the folder in question the nearest of them stands."""

    logs: list[Found]
    depth: int = 0
    #: The name of the folder, just below the one in question, that they stand in or below.
    name: str = ""


def _grouped(folders: list[Folder]) -> list[list[Found]]:
    """From the lowest folders upwards: the logs of a folder with those below, or apart where they are too many."""
    below: list[list[_Group]] = [[] for _ in folders]
    for place in reversed(range(len(folders))):
        folder, groups = folders[place], below[place]
        if folder.logs:
            together = [*folder.logs, *(one for group in groups for one in group.logs)]
            groups = [_Group(together)] if len(together) <= MOST else [_Group(folder.logs), *groups]
        else:
            groups = _with_siblings(groups)
        if folder.above < 0:
            return [group.logs for group in groups]
        below[folder.above][:0] = [_Group(group.logs, group.depth + 1, folder.name) for group in groups]
    return []


def _with_siblings(groups: list[_Group]) -> list[_Group]:
    """The groups of a folder without logs, those of loggers just below it together where their formats differ.

    Two loggers of one training may each have a folder of their own: `version_0` and `version_1`, or `tb/version_0` and
    `csv/version_0`. What stands in folders of other names is kept apart: their runs are many more often than one.
    """
    near: list[_Group] = []
    apart: list[_Group] = []
    for group in groups:
        (near if group.depth <= NEAR and _LOGGERS.fullmatch(group.name) else apart).append(group)
    kinds = {frozenset(format.name for _, format in group.logs) for group in near}
    if len(kinds) < 2 or sum(len(group.logs) for group in near) > MOST:
        return groups
    together = _Group([one for group in near for one in group.logs], min(group.depth for group in near))
    return [together, *apart]


def look(here: Path, top: Path, unread: Unread, above: int = -1, asked: Sequence[Format] | None = None) -> Folder:
    """The logs that stand in the folder `here` itself, and what is to be looked into below it."""
    folder = Folder(above)
    try:
        unread += _refused(here)
        formats = detect_folder(here, asked)
        folder.logs += [(here, one) for format in formats for one in format.each(here)]
        owned = [format.owned(here) for format in formats]
        if None in owned:
            return folder
        taken = set().union(*(names for names in owned if names is not None))
        for entry in sorted(here.iterdir(), key=lambda p: p.name):
            if entry.name in taken:
                continue
            if entry.is_dir():
                if entry.name not in SKIPPED and not is_link(entry):
                    folder.deeper.append(entry)
            elif may_be_log(entry.name) and entry.is_file():
                _look_into(entry, top, unread, folder, asked)
    except InputError as error:
        unread.append((str(here), str(error).removeprefix(f"{here}: ")))
    except OSError as error:
        if here is top:
            raise InputError(f"{here}: cannot be looked into ({error.strerror or error})") from error
        unread.append((str(here), f"cannot be looked into ({error.strerror or error})"))
    return folder


def _look_into(entry: Path, top: Path, unread: Unread, folder: Folder, asked: Sequence[Format] | None) -> None:
    """What a file is: a log or several, or an archive."""
    if is_link(entry) and _below(entry, top):
        return
    try:
        content = entered(entry)
        if content.is_dir():
            folder.deeper.append(content)
            return
        format = detect(content, asked)
        if format is None:
            unread += damage_of(content)
        elif not format.is_part(content):
            folder.logs += [(content, one) for one in format.each(content)]
    except InputError as error:
        unread.append((str(entry), str(error).removeprefix(f"{entry}: ")))
    except OSError as error:
        unread.append((str(entry), f"cannot be looked into ({error.strerror or error})"))


def _refused(here: object) -> Unread:
    return here.archive.refused if isinstance(here, Member) and not here.inner else []


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
