"""Files inside archives and compressed files as paths: opened, listed and read in place, nothing unpacked to disk."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import total_ordering
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import IO, Any, cast

from eventstream.errors import InputError
from parsers.places.unpack import LIMIT, PACKED, Limits, Unpacked, unpacking

__all__ = ["ARCHIVES", "Archive", "Member", "Packed", "archive_suffix", "damage_of", "packed_suffix"]

#: Suffixes of archives, and how the tar inside is packed.
ARCHIVES = {
    ".zip": "", ".tar": "", ".tar.gz": ".gz", ".tgz": ".gz", ".tar.zst": ".zst", ".tzst": ".zst", ".tar.xz": ".xz",
    ".txz": ".xz", ".tar.bz2": ".bz2", ".tbz2": ".bz2",
}  # fmt: skip
#: An archive with more members is refused: listing them alone would take a gigabyte.
MEMBERS = 200_000
#: A whole packed tar may be large; each of its files is bounded by itself, and the stream by its ratio.
_STREAM = Limits(size=None)
#: What tarfile raises on headers that make no sense.
_BROKEN = (tarfile.TarError, ValueError, OverflowError, struct.error)
#: Longest header of a tar that is read: names and attributes, which may claim any size.
_HEADER = 16 << 20


def archive_suffix(name: str) -> str:
    """The suffix of `name` that says that it is an archive, or the empty string.

    >>> archive_suffix("runs.tar.gz"), archive_suffix("train.log.gz")
    ('.tar.gz', '')
    """
    return next((s for s in sorted(ARCHIVES, key=len, reverse=True) if name.lower().endswith(s)), "")


def packed_suffix(name: str) -> str:
    """The suffix of `name` that says that it is one compressed file, or the empty string.

    >>> packed_suffix("train.log.gz"), packed_suffix("runs.tar.gz")
    ('.gz', '')
    """
    return "" if archive_suffix(name) else next((s for s in PACKED if name.lower().endswith(s)), "")


@total_ordering
class _Inside:
    """What files inside others share with `pathlib.Path`: names from `str(self)`, reading from `_raw`."""

    name: str

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def match(self, pattern: str) -> bool:
        return fnmatchcase(self.name, pattern)

    def resolve(self) -> Any:
        return self

    absolute = resolve

    def is_symlink(self) -> bool:
        return False  # links inside archives are refused and never followed

    def _raw(self) -> io.RawIOBase:
        raise NotImplementedError

    def open(
        self, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:  # fmt: skip
        """The content as a file, bytes or text; only for reading."""
        if set(mode) - set("rbt"):
            raise InputError(f"{self}: what stands in an archive is only read")
        raw = self._raw()
        if "b" in mode:
            return cast(IO[Any], raw if buffering == 0 else io.BufferedReader(raw, 1 << 16))
        return io.TextIOWrapper(io.BufferedReader(raw, 1 << 16), encoding, errors, newline)

    def read_bytes(self) -> bytes:
        with self.open("rb") as file:
            return cast(bytes, file.read())

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with self.open("r", encoding=encoding, errors=errors) as file:
            return cast(str, file.read())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Inside) and str(self) == str(other)

    def __lt__(self, other: object) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Packed(_Inside):
    """One compressed file as the file that is in it: its name without the suffix, beside what stands around it.

    `damage` gathers what was wrong with the packing; what came before the damage is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name[: -len(packed_suffix(path.name))]
        self.parent = path.parent
        self.damage: list[tuple[str, str]] = []
        self._size: int | None = None

    def _damaged(self, reason: str) -> None:
        found = (str(self.path), reason)
        if found not in self.damage:
            self.damage.append(found)

    def _raw(self) -> io.RawIOBase:
        suffix = packed_suffix(self.path.name)
        begin = unpacking(suffix, lambda: self.path.open("rb"), str(self.path), Limits())
        return Unpacked(begin, self._damaged)

    def stat(self) -> Any:
        """`st_size`: the bytes that come out, which takes unpacking them once."""
        if self._size is None:
            self._size = self._raw().seek(0, io.SEEK_END)
        return SimpleNamespace(st_size=self._size)

    def exists(self) -> bool:
        """Whether the compressed file is there."""
        return self.path.exists()

    is_file = exists

    def is_dir(self) -> bool:
        """Never."""
        return False

    def __str__(self) -> str:
        return str(self.path)


@dataclass
class Archive:
    """A zip or tar file and what stands in it: `files` by inner name, `refused` with the reason.

    Raises `InputError` where it is no archive, or has more than `MEMBERS` members.
    """

    path: Path
    files: dict[str, tuple[int, Callable[[], io.RawIOBase]]] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    damage: list[tuple[str, str]] = field(default_factory=list)
    folders: dict[str, dict[str, None]] = field(default_factory=lambda: {"": {}})

    def __post_init__(self) -> None:
        suffix = archive_suffix(self.path.name)
        try:
            if suffix == ".zip":
                self._list_zip()
            else:
                self._list_tar(ARCHIVES[suffix])
        except OSError as error:
            raise InputError(f"{self.path}: cannot be opened ({error.strerror or error})") from error
        except (*_BROKEN, zipfile.BadZipFile, NotImplementedError) as error:
            raise InputError(f"{self.path}: cannot be read as an archive ({error})") from error

    def root(self) -> Path:
        """The archive as a folder."""
        return cast(Path, Member(self, ""))

    def _damaged(self, name: str, reason: str) -> None:
        found = (name, reason)
        if found not in self.damage:
            self.damage.append(found)

    def _add(self, name: str, size: int, opened: Callable[[], io.RawIOBase]) -> None:
        """One file; names that lead out of the archive are refused."""
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or not any(p not in ("", ".") for p in parts):
            self._refuse(name, "its name leads out of the archive; not read")
            return
        if archive_suffix(name):
            self._refuse(name, "an archive inside an archive, which is not opened")
            return
        if len(self.files) >= MEMBERS:
            raise InputError(f"{self.path}: more than {MEMBERS:,} files in it, which is not read")
        inner = [p for p in parts if p not in ("", ".")]
        for depth in range(len(inner)):
            folder, child = "/".join(inner[:depth]), inner[depth]
            self.folders.setdefault(folder, {})[child] = None
        self.files["/".join(inner)] = size, opened

    def _refuse(self, name: str, reason: str) -> None:
        if len(self.refused) < 1000:  # each of a hundred thousand is told no better by as many lines
            self.refused.append((f"{self.path}/{name}", reason))

    def _list_zip(self) -> None:
        raw = self.path.open("rb")
        weakref.finalize(self, raw.close)
        archive = zipfile.ZipFile(raw)
        for info in archive.infolist():
            if info.filename.endswith("/"):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = f"{self.path}/{info.filename}"
            if kind not in (0, stat.S_IFREG):
                self._refuse(info.filename, "a link or a device, which is not followed")
            elif info.flag_bits & 1:
                self._refuse(info.filename, "encrypted, and no password is asked for")
            else:
                try:
                    Limits().check(name, unpacked=info.file_size, packed=info.compress_size)
                except InputError as error:
                    self._refuse(info.filename, str(error).removeprefix(f"{name}: "))
                    continue
                self._add(info.filename, info.file_size, self._zipped(archive, info, name))

    def _zipped(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Callable[[], io.RawIOBase]:
        def begin() -> Iterator[bytes]:
            made = 0
            try:
                with archive.open(info) as file:
                    while piece := file.read(1 << 12):
                        made += len(piece)
                        Limits().check(name, unpacked=made, packed=info.compress_size)
                        yield piece
            except (zipfile.BadZipFile, RuntimeError, struct.error) as error:
                raise ValueError(str(error)) from error

        return lambda: Unpacked(begin, lambda reason: self._damaged(name, reason))

    def _list_tar(self, packed: str) -> None:
        if packed:
            begin = unpacking(packed, lambda: self.path.open("rb"), str(self.path), _STREAM)
            stream: IO[bytes] = cast(IO[bytes], Unpacked(begin, lambda reason: self._damaged(str(self.path), reason)))
        else:
            stream = self.path.open("rb")
        weakref.finalize(self, stream.close)
        lock = threading.Lock()
        with tarfile.open(fileobj=cast(IO[bytes], _Headers(stream)), mode="r:", errorlevel=0) as archive:
            try:
                while (info := archive.next()) is not None:
                    self._add_tarred(info, stream, lock)
            except _BROKEN as error:
                self._damaged(str(self.path), f"the archive is damaged or cut ({error}); read up to there")
        if packed:
            stream.seek(0, io.SEEK_END)  # the checksum stands behind the padding, where tarfile does not look

    def _add_tarred(self, info: tarfile.TarInfo, stream: IO[bytes], lock: threading.Lock) -> None:
        if info.isdir():
            return
        if not info.isreg() or info.issparse():
            what = "a sparse file" if info.isreg() else "a link or a device, which is not followed"
            self._refuse(info.name, what)
        elif info.size > LIMIT:
            self._refuse(info.name, f"{info.size:,} bytes; beyond {LIMIT:,} bytes is not read")
        else:
            start, size = info.offset_data, info.size
            self._add(info.name, size, lambda: _Slice(stream, lock, start, size))


class Member(_Inside):
    """A file or folder inside an archive, with the manners of `pathlib.Path`."""

    def __init__(self, archive: Archive, inner: str) -> None:
        self.archive, self.inner = archive, inner

    @property
    def name(self) -> str:  # type: ignore[override]
        """The last part; of the archive itself its name without the suffix."""
        if self.inner:
            return self.inner.rpartition("/")[2]
        return self.archive.path.name[: -len(archive_suffix(self.archive.path.name))]

    @property
    def parent(self) -> Path:
        """The folder around it; of the archive itself the folder where it stands."""
        if self.inner:
            return cast(Path, Member(self.archive, self.inner.rpartition("/")[0]))
        return self.archive.path.parent

    def __truediv__(self, name: str) -> Member:
        """A name below this folder; `..` and absolute names are no way out of the archive."""
        parts = [p for p in str(name).split("/") if p not in ("", ".")]
        return Member(self.archive, "/".join([*([self.inner] if self.inner else []), *parts]))

    def relative_to(self, other: object) -> PurePosixPath:
        """The path from `other` on."""
        return PurePosixPath(str(self)).relative_to(str(other))

    def is_dir(self) -> bool:
        """Whether there is a folder of this name."""
        return self.inner in self.archive.folders

    def is_file(self) -> bool:
        """Whether there is a file of this name that may be read."""
        return self.inner in self.archive.files

    def exists(self) -> bool:
        """Whether there is a file or folder of this name."""
        return self.is_dir() or self.is_file()

    def iterdir(self) -> Iterator[Member]:
        """What stands in this folder."""
        if not self.is_dir():
            raise NotADirectoryError(20, "no folder", str(self))
        return (self / name for name in self.archive.folders[self.inner])

    def stat(self) -> Any:
        """`st_size`: the bytes of the file as the archive declares them."""
        if not self.exists():
            raise FileNotFoundError(2, "no such file in the archive", str(self))
        return SimpleNamespace(st_size=self.archive.files[self.inner][0] if self.is_file() else 0)

    def _raw(self) -> io.RawIOBase:
        if not self.is_file():
            error = IsADirectoryError if self.is_dir() else FileNotFoundError
            raise error(2, "no such file in the archive", str(self))
        return self.archive.files[self.inner][1]()

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.inner}" if self.inner else str(self.archive.path)


def damage_of(where: object) -> list[tuple[str, str]]:
    """What was found wrong with the archive or the compression around a path while it was read: file and reason.

    >>> damage_of(Path("a.log"))
    []
    """
    if isinstance(where, Packed):
        return [*where.damage, *damage_of(where.path)]
    if isinstance(where, Member):
        whole, own = str(where.archive.path), str(where)
        return [d for d in where.archive.damage if d[0] in (whole, own) or d[0].startswith(f"{own}/")]
    return []


class _Headers:
    """A stream as tarfile reads its headers from it: never more than `_HEADER` bytes at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        return self._read(min(size, _HEADER)) or b""


class _Slice(io.RawIOBase):
    """A stretch of a stream that others read as well."""

    def __init__(self, stream: IO[bytes], lock: threading.Lock, start: int, size: int) -> None:
        super().__init__()
        self._stream, self._lock, self._start, self._size = stream, lock, start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(self._size - self._at, 0))
        with self._lock:
            self._stream.seek(self._start + self._at)
            data = self._stream.read(wanted) or b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at
