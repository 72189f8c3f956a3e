"""What runs stand below some paths, a row each, without keeping the runs: read once, then known by their content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError
from parsers.cache import Store, default_folder, file_key
from parsers.loading import Progress, existing, nothing_at, read_run, single, unique_names
from parsers.place import StrPath, is_local
from parsers.plugins import plugins
from parsers.run import ROWS, RunSet
from parsers.sources import merged
from parsers.tree import SKIPPED, Found, Unread, find_groups, look, may_be_log

__all__ = ["Listing", "list_runs"]


@dataclass(frozen=True)
class Listing:
    """`frame`, one row a run as `RunSet.frame` has it, and `unread`: path and reason of what could not be read.

    >>> Listing(pl.DataFrame(schema=ROWS)).frame.height
    0
    """

    frame: pl.DataFrame
    unread: tuple[tuple[str, str], ...] = ()


def list_runs(
    paths: StrPath | Iterable[StrPath], *, progress: Progress | None = None, cache: Path | str | bool = True
) -> Listing:
    """A row for every run below `paths`, in order of path, as `load_all(paths).frame` has it, but from the cache.

    What a local folder holds is remembered under a key of its content (`parsers.cache.file_key` of every file in it
    and below), so that a folder in which nothing changed is not read again; any change of a file, also of one beside
    a log, is seen. `cache` is the folder of the cache, True for the user's (`parsers.cache.default_folder`), False for
    none; one that is damaged, or cannot be written, is as none. Archives and URLs given by name are not remembered.
    Raises `InputError` as `load_all` does.

    >>> list_runs([], cache=False).frame.height
    0
    """
    folder = default_folder() if cache is True else Path(cache) if cache else None
    work = _Work(None if folder is None else Store(folder), progress)
    for path in single(paths):
        work.add(existing(path))
    if work.store is not None:
        work.store.save()
    return work.listing()


@dataclass
class _Work:
    """Rows found so far, by the path of their run."""

    store: Store | None
    progress: Progress | None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    unread: Unread = field(default_factory=list)
    keys: dict[str, bytes] = field(default_factory=dict)
    done: int = 0

    def add(self, root: Path) -> None:
        """Everything below one path that was given by name."""
        before = len(self.rows), len(self.unread)
        former = list(self.rows.items())
        if is_local(root) and root.is_dir():
            if self.store is not None:
                _Keys(self.keys).of(str(root), os.path.realpath(root))
            self._folders(root)
        else:
            for group in find_groups(root, self.unread):
                self._read(group, named=str(root))
        found = sorted(list(self.rows.items())[len(former) :], key=lambda item: Path(item[1]["path"]))
        self.rows = dict([*former, *found])
        if (len(self.rows), len(self.unread)) == before and not self._known(root):
            raise InputError(nothing_at(root, []))
        if len(self.rows) == before[0] and len(self.unread) > before[1]:
            raise InputError(nothing_at(root, self.unread[before[1] :]))

    def _known(self, root: Path) -> bool:
        """Whether runs below `root` were found before, under another path given."""
        return any(path.startswith(str(root.resolve())) for path in self.rows)

    def _folders(self, top: Path) -> None:
        waiting = [top]
        while waiting:
            here = waiting.pop()
            key = self.keys.get(str(here))
            known = None if key is None or self.store is None else self.store.get(key.hex())
            if known is None:
                known = self._look(here, top)
                if key is not None and self.store is not None:
                    self.store[key.hex()] = known
            for where, row in known["rows"]:
                self.rows.setdefault(where, row)
            self.unread += [(path, reason) for path, reason in known["unread"]]
            waiting += [here / name for name in reversed(known["folders"])]

    def _look(self, here: Path, top: Path) -> dict[str, Any]:
        """The rows of what a folder holds itself, with what is below where that may be of the same runs; and the
        folders that are still to be looked into."""
        own = _Work(None, self.progress, done=self.done)
        folder = look(here, top, own.unread)
        groups, deeper = [folder.logs] if folder.logs else [], folder.deeper
        if folder.logs and deeper:
            unread: Unread = []
            found = find_groups(here, unread, top)
            if len(found) == 1:
                groups, deeper, own.unread = found, [], unread
        for archive in (entry for entry in deeper if not is_local(entry)):
            groups += find_groups(archive, own.unread, top)
        for group in groups:
            own._read(group)
        self.done = own.done
        folders = [entry.name for entry in deeper if is_local(entry)]
        return {"rows": list(own.rows.items()), "unread": own.unread, "folders": folders}

    def _read(self, group: list[Found], named: str = "") -> None:
        """The rows of the runs that a group of logs tells of; an error in what was given by name is raised."""
        runs = []
        for where, format in group:
            if self.progress is not None:
                self.progress(self.done, self.done + 1, str(where))
            self.done += 1
            try:
                runs.append((where, read_run(where, format)))
            except InputError as error:
                if str(where) == named:
                    raise
                self.unread.append((str(where), str(error).removeprefix(f"{where}: ")))
        for place, (where, run) in enumerate(merged(runs)):
            self.rows.setdefault(f"{where.resolve()}#{place}", RunSet((run,)).frame.row(0, named=True))

    def listing(self) -> Listing:
        """All rows, with unique names."""
        rows = [dict(row) for row in self.rows.values()]
        for row, name in zip(rows, list(unique_names([(r["run"], r["path"]) for r in rows])), strict=True):
            row["run"] = name
        return Listing(pl.DataFrame(rows, schema=ROWS), (*self.unread, *plugins().broken))


@dataclass
class _Keys:
    """Keys of folders by their path as walked: of every file in them and below."""

    keys: dict[str, bytes]

    def of(self, top: str, real: str) -> None:
        """Fill in the keys of `top` and of every folder below; `real` is where it really stands."""
        order = [(top, real)]
        listed: dict[str, tuple[str, list[str], list[str]]] = {}
        while order:
            here, place = order.pop()
            parts, folders = _entries(here)
            listed[here] = place, parts, folders
            order += [(str(Path(here) / name), str(Path(place) / name)) for name in folders]
        for here in reversed(listed):  # a folder after all that are below it
            place, parts, folders = listed[here]
            below = [f"{name} {self.keys[str(Path(here) / name)].hex()}" for name in folders]
            told = "\0".join([place, *parts, "", *below])
            self.keys[here] = hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _entries(here: str) -> tuple[list[str], list[str]]:
    """Names and keys of the files of a folder, and its folders, links to folders left out."""
    parts: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda e: e.name)
    except OSError as error:
        return [f"unreadable {error.errno}"], []
    for entry in entries:
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            parts.append(f"{entry.name} unreadable {error.errno}")
            continue
        if stat.S_ISDIR(mode):
            if not entry.is_symlink() and entry.name not in SKIPPED:
                folders.append(entry.name)
        elif stat.S_ISREG(mode):
            parts.append(f"{entry.name} {file_key(entry.path, log=may_be_log(entry.name)).hex()}")
    return parts, folders
