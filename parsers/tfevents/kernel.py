"""The compiled walk over a large event file: checksums, and the numbers of plain scalar events, in one pass.

Whatever is no plain scalar (text, histograms, hparams, graphs) is named by its place and read in Python. Importing this
module loads numba; it is imported for large files only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parsers.content.crc32c import DELTA, tables
from parsers.content.crc_kernel import crc_of, u32
from parsers.tables.compiled import compiled

__all__ = ["DATA", "END", "FORM", "FULL", "HEADER", "NEW_TAG", "group", "tag_hash", "walk"]

#: Why the walk stopped; the first three as `records.Stop`, then: a tag that is not in the table, no room left.
END, HEADER, DATA, NEW_TAG, FULL = 0, 1, 2, 3, 4
#: How the bits of a value stand for a number: a float, a double, an integer.
FORM = {"f4": 0, "f8": 1, "i8": 2}

_TABLE = tables(8).ravel()
_DELTA = np.uint32(DELTA)
_SCALARS = np.frombuffer(b"scalars", np.uint8)
_FNV_START, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@compiled
def _u64(data: Any, at: int) -> Any:  # pragma: no cover - compiled
    return np.uint64(u32(data, at)) | (np.uint64(u32(data, at + 4)) << np.uint64(32))


@compiled
def _masked(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """The masked checksum of data[at:end]."""
    crc = crc_of(data, at, end, _TABLE)
    return np.uint32(((crc >> np.uint32(15)) | (crc << np.uint32(17))) + _DELTA)


@compiled
def _varint(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """The number at `at` and where it ends; -1 where it does not."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end and shift < np.uint64(70):
        byte = np.uint64(data[np.uintp(at)])
        at += 1
        if shift < np.uint64(64):
            value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return np.int64(value), at
        shift += np.uint64(7)
    return np.int64(0), -1


@compiled
def _field(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Field number, wire type, start and length of the value, where the next field begins; -1 where it is damaged."""
    key, at = _varint(data, at, end)
    if at < 0:
        return 0, 0, 0, 0, -1
    number, kind = key >> 3, key & 7
    if kind == 0:
        _, after = _varint(data, at, end)
        return number, kind, at, 0, after
    if kind == 2:
        size, at = _varint(data, at, end)
        if at < 0:
            return 0, 0, 0, 0, -1
    elif kind == 1:
        size = 8
    elif kind == 5:
        size = 4
    else:
        return 0, 0, 0, 0, -1
    if size < 0 or size > end - at:
        return 0, 0, 0, 0, -1
    return number, kind, at, size, at + size


@compiled
def _plain_metadata(data: Any, at: int, end: int) -> bool:  # pragma: no cover - compiled
    """Whether the metadata of a value names the plugin of scalars, or none."""
    while at < end:
        number, kind, start, size, at = _field(data, at, end)
        if at < 0 or (number == 1 and kind != 2):
            return False
        if number != 1:
            continue
        inner, stop = start, start + size
        while inner < stop:
            key, wire, first, length, inner = _field(data, inner, stop)
            if inner < 0:
                return False
            if key == 1:
                if wire != 2 or (length != 7 and length != 0):
                    return False
                for k in range(length):
                    if data[first + k] != _SCALARS[k]:
                        return False
    return True


@compiled
def _typed(dtype: int, bits: Any, form: int) -> Any:  # pragma: no cover - compiled
    """Bits and form by the type of a tensor; the form is 10 or 11 for a content of 4 or 8 bytes, else as found."""
    if dtype == 1 and (form == 0 or form == 10):
        return bits, 0
    if dtype == 2 and (form == 1 or form == 11):
        return bits, 1
    if dtype == 9 and form == 11:
        return bits, 2
    if dtype == 3 and form == 10:
        return np.uint64(np.int64(np.int32(np.uint32(bits)))), 2
    return np.uint64(0), -1


@compiled
def _tensor(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Bits and form of a tensor of one float, double, int32 or int64; form -1 where it is another."""
    dtype, bits, form, have = 0, np.uint64(0), -1, 0
    while at < end:
        number, kind, start, size, at = _field(data, at, end)
        if at < 0:
            return np.uint64(0), -1
        if number == 1 and kind == 0:
            value, _ = _varint(data, start, end)
            dtype = value
        elif number == 2 and size == 0:
            continue  # the shape of a scalar is empty
        elif number == 4 and (size == 4 or size == 8):
            have += 1
            bits, form = (np.uint64(u32(data, start)), 10) if size == 4 else (_u64(data, start), 11)
        elif number == 5 and size == 4:
            have += 1
            bits, form = np.uint64(u32(data, start)), 0
        elif number == 6 and size == 8:
            have += 1
            bits, form = _u64(data, start), 1
        elif number == 3 and kind == 0:
            continue  # the version of the message
        else:
            return np.uint64(0), -1
    return _typed(dtype, bits, form) if have == 1 else (np.uint64(0), -1)


@compiled
def _value(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Start and length of the tag, bits and form of the number; form -1 where it is no plain scalar."""
    tag, length, bits, form = 0, 0, np.uint64(0), -1
    while at < end:
        number, kind, start, size, at = _field(data, at, end)
        if at < 0:
            return 0, 0, np.uint64(0), -1
        if number == 1 and kind == 2:
            tag, length = start, size
        elif number == 2 and kind == 5 and form == -1:
            bits, form = np.uint64(u32(data, start)), 0
        elif number == 8 and kind == 2 and form == -1:
            bits, form = _tensor(data, start, start + size)
            if form < 0:
                return 0, 0, np.uint64(0), -1
        elif number == 9 and kind == 2:
            if not _plain_metadata(data, start, start + size):
                return 0, 0, np.uint64(0), -1
        elif number != 7:
            return 0, 0, np.uint64(0), -1
    return tag, length, bits, form


@compiled
def tag_hash(data: Any, at: int, length: int) -> Any:  # pragma: no cover - compiled
    """FNV-1a of the tag's bytes."""
    found = _FNV_START
    for k in range(length):
        found = (found ^ np.uint64(data[np.uintp(at + k)])) * _FNV_PRIME
    return found


@compiled
def _same(data: Any, at: int, pool: Any, first: int, length: int) -> bool:  # pragma: no cover - compiled
    k = 0
    while length - k >= 8:
        if _u64(data, at + k) != _u64(pool, first + k):
            return False
        k += 8
    while k < length:
        if data[np.uintp(at + k)] != pool[np.uintp(first + k)]:
            return False
        k += 1
    return True


@compiled
def _find(data: Any, at: int, length: int, table: Any) -> Any:  # pragma: no cover - compiled
    """The number of a tag in the table of (slots, hashes, starts, lengths, pool), or -1."""
    slots, hashes, starts, lengths, pool = table
    wanted = tag_hash(data, at, length)
    last = np.uint64(len(slots) - 1)
    place = (wanted ^ (wanted >> np.uint64(32))) & last
    while slots[place] >= 0:
        tag = slots[place]
        if hashes[tag] == wanted and lengths[tag] == length and _same(data, at, pool, starts[tag], length):
            return np.int64(tag)
        place = (place + np.uint64(1)) & last
    return np.int64(-1)


@compiled
def _event(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Wall time, step, start and end of the summary; the end -1 where it is no plain event with one summary."""
    wall, step, first, last = np.uint64(0), np.int64(0), 0, -1
    while at < end:
        number, kind, start, size, at = _field(data, at, end)
        if at < 0:
            return wall, step, 0, -1
        if number == 1 and kind == 1:
            wall = _u64(data, start)
        elif number == 2 and kind == 0:
            step, _ = _varint(data, start, end)
        elif number == 5 and kind == 2 and last < 0:
            first, last = start, start + size
        else:
            return wall, step, 0, -1
    return wall, step, first, last


@compiled
def _scalars(data: Any, at: int, end: int, table: Any, rows: Any, count: int) -> Any:  # pragma: no cover - compiled
    """The number of rows after those of one event; -1 other, -2 no room, else -3 - place of a tag not in the table."""
    tags, steps, walls, bits, forms = rows
    wall, step, at, end = _event(data, at, end)
    if end < 0:
        return -1, 0
    while at < end:
        number, kind, start, size, at = _field(data, at, end)
        if at < 0 or number != 1 or kind != 2:
            return -1, 0
        tag, length, value, form = _value(data, start, start + size)
        if form < 0:
            return -1, 0
        if count == len(tags):
            return -2, 0
        found = _find(data, tag, length, table)
        if found < 0:
            return -3 - tag, length
        tags[count], steps[count], walls[count], bits[count], forms[count] = found, step, wall, value, form
        count += 1
    return count, 0


@compiled
def _usual(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Start of the tag and step of an event laid out as writers do: wall time, step, one value of tag and float.

    The start is -1 for any other. The tag ends five bytes before the end, which hold the float.
    """
    step = np.int64(0)
    if end - at < 19 or data[np.uintp(at)] != 9:
        return -1, step
    place = at + 9
    if data[np.uintp(place)] == 16:
        step, place = _varint(data, place + 1, end)
    if place < 0 or end - place < 11 or data[np.uintp(place)] != 42:
        return -1, step
    inner = np.int64(data[np.uintp(place + 1)])
    if inner > 127 or inner != end - place - 2 or data[np.uintp(place + 2)] != 10:
        return -1, step
    if np.int64(data[np.uintp(place + 3)]) != inner - 2 or data[np.uintp(place + 4)] != 10:
        return -1, step
    if np.int64(data[np.uintp(place + 5)]) != inner - 9 or data[np.uintp(end - 5)] != 21:
        return -1, step
    return place + 6, step


@compiled
def _framed(data: Any, at: int, size: int) -> Any:  # pragma: no cover - compiled
    """The end of the data of the record at `at`, and why it cannot be taken; -1 where it can."""
    if size - at < 12:
        return at, END
    if _masked(data, at, at + 8) != u32(data, at + 8):
        return at, HEADER
    length = np.int64(_u64(data, at))
    if length < 0 or length > size - at - 16:
        return at, END
    end = at + 12 + length
    if _masked(data, at + 12, end) != u32(data, end):
        return at, DATA
    return end, -1


@compiled
def walk(
    data: Any, at: Any, table: Any, follows: Any, rows: Any, others: Any, have: Any
) -> Any:  # pragma: no cover - compiled
    """Take records from `at` on: where it stopped and why, rows and others found, start and length of a new tag.

    `follows` is the tag that followed each tag when it was last met, or -1, with which the search for a tag begins;
    `rows` is (tags, steps, walls, bits, forms); `others` takes start, length and the rows before it of each record that
    is no plain scalar event; `have` tells how many of both there are already.
    """
    # taken apart once: handing tuples of arrays to a function costs more than reading a record
    tags, steps, walls, bits, forms = rows
    _, _, starts, lengths, pool = table
    count, odd, size, last = have[0], have[1], len(data), np.int64(0)
    while True:
        end, stop = _framed(data, at, size)
        if stop >= 0:
            return at, stop, count, odd, 0, 0
        start = at + 12
        tag, step = _usual(data, start, end)
        if tag >= 0 and count < len(tags):
            length = end - 5 - tag
            found = np.int64(follows[last])
            if found < 0 or lengths[found] != length or not _same(data, tag, pool, starts[found], length):
                found = _find(data, tag, length, table)
                follows[last] = found
            if found >= 0:
                last = found
                tags[count], steps[count], walls[count] = found, step, _u64(data, start + 1)
                bits[count], forms[count] = np.uint64(u32(data, end - 4)), 0
                count, at = count + 1, end + 4
                continue
        after, extra = _scalars(data, start, end, table, rows, count)
        if after >= 0:
            count = after
        elif after == -1:
            if odd == len(others):
                return at, FULL, count, odd, 0, 0
            others[odd, 0], others[odd, 1], others[odd, 2] = start, end - start, count
            odd += 1
        elif after == -2:
            return at, FULL, count, odd, 0, 0
        else:
            return at, NEW_TAG, count, odd, -3 - after, extra
        at = end + 4


@compiled
def group(tags: Any, places: Any, columns: Any, into: Any) -> None:  # pragma: no cover - compiled
    """Copy the rows of `columns` to `into`, those of one tag together, from `places` (first row a tag) on."""
    steps, times, values = columns
    to_steps, to_times, to_values = into
    for i in range(len(tags)):
        place = places[tags[i]]
        places[tags[i]] = place + 1
        to_steps[place], to_times[place], to_values[place] = steps[i], times[i], values[i]
