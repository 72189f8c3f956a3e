"""Everything below some paths: the logs found, in groups that may be one run, and what comes of each group."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from eventstream.errors import InputError
from parsers.collection.progress import Progress
from parsers.collection.reading import Came
from parsers.collection.refusal import nothing_at
from parsers.collection.remembered import Inside, Remembered, opened
from parsers.collection.workers import came_of, workers_for
from parsers.options import Options
from parsers.places.archives import archive_suffix
from parsers.places.place import StrPath, is_local, place
from parsers.registry import Format
from parsers.tree import Found, Unread, find_groups

__all__ = ["Gathered", "existing", "found_below"]


@dataclass(slots=True)
class Gathered:
    """The logs below some paths, in groups and in order of path; which paths were given by name; what could not be
    looked into or read."""

    memory: Remembered | None
    groups: list[list[Found]] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    unread: Unread = field(default_factory=list)

    def come(self, progress: Progress | None, workers: int | None, *, rows: bool = False) -> Iterator[Came]:
        """What comes of each group, from memory or read now; what cannot be read is added to `unread`.

        An error in what was given by name is raised, as it is and not from memory.
        """
        try:
            yield from self._each(progress, workers, rows)
        finally:  # what was read before an error or an interrupt need not be read again
            if self.memory is not None:
                self.memory.close()

    def _each(self, progress: Progress | None, workers: int | None, rows: bool) -> Iterator[Came]:
        known = [self._recalled(group, rows) for group in self.groups]
        missing = [self._opened(group) for group, one in zip(self.groups, known, strict=True) if one is None]
        count = _Count(sum(map(len, self.groups)), progress)
        new = came_of(missing, count.before, workers_for(missing, workers), rows=rows)
        for group, one in zip(self.groups, known, strict=True):
            came = one or self._new(group, next(new), rows)
            count.done += len(group)
            self.unread += [(where, str(error).removeprefix(f"{where}: ")) for where, error in came.outcome.errors]
            yield came

    def _recalled(self, group: list[Found], rows: bool) -> Came | None:
        if self.memory is None:
            return None
        came = self.memory.rows(group) if rows else self.memory.runs(group)
        return None if came is None or any(where in self.named for where, _ in came.outcome.errors) else came

    def _new(self, group: list[Found], came: Came, rows: bool) -> Came:
        for where, error in came.outcome.errors:
            if where in self.named:
                raise error
        if self.memory is not None:
            keep = self.memory.keep_rows if rows else self.memory.keep_runs
            keep(group, came)
        return came

    def _opened(self, group: list[Found]) -> list[Found]:
        if self.memory is None:
            return group
        return [(opened(where, self.memory.archives), format) for where, format in group]


class _Count:
    """How many logs are done, told before each that is read."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self._progress, self._told = total, 0, progress, 0

    def before(self, where: Path) -> None:
        """Tell that the log at `where` is next."""
        self._told = max(self._told, self.done)
        if self._progress is not None:
            self._progress(self._told, self.total, str(where))
        self._told += 1


def found_below(paths: StrPath | Iterable[StrPath], how: Options, memory: Remembered | None) -> Gathered:
    """Logs below the paths, each once, as `parsers.tree.find_groups` puts them together.

    >>> found_below([], Options(), None).groups
    []
    """
    seen: set[str] = set()
    gathered = Gathered(memory)
    for path in _single(paths):
        root = existing(path)
        before = len(gathered.unread)
        found = _found(root, gathered.unread, how, memory)
        if not found:
            raise InputError(nothing_at(root, gathered.unread[before:]))
        gathered.named.add(str(root))
        for group in sorted(found, key=lambda group: Path(str(group[0][0]))):
            told = {_log_key(*one): one for one in group}
            new = [one for key, one in told.items() if key not in seen]
            seen |= told.keys()
            gathered.groups += [new] if new else []
    return gathered


def _found(root: Path, unread: Unread, how: Options, memory: Remembered | None) -> list[list[Found]]:
    if memory is not None:
        memory.keys.add(root)
        if memory.keys.of(root) is not None and is_local(root):
            inside = archive_suffix(root.name) and root.is_file()
            start = cast(Path, Inside(str(root), "")) if inside else root
            return find_groups(start, unread, asked=how.formats, looking=memory.look)
    return find_groups(root, unread, asked=how.formats)


def _log_key(where: Path, format: Format) -> str:
    """What tells a log from every other, whatever way led to it."""
    return f"{where.resolve()}#{format.name}#{format.run or ''}"


def _single(paths: StrPath | Iterable[StrPath]) -> Iterable[StrPath]:
    """One path or several, as several."""
    one = isinstance(paths, str | os.PathLike) or hasattr(paths, "open")
    return cast(Iterable[StrPath], [paths] if one else paths)


def existing(path: StrPath) -> Path:
    """The place of a path given by name; `InputError` where nothing stands there."""
    where = place(path)
    try:
        there = where.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from error
    if not there:
        raise InputError(f"{path}: no such file or folder")
    return where
