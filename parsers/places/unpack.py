"""Compressed streams read piece by piece: bounded in size and ratio, seekable, whole up to the place of any damage."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from eventstream.errors import InputError

__all__ = ["LIMIT", "PACKED", "RATIO", "Limits", "Unpacked", "unpacking"]

#: Suffixes of single compressed files.
PACKED = (".gz", ".zst", ".xz", ".bz2")
#: A file that unpacks to more is refused: a log of 2 GiB is beyond what people keep packed.
LIMIT = 2 << 30
#: Text of a log packs 5 to 30 times; what packs more than `RATIO` times is refused once it is beyond `FREE` bytes.
RATIO, FREE = 200, 64 << 20
#: Unpacked bytes that are kept behind the place of reading, so that short steps back cost nothing.
WINDOW = 16 << 20
#: Packed bytes taken at once, and unpacked bytes made at once: what damage costs at most.
_TAKE, _MAKE = 1 << 16, 1 << 12


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may come out of a packed file: `size` bytes, and `ratio` times what went in once beyond `free` bytes.

    >>> Limits().check("a.gz", unpacked=100 << 20, packed=100 << 10)
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: a.gz: 102,400 bytes unpack to 104,857,600 or more, over 200 times as much; refused
    """

    size: int | None = LIMIT
    ratio: float = RATIO
    free: int = FREE

    def check(self, name: str, *, unpacked: int, packed: int | None) -> None:
        """Raise `InputError` with the sizes where the limits are passed; `packed` is None where nobody knows."""
        if self.size is not None and unpacked > self.size:
            raise InputError(f"{name}: unpacks to {unpacked:,} bytes or more; beyond {self.size:,} bytes is not read")
        if packed is not None and unpacked > self.free and unpacked > self.ratio * max(packed, 1):
            raise InputError(
                f"{name}: {packed:,} bytes unpack to {unpacked:,} or more, over {self.ratio:g} times as much; refused"
            )


class Unpacked(io.RawIOBase):
    """What a stream of pieces holds, as a file that can be read and sought; only a window of it is in memory.

    `begin()` gives the pieces from the start and is called again when a step back is longer than the window. Damage
    (the pieces end in one of `errors`) ends the file there and is told to `damaged`, once.
    """

    def __init__(self, begin: Callable[[], Iterator[bytes]], damaged: Callable[[str], None]) -> None:
        super().__init__()
        self._begin, self._damaged = begin, damaged
        self._restart()

    def _restart(self) -> None:
        self._pieces = self._begin()
        self._kept = bytearray()
        self._first = self._at = 0  # where the window begins, and where reading stands
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always; a step back beyond the window unpacks from the start."""
        return True

    def _fill(self, until: int) -> None:
        """Unpack up to `until`, or to the end."""
        while not self._ended and self._first + len(self._kept) < until:
            try:
                piece = next(self._pieces, None)
            except ERRORS as error:
                self._damaged(f"damaged or cut while packed ({_said(error)}); read up to there")
                piece = None
            if piece is None:
                self._ended = True
            else:
                self._kept += piece
                self._forget()

    def _forget(self) -> None:
        end = self._first + len(self._kept)
        surplus = min(self._at, end) - WINDOW - self._first
        if surplus > WINDOW:
            del self._kept[:surplus]
            self._first += surplus

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; 0 at the end."""
        with memoryview(buffer).cast("B") as view:
            if self._at < self._first:
                self._at, at = 0, self._at
                self._restart()
                self._skip_to(at)
            self._fill(self._at + len(view))
            start = self._at - self._first
            found = self._kept[start : start + len(view)]
            view[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _skip_to(self, at: int) -> None:
        """Go to `at` with no more than the window in memory."""
        while not self._ended and self._first + len(self._kept) < at:
            self._at = self._first + len(self._kept)
            self._fill(min(at, self._at + WINDOW))
        self._at = at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Stand elsewhere; from the end means unpacking all of it."""
        if whence == io.SEEK_END:
            self._skip_to(1 << 62)
            offset += self._first + len(self._kept)
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset > self._at:
            self._skip_to(offset)
        self._at = max(offset, 0)
        return self._at

    def tell(self) -> int:
        """Where reading stands."""
        return self._at


def unpacking(suffix: str, opened: Callable[[], IO[bytes]], name: str, limits: Limits) -> Callable[[], Iterator[bytes]]:
    """A function that begins to unpack what `opened()` gives, packed as `suffix` (one of `PACKED`) says."""

    def begin() -> Iterator[bytes]:
        with opened() as raw:
            counted = _Counted(raw)
            made = 0
            for piece in _zstd(counted) if suffix == ".zst" else _standard(suffix, counted):
                made += len(piece)
                limits.check(name, unpacked=made, packed=counted.taken)
                yield piece

    return begin


class _Counted(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)


class _Gzip:
    """A gzip member with the manners of bz2's and lzma's decompressors; before damage, everything comes out."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._saved, self._taken, self._given = self._zlib.copy(), b"", 0
        self._error: zlib.error | None = None

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._error is not None:
            raise self._error
        if data:
            self._saved, self._taken, self._given = self._zlib.copy(), data, 0
        try:
            made = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        except zlib.error as error:
            self._error = error
            return self._salvaged()
        self._given += len(made)
        return made

    def _salvaged(self) -> bytes:
        """What zlib had made when it raised, made again in small steps."""
        out, data = bytearray(), self._taken
        try:
            while not out or data:
                out += self._saved.decompress(data, 1)
                data = self._saved.unconsumed_tail
        except zlib.error:
            pass  # the same error as before, which is raised at the next call
        return bytes(out[self._given :])

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_NEW: dict[str, Callable[[], Any]] = {".gz": _Gzip, ".bz2": bz2.BZ2Decompressor, ".xz": lzma.LZMADecompressor}


def _standard(suffix: str, raw: io.RawIOBase) -> Iterator[bytes]:
    """Pieces of a stream, or of several one after the other as `cat a.gz b.gz` makes them."""
    data = raw.read(_TAKE) or b""
    while data:
        unpacker = _NEW[suffix]()
        while not unpacker.eof:
            yield unpacker.decompress(data, _MAKE)
            data = b""
            if unpacker.needs_input and not unpacker.eof:
                data = raw.read(_TAKE) or b""
                if not data:
                    # output may be held back although all input was taken
                    while rest := unpacker.decompress(b"", _MAKE):
                        yield rest
                    if unpacker.eof:
                        break
                    raise EOFError("the file ends too early")
        # zeros may fill up the last block of a tape or a disk
        data = unpacker.unused_data.lstrip(b"\0") or (raw.read(_TAKE) or b"").lstrip(b"\0")


def _zstd(raw: io.RawIOBase) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
        while piece := stream.read(_MAKE):
            yield piece


#: What the libraries raise on damaged input. `InputError` is none of them: limits are no damage.
ERRORS = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, NotImplementedError)


def _said(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
