"""The lines of a file in blocks of bounded size, whatever its encoding and however long a line: memory stays small."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from eventstream.errors import InputError
from parsers.finish import EXCERPT, Reject

__all__ = ["BLOCK", "LINE_LIMIT", "Block", "blocks", "to_utf8"]

#: Bytes read at a time: large enough for bulk parsing, small enough to repeat in parts when one line is damaged.
BLOCK = 16 << 20
#: Longest line that is read. A record of training is far below; a longer line is a dump or damage and is rejected.
LINE_LIMIT = BLOCK

#: Byte order marks, the longer first: UTF-32 begins as UTF-16 does.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines: `data` with their line ends, `first` the number of the first one, counted from 1."""

    data: bytes
    first: int
    #: How many lines, where that is known already.
    known: int = 0
    #: False where the last line has no line end, which is how a write that was cut looks.
    ended: bool = True

    def lines(self) -> list[bytes]:
        """The lines without their line ends."""
        rows = self.data.split(b"\n")
        return rows[:-1] if rows and not rows[-1] else rows

    def count(self) -> int:
        """How many lines."""
        return self.known or newlines(self.data) + (not self.ended)


def to_utf8(data: bytes) -> bytes:
    r"""`data` as UTF-8 where it begins with a byte order mark, else as it is; what cannot be decoded is replaced.

    >>> to_utf8(b"\xff\xfea\x00")
    b'a'
    """
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), None)
    return data if encoding is None else data.decode(encoding, "replace").encode("utf-8", "replace")


def newlines(data: bytes) -> int:
    """How many line ends stand in `data`."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 10))


def blocks(path: Path, *, limit: int = LINE_LIMIT) -> Iterator[Block | Reject]:
    r"""Blocks of whole lines as UTF-8 without byte order mark, and a reject for each line longer than `limit` bytes.

    UTF-16 and UTF-32 are told by their byte order mark and decoded; without a mark the bytes are passed on as they are.
    Raises `InputError` when the file cannot be opened or read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.jsonl")
    ...     _ = path.write_bytes(b'{"a": 1}\n{"a"')
    ...     [(block.first, block.lines(), block.ended) for block in blocks(path)]
    [(1, [b'{"a": 1}'], True), (2, [b'{"a"'], False)]
    """
    try:
        with path.open("rb", buffering=0) as file:
            yield from _blocks(file, str(path), min(BLOCK, limit), limit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _blocks(file: IO[bytes], name: str, size: int, limit: int) -> Iterator[Block | Reject]:
    carry, first, skipped = b"", 1, 0  # `skipped`: bytes of an overlong line passed over so far
    start = b""
    for chunk in _chunks(file, size):
        data = carry + chunk if carry else chunk
        if skipped:
            end = data.find(b"\n")
            if end < 0:
                skipped, carry = skipped + len(data), b""
                continue
            yield _too_long(name, first, skipped + end, limit, start)
            data, skipped, first = data[end + 1 :], 0, first + 1
        whole, carry = _cut(data, data.rfind(b"\n") + 1)
        if whole.find(b"\n") > limit:  # only the first line can be: the others lie inside one chunk
            line, whole = _cut(whole, whole.find(b"\n") + 1)
            yield _too_long(name, first, len(line) - 1, limit, line[:EXCERPT])
            first += 1
        if whole:
            count = newlines(whole)
            yield Block(whole, first, count)
            first += count
        if len(carry) > limit:
            start, skipped, carry = carry[:EXCERPT], len(carry), b""
    if skipped:
        yield _too_long(name, first, skipped, limit, start)
    elif carry:
        yield Block(carry, first, ended=False)


def _cut(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]


def _too_long(name: str, line: int, length: int, limit: int, start: bytes) -> Reject:
    reason = f"the line has {length:,} bytes; lines beyond {limit:,} bytes are not read"
    return Reject(name, reason, line=line, text=start.decode("utf-8", "replace"))


def _until_newline(file: IO[bytes], size: int) -> int:
    """How many bytes to read so that a line ends with them, where one does near `size`: it spares copying the rest."""
    start = file.tell()
    window = min(size, 1 << 16)
    file.seek(start + size - window)
    end = file.read(window).rfind(b"\n")
    file.seek(start)
    return size if end < 0 else size - window + end + 1


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    head = file.read(4)
    mark, encoding = next(((m, e) for m, e in MARKS if head.startswith(m)), (b"", ""))
    if not encoding or encoding == "utf-8-sig":
        yield head[len(mark) :]
        while chunk := file.read(_until_newline(file, size)):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    chunk = head
    while chunk:
        yield decoder.decode(chunk).encode("utf-8", "replace")
        chunk = file.read(size)
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")
