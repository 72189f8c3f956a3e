"""Formats of other packages, by entry points of the group `aftertrain.formats`; a broken one stops nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from eventstream.errors import AftertrainError, InputError
from parsers.registry import Format
from parsers.run import Run

__all__ = ["GROUP", "Plugins", "plugins"]

GROUP = "aftertrain.formats"


@dataclass(frozen=True, slots=True)
class Plugins:
    """The formats that other packages bring, and what is wrong with the broken ones as (entry point, reason)."""

    formats: tuple[Format, ...] = ()
    broken: list[tuple[str, str]] = field(default_factory=list)
    #: Package and version of each entry point: what a cache of results depends on.
    versions: tuple[str, ...] = ()


@cache
def plugins() -> Plugins:
    """What the installed packages register, looked for once; none of it can raise.

    An entry point names a `parsers.registry.Format`, whose `module` holds `sniff` and `read` as ours do:

        [project.entry-points."aftertrain.formats"]
        ours = "our_package.our_format:FORMAT"

    >>> isinstance(plugins().formats, tuple)
    True
    """
    broken: list[tuple[str, str]] = []
    formats: list[Format] = []
    versions: list[str] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        versions.append(f"{entry.name} {entry.value} {entry.dist.version if entry.dist else ''}")
        found = _loaded(entry, broken)
        if found is not None:
            formats.append(_Guarded(**{f.name: getattr(found, f.name) for f in fields(Format)}, broken=broken))
    return Plugins(tuple(formats), broken, tuple(versions))


def _loaded(entry: EntryPoint, broken: list[tuple[str, str]]) -> Format | None:
    told = f"format {entry.name!r} of {entry.dist.name if entry.dist else entry.value}"
    try:
        found = entry.load()
    except Exception as error:  # noqa: BLE001 - importing foreign code may raise anything, and must not stop the rest
        broken.append((told, f"cannot be loaded ({type(error).__name__}: {_short(error)})"))
        return None
    if not isinstance(found, Format):
        broken.append((told, f"{entry.value} is a {type(found).__name__}, not a parsers.registry.Format"))
        return None
    return found


@dataclass(frozen=True, slots=True)
class _Guarded(Format):
    """A foreign format whose errors are told and do not stop the rest."""

    broken: list[tuple[str, str]] = field(default_factory=list, compare=False)

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the content is of this format; no when the foreign code fails, which is told once."""
        try:
            return bool(Format.sniff(self, path, head))
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            told = (f"format {self.name!r} ({self.module})", f"fails to look at files ({_named(error)})")
            if told not in self.broken:
                self.broken.append(told)
            return False

    def is_part(self, path: Path) -> bool:
        """Whether `path` is read with another file; no when the foreign code fails."""
        try:
            return bool(Format.is_part(self, path))
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            self.broken.append((f"format {self.name!r} ({self.module})", f"fails at {path} ({_named(error)})"))
            return False

    def each(self, path: Path) -> list[Format]:
        """One entry for every run in the file; `InputError` whatever the foreign code raises."""
        try:
            return Format.each(self, path)
        except AftertrainError:
            raise
        except Exception as error:
            raise InputError(f"{path}: format {self.name!r} ({self.module}) fails ({_named(error)})") from error

    def read(self, path: Path) -> Run:
        """The run at `path`; `InputError` whatever the foreign code raises."""
        try:
            run = Format.read(self, path)
        except AftertrainError:
            raise
        except Exception as error:
            raise InputError(f"{path}: format {self.name!r} ({self.module}) fails ({_named(error)})") from error
        if not isinstance(run, Run):
            raise InputError(f"{path}: format {self.name!r} ({self.module}) gives {type(run).__name__}, not a Run")
        return run


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_short(error)}"


def _short(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:200]
