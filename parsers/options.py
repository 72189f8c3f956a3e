"""How logs are read where the caller says more than the path: dialects of text logs, histograms."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from parsers.places.place import StrPath
from parsers.registry import Format, formats
from parsers.run import Run
from parsers.text_logs.dialect import Dialect

__all__ = ["Dialects", "Options", "options"]

#: A TOML file of dialects, a dialect, or several of either.
Dialects = StrPath | Dialect | Iterable[StrPath | Dialect]


def options(dialects: Dialects | None = None, *, histograms: bool = False) -> Options:
    """The options of a call, checked: what is no dialect and no TOML file that declares some raises.

    >>> options().formats == formats()
    True
    """
    if not isinstance(histograms, bool):
        raise ValueError(f"histograms is {histograms!r}; it must be True or False")
    return Options(_dialects(dialects), histograms)


def _dialects(given: Dialects | None) -> tuple[Dialect, ...]:
    from parsers.text_logs.dialect_toml import from_toml

    if given is None:
        return ()
    if isinstance(given, Dialect):
        return (given,)
    if isinstance(given, str | os.PathLike):
        return from_toml(Path(given))
    if not isinstance(given, Iterable):
        raise ValueError(f"dialects is {given!r}; it must be a TOML file, a Dialect, or a list of these")
    return tuple(dialect for one in given for dialect in _dialects(one))


@dataclass(frozen=True)
class Options:
    """The dialects of a caller, and whether histograms become scalars."""

    dialects: tuple[Dialect, ...] = ()
    histograms: bool = False

    @cached_property
    def formats(self) -> tuple[Format, ...]:
        """The formats in the order in which they are tried: text in a dialect of the caller first."""
        known = tuple(self._bound(format) for format in formats())
        own = [replace(f, strict=True) for f in known if isinstance(f, _Spoken)]
        return (*own, *known)

    @cached_property
    def key(self) -> str:
        """What a cache of results depends on."""
        told = repr((self.dialects, self.histograms))
        return hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def _bound(self, format: Format) -> Format:
        given: dict[str, Any] = {f.name: getattr(format, f.name) for f in fields(Format)}
        if self.dialects and format.module == "parsers.text":
            return _Spoken(**given, dialects=self.dialects)
        if self.histograms and format.module == "parsers.tensorboard":
            return _WithHistograms(**given)
        return format


@dataclass(frozen=True, slots=True)
class _Spoken(Format):
    """Text logs in dialects of the caller beside those of the table; `strict` asks for one of the caller's."""

    dialects: Sequence[Dialect] = ()
    strict: bool = False

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the text holds lines of the dialects."""
        from parsers.text import sniff, speaks

        return speaks(path, head, self.dialects) if self.strict else sniff(path, head)

    def read(self, path: Path) -> Run:
        """The run in a text log."""
        from parsers.text import read

        return read(path, self.dialects)


@dataclass(frozen=True, slots=True)
class _WithHistograms(Format):
    """TensorBoard event files whose histograms become scalars."""

    def read(self, path: Path) -> Run:
        """The run of the event files."""
        from parsers.tensorboard import read

        return read(path, histograms=True)
