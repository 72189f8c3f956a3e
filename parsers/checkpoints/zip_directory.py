"""The entries of a zip archive inside mapped bytes: where each one's data lie; without its directory, by walking.

Python's `zipfile` refuses an archive for a wrong flag or a cut end, and reads a directory of any claimed length into
memory; torch's reader is another one, with other rules. This one only finds places, and says what does not agree.
Source: PKWARE, .ZIP File Format Specification (APPNOTE.TXT) 6.3, sections 4.3 and 4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from parsers.checkpoints.inert_objects import Buffer

__all__ = ["Directory", "Entry", "directory", "unpacked"]

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64, DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
#: The end record with the longest comment that it can announce.
LONGEST_END = 22 + 0xFFFF
#: More than deflate can pack into a byte (258 bytes in two bits, and a little).
MOST_PACKED = 1040
#: A field of 32 bits that says that the number stands in the 64-bit extra field.
IN_EXTRA = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its data are `size` bytes from `start` on, `nbytes` when unpacked (`packed` by deflate).

    `trouble` says what is wrong with it; `nbytes` are then what is there.
    """

    name: str
    header: int
    start: int
    size: int
    nbytes: int
    packed: bool
    crc: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries in the archive's order, and what of it is damaged: (where, why)."""

    entries: tuple[Entry, ...]
    damage: tuple[tuple[str, str], ...] = ()


def directory(data: Buffer, start: int = 0, end: int | None = None) -> Directory:
    """What the archive in these bytes holds; where its directory is cut off or damaged, what its headers tell.

    >>> import io, zipfile
    >>> packed = io.BytesIO()
    >>> with zipfile.ZipFile(packed, "w") as archive:
    ...     archive.writestr("a/data.pkl", b"12345")
    >>> [(entry.name, entry.start, entry.size) for entry in directory(packed.getvalue()).entries]
    [('a/data.pkl', 40, 5)]
    """
    stop = len(data) if end is None else end
    found = _central(data, start, stop)
    if isinstance(found, str):
        walked = tuple(_walked(data, start, stop))
        return Directory(walked, ((f"byte {stop - start:,}", found), *_troubles(walked)))
    return Directory(found, (*_troubles(found), *_overlaps(found)))


def unpacked(data: Buffer, entry: Entry, most: int) -> bytes:
    """The bytes of an entry, at most `most`, unpacked where they are packed; what comes before damage in them."""
    raw = data[entry.start : entry.start + min(entry.size, most)]
    if not entry.packed:
        return raw
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, most)
    except zlib.error:
        return b""


def _central(data: Buffer, start: int, stop: int) -> tuple[Entry, ...] | str:
    """The entries that the archive's directory lists, or why it cannot be read."""
    at = data.rfind(END, max(start, stop - LONGEST_END), stop)
    if at < 0 or at + 22 > stop:
        return "the archive has no end record: cut off"
    count, size, offset = struct.unpack("<10xHLL2x", data[at : at + 22])
    directory_end = at
    if at - 20 >= start and data[at - 20 : at - 16] == LOCATOR64:
        place = data.rfind(END64, max(start, at - 20 - 4096), at - 20)
        if place >= 0 and place + 56 <= at:
            count, size, offset = struct.unpack("<32xQQQ", data[place : place + 56])
            directory_end = place
    first = directory_end - size
    shift = first - start - offset  # bytes before the archive, as in a self-extracting one
    if first < start or shift < 0:
        return f"the directory should begin at byte {offset:,} and have {size:,} bytes, which is beyond the file"
    return _listed(data, first, directory_end, count, start + shift, stop)


def _listed(data: Buffer, at: int, end: int, count: int, base: int, stop: int) -> tuple[Entry, ...] | str:
    entries = []
    while at + 46 <= end and data[at : at + 4] == CENTRAL:
        flags, method, crc, size, nbytes, name, extra, comment, header = struct.unpack(
            "<8xHH4xLLLHHH8xL", data[at : at + 46]
        )
        text = data[at + 46 : at + 46 + name]
        more = data[at + 46 + name : at + 46 + name + extra]
        nbytes, size, header = _wide((nbytes, size, header), more)
        entries.append(_entry(data, _name(text), base + header, flags, method, (crc, size, nbytes), stop))
        at += 46 + name + extra + comment
    if (len(entries) - count) % 0x10000:  # beyond 65,535 entries a directory without 64-bit fields counts anew
        return f"the directory lists {len(entries):,} entries and says that they are {count:,}: damaged"
    return tuple(entries)


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _wide(numbers: tuple[int, int, int], extra: bytes) -> tuple[int, int, int]:
    """Length, packed length and place, taken from the 64-bit field where 32 bits do not hold them."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            first, second, third = (next(wide, number) if number == IN_EXTRA else number for number in numbers)
            return first, second, third
        at += 4 + length
    return numbers


def _entry(
    data: Buffer, name: str, header: int, flags: int, method: int, sizes: tuple[int, int, int], stop: int
) -> Entry:
    """An entry of the directory, with its data found by the header before them."""
    crc, size, nbytes = sizes
    if header + 30 > stop or data[header : header + 4] != LOCAL:
        return Entry(name, header, header, 0, 0, False, crc, f"no header of entry {name!r} at byte {header:,}")
    own, extra = struct.unpack("<26xHH", data[header : header + 30])
    start = header + 30 + own + extra
    entry = Entry(name, header, start, size, nbytes, method == 8, crc)
    local = _name(data[header + 30 : header + 30 + own])
    if local != name:
        return replace(entry, trouble=f"the directory calls it {name!r}, its own header {local!r}")
    return _checked(entry, flags, method, stop)


def _checked(entry: Entry, flags: int, method: int, stop: int) -> Entry:
    if flags & 1 or method not in (0, 8):
        how = "encrypted" if flags & 1 else f"packed by method {method}"
        return replace(entry, size=0, nbytes=0, trouble=f"entry {entry.name!r} is {how}, which torch does not write")
    there = max(0, stop - entry.start)
    if entry.size > there:
        why = f"entry {entry.name!r} has {entry.size:,} bytes, of which {there:,} are in the file: cut off"
        return replace(entry, size=there, nbytes=0 if entry.packed else there, trouble=why)
    if not entry.packed and entry.size != entry.nbytes:
        why = f"entry {entry.name!r} has {entry.size:,} bytes and says {entry.nbytes:,}"
        return replace(entry, nbytes=min(entry.size, entry.nbytes), trouble=why)
    if entry.packed and entry.nbytes > MOST_PACKED * (entry.size + 1):
        why = f"entry {entry.name!r} says that {entry.size:,} bytes unpack to {entry.nbytes:,}, which deflate cannot"
        return replace(entry, nbytes=0, trouble=why)
    return entry


def _walked(data: Buffer, start: int, stop: int) -> Iterator[Entry]:
    """Entries in the order of the file, told by their own headers, as far as these follow one another."""
    at = data.find(LOCAL, start, stop)
    while at >= 0 and at + 30 <= stop and data[at : at + 4] == LOCAL:
        flags, method, crc, size, nbytes, name, extra = struct.unpack("<6xHH4xLLLHH", data[at : at + 30])
        text = _name(data[at + 30 : at + 30 + name])
        begin = at + 30 + name + extra
        nbytes, size, _ = _wide((nbytes, size, 0), data[at + 30 + name : begin])
        behind = begin + size
        if flags & 8 and size == 0:
            if (described := _described(data, begin, stop)) is None:
                there = max(0, stop - begin)
                why = f"entry {text!r} has no end within the file: cut off after {there:,} bytes"
                yield Entry(text, at, begin, there, 0 if method == 8 else there, method == 8, 0, why)
                return
            crc, size, nbytes = described
            behind = begin + size
        yield _checked(Entry(text, at, begin, size, nbytes, method == 8, crc), flags, method, stop)
        at = behind + (_descriptor_length(data, behind) if data[behind : behind + 4] == DESCRIPTOR else 0)


def _described(data: Buffer, begin: int, stop: int) -> tuple[int, int, int] | None:
    """CRC and lengths as they stand behind the data; None where nothing does."""
    at = data.find(DESCRIPTOR, begin, stop)
    while at >= 0:
        for layout, length in (("<LLL", 16), ("<LQQ", 24)):
            if at + length <= stop:
                crc, size, nbytes = struct.unpack_from(layout, data[at : at + length], 4)
                if size == at - begin:
                    return crc, size, nbytes
        at = data.find(DESCRIPTOR, at + 4, stop)
    return None


def _descriptor_length(data: Buffer, at: int) -> int:
    """12 bytes of numbers, or 20 where lengths have 64 bits: told by what follows."""
    return 24 if data[at + 24 : at + 26] == b"PK" and data[at + 16 : at + 18] != b"PK" else 16


def _troubles(entries: tuple[Entry, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"byte {entry.header:,}", entry.trouble) for entry in entries if entry.trouble)[:20]


def _overlaps(entries: tuple[Entry, ...]) -> tuple[tuple[str, str], ...]:
    """Entries that share bytes: each reader may take them for something else."""
    found, before = [], None
    for entry in sorted(entries, key=lambda entry: (entry.header, entry.start + entry.size)):
        if before is not None and entry.header < before.start + before.size:
            found.append((f"byte {entry.header:,}", f"entry {entry.name!r} overlaps entry {before.name!r}"))
        if before is None or entry.start + entry.size > before.start + before.size:
            before = entry
    return tuple(found[:20])
