"""Where a run may stand: a local path, a URL, a file inside an archive, a compressed file; all opened in one way."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, cast

from eventstream.errors import InputError
from eventstream.optional import need
from parsers.places.archives import Archive, Packed, archive_suffix, packed_suffix

__all__ = ["StrPath", "entered", "for_library", "is_link", "is_local", "place"]

StrPath = str | os.PathLike[str]
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
#: fsspec's way to name a file inside an archive: zip://inside::archive
_CHAINED = re.compile(r"(?:zip|tar)://(?P<inner>.*?)::(?P<outer>.+)", re.DOTALL)


def place(path: StrPath) -> Path:
    """`path` as something that opens like a `pathlib.Path`.

    A URL (`memory://`, `s3://`, ...) needs universal-pathlib, and becomes a path of fsspec. `zip://run.jsonl::a.zip`,
    and a path that leads into an archive (`a.zip/run.jsonl`), become a file inside it. Any other path stays as it is.
    Raises `InputError` where a URL's protocol is not known, or its archive cannot be read.

    >>> place("runs/a7.jsonl").name
    'a7.jsonl'
    """
    if isinstance(path, str):
        chained = _CHAINED.fullmatch(path)
        if chained:
            return _below(place(chained["outer"]), chained["inner"])
        if _URL.match(path):
            return _remote(path)
    elif hasattr(path, "open") and type(path) is not type(Path()):
        return cast(Path, path)
    local = Path(path)
    try:
        return local if local.exists() else _inside(local)
    except (OSError, ValueError) as error:  # a name too long, a NUL byte, a folder that may not be entered
        raise InputError(f"{path!r:.200}: not a path that can be opened ({error})") from error


def _remote(url: str) -> Path:
    upath = need("upath", feature="reading URLs", extra="scale")
    try:
        return cast(Path, upath.UPath(url))
    except ImportError as error:
        protocol = url.partition("://")[0]
        raise InputError(f"{url}: {protocol}:// needs a library that is not installed ({error})") from error
    except ValueError as error:
        raise InputError(f"{url}: not a URL that can be opened ({error})") from error


def _inside(path: Path) -> Path:
    """A path that leads into an archive; as it is where no archive stands on the way."""
    for parent in path.parents:
        if archive_suffix(parent.name) and parent.is_file():
            return _below(parent, path.relative_to(parent).as_posix())
    return path


def _below(archive: Path, inner: str) -> Path:
    return Archive(archive).root() / inner if inner else Archive(archive).root()


def entered(path: Path) -> Path:
    """An archive as the folder that it holds, a compressed file as what is in it, everything else as it is."""
    if archive_suffix(path.name) and path.is_file():
        return Archive(path).root()
    if packed_suffix(path.name) and path.is_file():
        return cast(Path, Packed(path))
    return path


def is_local(path: object) -> bool:
    """Whether libraries may open `path` themselves: a file of this machine that is not packed.

    >>> is_local(Path("a.parquet"))
    True
    """
    return isinstance(path, Path)


def is_link(path: Path) -> bool:
    """Whether `path` is a symbolic link, as far as the place knows links."""
    try:
        return path.is_symlink()
    except NotImplementedError:
        return False


def for_library(path: Path) -> Any:
    """What a library that opens files itself is given: the path of a local file, else its content in memory.

    Used for Parquet, whose reader jumps about in the file.
    """
    return path if is_local(path) else io.BytesIO(path.read_bytes())
