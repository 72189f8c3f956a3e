"""NumPy's .npz: a zip of arrays. Stored ones are mapped where they lie; those of objects stay closed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage, UnsafeCall
from parsers.checkpoints.npy_header import LONGEST, NpyHeader, npy_header
from parsers.checkpoints.side_values import Value, bounded
from parsers.checkpoints.spans import overlapping
from parsers.checkpoints.tensors import DTYPES, Storage, Tensor

__all__ = ["read", "sniff"]

NAME = "npz"
#: What zipfile raises at a directory that lies.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError, EOFError, UnicodeError)
#: Deflate makes at most this many bytes of one (a match of 258 bytes takes two bits), with the end of a block to spare.
_DEFLATE_MOST, _DEFLATE_SPARE = 1_032, 64
_ENCRYPTED = 1
#: The largest pickle of objects that is looked through for calls.
_LARGEST_PICKLE = 16 << 20
#: What every pickled array calls.
_OF_ARRAYS = "numpy._core.multiarray._reconstruct numpy.core.multiarray._reconstruct numpy.ndarray numpy.dtype"
#: Texts of more bytes are no value beside the tensors.
_LARGEST_TEXT = 4_000


class _EntryError(Exception):
    """Why an entry is not read; `unsupported` where nothing is wrong with it."""

    def __init__(self, reason: str, *, unsupported: bool = False) -> None:
        super().__init__(reason)
        self.unsupported = unsupported


@dataclass(slots=True)
class _Read:
    """What was read of a file so far."""

    path: Path
    tensors: list[Tensor] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    unsafe: list[UnsafeCall] = field(default_factory=list)


def sniff(path: Path) -> bool:
    """Whether `path` is a zip of arrays: its first entry is a `.npy`, or it is named `.npz` and begins as a zip."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(30)
            first = file.read(int.from_bytes(head[26:28], "little")) if len(head) == 30 else b""
    except OSError:  # whoever reads it will say so
        return False
    if head[:4] == b"PK\3\4" and first.endswith(b".npy"):
        return True
    return path.suffix == ".npz" and head[:2] == b"PK"


def read(path: Path | str) -> Checkpoint:
    """The arrays of a .npz, their names without `.npy` and with dots for slashes.

    Scalars and single texts stand in `values` as well. Arrays of objects are pickles: never loaded, what they would
    have called is in `unsafe`. Structured, big-endian and other types that are not read here are `unsupported`; an
    entry that overlaps another, is cut off, or claims more than deflate can make of its bytes is damage, and the
    others are read. Raises `InputError` where the file cannot be opened.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "a.npz"), w=np.ones((2, 3), "f4"), step=500)
    ...     with read(Path(folder, "a.npz")) as found:
    ...         [(t.name, t.dtype, t.shape) for t in found.tensors], found.values
    ([('w', 'float32', (2, 3)), ('step', 'int64', ())], {'step': 500})
    """
    path = Path(path)
    found = _Read(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            for entry, start in _entries(found, file, size):
                _add(found, file, entry, start)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    tensors, damage = tuple(found.tensors), tuple(found.damage)
    return Checkpoint(path, NAME, tensors, bounded(found.values), tuple(found.unsafe), damage, (path,))


def _entries(found: _Read, file: BinaryIO, size: int) -> list[tuple[zipfile.ZipInfo, int]]:
    """The entries whose bytes are theirs alone, each with the byte at which its content begins."""
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except _BROKEN as error:
        reason = f"the directory at the end of the zip cannot be read, the file is cut off or overwritten: {error}"
        found.damage.append(Damage(found.path, f"byte {size:,}", reason))
        return []
    twice = {name for name, count in Counter(_name(entry) for entry in listed).items() if count > 1}
    placed: dict[str, tuple[zipfile.ZipInfo, int]] = {}
    for number, entry in enumerate(listed):
        try:
            if _name(entry) in twice:
                raise _EntryError("the zip holds this name twice")
            placed[str(number)] = (entry, _content(file, entry, size))
        except _EntryError as error:
            _damaged(found, entry, error)
    spans = {name: (entry.header_offset, at + entry.compress_size) for name, (entry, at) in placed.items()}
    shared = overlapping(spans)
    for name, other in shared.items():
        entry, rival = placed[name][0], placed[other][0].filename
        _damaged(found, entry, _EntryError(f"entry {rival!r} claims the same bytes"))
    return [one for name, one in placed.items() if name not in shared]


def _content(file: BinaryIO, entry: zipfile.ZipInfo, size: int) -> int:
    """The byte at which an entry's content begins, by its own header."""
    try:
        file.seek(entry.header_offset)
        head = file.read(30)
    except (OSError, ValueError, OverflowError) as error:
        raise _EntryError(f"its offset {entry.header_offset:,} is none") from error
    if len(head) < 30 or head[:4] != b"PK\3\4":
        raise _EntryError("no entry begins there")
    start: int = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    if start + entry.compress_size > size:
        raise _EntryError(f"its {entry.compress_size:,} bytes end beyond the end of the file at {size:,}")
    if entry.flag_bits & _ENCRYPTED:
        raise _EntryError("is encrypted", unsupported=True)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _EntryError(f"is packed by method {entry.compress_type}; NumPy stores or deflates", unsupported=True)
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise _EntryError(f"is stored in {entry.compress_size:,} bytes and claims {entry.file_size:,}")
    if entry.file_size > entry.compress_size * _DEFLATE_MOST + _DEFLATE_SPARE:
        raise _EntryError(f"claims {entry.file_size:,} bytes; deflate cannot make them of {entry.compress_size:,}")
    return start


def _add(found: _Read, file: BinaryIO, entry: zipfile.ZipInfo, start: int) -> None:
    try:
        if not entry.filename.endswith(".npy"):
            raise _EntryError("is no .npy array", unsupported=True)
        head = _unpacked(file, entry, start, LONGEST + _LARGEST_TEXT)
        try:
            header = npy_header(head)
        except ValueError as error:
            raise _EntryError(str(error)) from error
        if header.is_pickle:
            _add_pickle(found, entry, _unpacked(file, entry, start, _LARGEST_PICKLE), header)
        elif header.dtype:
            found.tensors.append(_tensor(found.path, entry, start, header))
            if not header.shape:
                found.values[_name(entry)] = _scalar(head, header)
        elif header.text_length and not header.shape:
            found.values[_name(entry)] = _text(head, header)
        else:
            raise _EntryError(f"elements of the type {header.code} are not read here", unsupported=True)
    except _EntryError as error:
        _damaged(found, entry, error)


def _tensor(path: Path, entry: zipfile.ZipInfo, start: int, header: NpyHeader) -> Tensor:
    tensor = Tensor(_name(entry), header.dtype, header.shape, None)
    if header.start + tensor.nbytes != entry.file_size:
        held = entry.file_size - header.start
        raise _EntryError(f"{header.code} of the shape {header.shape} takes {tensor.nbytes:,} bytes, it has {held:,}")
    strides = _columns_first(header.shape) if header.columns_first else None
    if entry.compress_type == zipfile.ZIP_STORED:
        storage, offset = Storage(path, start + header.start, tensor.nbytes), 0
    else:
        each = DTYPES[header.dtype].bits // 8
        offset, rest = divmod(header.start, each)
        if rest:
            raise _EntryError(f"its header of {header.start} bytes is no multiple of {each}", unsupported=True)
        storage = Storage(path, start, entry.file_size, packed=entry.compress_size)
    return Tensor(tensor.name, header.dtype, header.shape, storage, offset, strides)


def _columns_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of an array whose first index runs fastest."""
    strides, each = [], 1
    for n in shape:
        strides.append(each)
        each *= max(n, 1)
    return tuple(strides)


def _unpacked(file: BinaryIO, entry: zipfile.ZipInfo, start: int, most: int) -> bytes:
    """At most the first `most` bytes of an entry's content."""
    file.seek(start)
    packed = file.read(min(entry.compress_size, most))
    if entry.compress_type == zipfile.ZIP_STORED:
        return packed
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    except zlib.error as error:
        raise _EntryError(f"cannot be unpacked: {error}") from error


def _add_pickle(found: _Read, entry: zipfile.ZipInfo, content: bytes, header: NpyHeader) -> None:
    from parsers.checkpoints.inert_builders import STANDARD, records
    from parsers.checkpoints.inert_pickle import unpickle

    known = {**STANDARD, **records(_OF_ARRAYS)}
    pickled = unpickle(content, file=found.path, builders=known, member=entry.filename, start=header.start, offset=None)
    found.unsafe += pickled.calls
    raise _EntryError("an array of Python objects, held as a pickle: it was not opened", unsupported=True)


def _scalar(head: bytes, header: NpyHeader) -> Value:
    import numpy as np

    value = np.frombuffer(head, DTYPES[header.dtype].raw, 1, header.start)[0].item()
    if isinstance(value, complex):
        return str(value)
    return bool(value) if header.dtype == "bool" else value


def _text(head: bytes, header: NpyHeader) -> str:
    wide = header.code.lstrip("|<>=").startswith("U")
    length = header.text_length * (4 if wide else 1)
    content = head[header.start : header.start + min(length, _LARGEST_TEXT)]
    encoding = ("utf-32-be" if header.code.startswith(">") else "utf-32-le") if wide else "latin-1"
    return content.decode(encoding, "replace").rstrip("\0")


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.removesuffix(".npy").replace("/", ".")


def _damaged(found: _Read, entry: zipfile.ZipInfo, error: _EntryError) -> None:
    where = f"entry {entry.filename!r}, byte {entry.header_offset:,}"
    found.damage.append(Damage(found.path, where, str(error), error.unsupported))
