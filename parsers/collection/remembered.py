"""What was found and read before, known again by the content: the logs of a folder, and the runs they tell of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

from eventstream.errors import InputError
from parsers.collection.cache import Store, default_folder, reader_key
from parsers.collection.keys import Keys
from parsers.collection.reading import Came, Outcome
from parsers.collection.run_bytes import from_bytes, to_bytes
from parsers.collection.shelf import Shelf
from parsers.options import Options
from parsers.places.archives import Archive, Member, Packed
from parsers.registry import Format
from parsers.tree import Folder, Found, Unread, look

__all__ = ["Inside", "Remembered", "opened", "remembered"]


@dataclass(frozen=True, slots=True)
class Inside:
    """Where something stands in an archive that was not opened: enough to name it, and the way to it."""

    archive: str
    inner: str

    def __str__(self) -> str:
        return f"{self.archive}/{self.inner}" if self.inner else self.archive

    #: A folder in an archive is no archive by its name.
    name: ClassVar[str] = ""

    def is_dir(self) -> bool:
        """Asked only of folders."""
        return True

    def resolve(self) -> Inside:
        """The same: an archive has no links."""
        return self

    def member(self, archives: dict[str, Archive]) -> Member:
        """The file or folder itself; `archives` are those that are open."""
        if self.archive not in archives:
            archives[self.archive] = Archive(Path(self.archive))
        return Member(archives[self.archive], self.inner)


def remembered(cache: Path | str | bool, options: Options) -> Remembered | None:
    """The memory in the folder `cache`: True is the user's (`cache.default_folder`), False none at all.

    >>> remembered(False, Options()) is None
    True
    """
    folder = default_folder() if cache is True else Path(cache) if cache else None
    return None if folder is None else Remembered(folder, options)


@dataclass
class Remembered:
    """A memory of looks, runs and rows of listings, under keys of content, of the reader and of its options."""

    folder: Path
    options: Options
    keys: Keys = field(default_factory=Keys)
    archives: dict[str, Archive] = field(default_factory=dict)

    @cached_property
    def _store(self) -> Store:
        return Store(self.folder, "found-v1")

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf(self.folder / "runs-v2")

    @cached_property
    def _formats(self) -> dict[str, Format]:
        return {format.name: format for format in reversed(self.options.formats)}

    @cached_property
    def _salt(self) -> str:
        return f"{reader_key()}\0{self.options.key}"

    def close(self) -> None:
        """Write down what is new, and keep the bounds."""
        self._store.save()
        self._shelf.trim()

    def look(self, here: Path, top: Path, unread: Unread, above: int) -> Folder:
        """What `parsers.tree.look` gives, from memory where nothing changed."""
        key = self._key("look", [(here, None)], str(top))
        known = None if key is None else self._store.get(key)
        if known is not None:
            unread += [(path, reason) for path, reason in known["unread"]]
            logs = [(self._place(place), self._format(name, run)) for place, name, run in known["logs"]]
            return Folder(above, logs, [self._place(place) for place in known["deeper"]])
        own: Unread = []
        found = look(opened(here, self.archives), top, own, above, self.options.formats)
        if key is not None:
            logs_told = [(_told(where), format.name, format.run) for where, format in found.logs]
            self._store[key] = {"unread": own, "logs": logs_told, "deeper": [_told(where) for where in found.deeper]}
        unread += own
        return found

    def runs(self, group: Sequence[Found]) -> Came | None:
        """What came of a group of logs when it was read, or None where that is not known or something changed."""
        key = self._key("runs", group)
        data = None if key is None else self._shelf.get(key)
        if key is None or data is None:
            return None
        try:
            runs, more = from_bytes(data)
        except ValueError:
            self._shelf.drop(key)
            return None
        return Came(Outcome(runs, _errors(more)))

    def keep_runs(self, group: Sequence[Found], came: Came) -> None:
        """Remember what came of a group."""
        key = self._key("runs", group)
        data = None if key is None else came.data or to_bytes(came.outcome.runs, came.outcome.told())
        if key is not None and data is not None:
            self._shelf.put(key, data)

    def rows(self, group: Sequence[Found]) -> Came | None:
        """The rows of a group of logs in a listing, as `runs` gives its runs."""
        key = self._key("rows", group)
        known = None if key is None else self._store.get(key)
        return None if known is None else Came(Outcome([], _errors(known)), rows=known["rows"])

    def keep_rows(self, group: Sequence[Found], came: Came) -> None:
        """Remember the rows of a group."""
        key = self._key("rows", group)
        if key is not None:
            self._store[key] = {"rows": came.rows, **came.outcome.told()}

    def _key(self, what: str, places: Sequence[tuple[Any, Format | None]], more: str = "") -> str | None:
        """A key of some logs; None where one of them stands where nothing is known of the content."""
        told = [what, self._salt, more]
        for where, format in places:
            content = self.keys.of(where)
            if content is None:
                return None
            named = "" if format is None else f"{format.name}\0{format.run}"
            told.append(f"{content.hex()}\0{where}\0{named}")
        return hashlib.blake2b("\1".join(told).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def _format(self, name: str, run: str | None) -> Format:
        format = self._formats[name]
        return format if run is None else replace(format, run=run)

    def _place(self, told: list[str]) -> Path:
        kind, *parts = told
        if kind == "inside":
            return cast(Path, Inside(*parts))
        return Path(parts[0]) if kind == "file" else cast(Path, Packed(Path(parts[0])))


def _told(where: object) -> list[str]:
    """Where something stands, in words: the kind of place, then its path."""
    if isinstance(where, Member):
        return ["inside", str(where.archive.path), where.inner]
    if isinstance(where, Inside):
        return ["inside", where.archive, where.inner]
    return ["packed" if isinstance(where, Packed) else "file", str(where)]


def _errors(told: dict[str, Any]) -> list[tuple[str, InputError]]:
    return [(where, InputError(reason)) for where, reason in told["errors"]]


def opened(where: object, archives: dict[str, Archive]) -> Path:
    """The place itself, where it is a remembered one inside an archive."""
    return cast(Path, where.member(archives) if isinstance(where, Inside) else where)
