"""The compiled walk over many records of a `.wandb` file: where the names and the numbers of their items stand.

Only steps of history and updates of the summary whose values are all numbers are taken; every other record is named
and read in Python. Importing this module loads numba; it is imported for large files only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parsers.tables.compiled import compiled

__all__ = ["KEYS", "walk"]

#: Names told apart in one call, and the slots of their table.
KEYS, SLOTS = 4096, 16384
#: Items of a record whose names are first compared with those of the record of its kind before it.
USUAL = 256
_FNV_START, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_NO = -1
#: Bytes that a JSON number may have.
_NUMERIC = np.isin(np.arange(256), np.frombuffer(b"0123456789eE+-.", np.uint8))
_NAN, _INFINITY = np.frombuffer(b"NaN", np.uint8), np.frombuffer(b"Infinity", np.uint8)


@compiled
def _varint(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """The number at `at` and where it ends; -1 for the end where there is none below 2**56."""
    value = 0
    for shift in range(0, 56, 7):
        if at >= end:
            return 0, _NO
        byte = int(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    return 0, _NO


@compiled
def _same(data: Any, start: int, size: int, where: Any, known: int) -> Any:  # pragma: no cover - compiled
    """Whether a name is one that is known."""
    if where[known, 1] != size:
        return False
    first = where[known, 0]
    for i in range(size):  # noqa: SIM110 - numba compiles loops and no generators
        if data[np.uintp(first + i)] != data[np.uintp(start + i)]:
            return False
    return True


@compiled
def _is_number(data: Any, at: int, size: int) -> Any:  # pragma: no cover - compiled
    """Whether a value is written as JSON writes numbers, as far as reading it as a float would not tell."""
    end = at + size
    first = at + 1 if data[at] == 45 else at
    if first < end and data[first] == 73:
        return _is_word(data, first, end, _INFINITY)
    if data[at] == 78:
        return _is_word(data, at, end, _NAN)
    for i in range(first, end):
        digit = 48 <= data[np.uintp(i)] <= 57
        if not digit and (i == first or not _NUMERIC[data[np.uintp(i)]]):
            return False
        if data[np.uintp(i)] == 46 and not (i + 1 < end and 48 <= data[i + 1] <= 57):  # 5. and 5.e3
            return False
    return first < end and not (data[first] == 48 and first + 1 < end and 48 <= data[first + 1] <= 57)  # 05


@compiled
def _is_word(data: Any, at: int, end: int, word: Any) -> Any:  # pragma: no cover - compiled
    if end - at != len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110 - numba compiles loops and no generators
        if data[at + i] != word[i]:
            return False
    return True


@compiled
def _key(data: Any, start: int, size: int, slots: Any, hashes: Any, where: Any, count: int) -> Any:  # pragma: no cover
    """The number of a name, -1 where the table is full; a new one is entered, and its number is `count`."""
    hashed = _FNV_START
    for i in range(start, start + size):
        hashed = (hashed ^ np.uint64(data[i])) * _FNV_PRIME
    place = np.int64((hashed ^ (hashed >> np.uint64(32))) & np.uint64(SLOTS - 1))
    while slots[place] >= 0:
        known = slots[place]
        if hashes[known] == hashed and _same(data, start, size, where, known):
            return known
        place = (place + 1) & (SLOTS - 1)
    if count == KEYS:
        return _NO
    slots[place] = count
    hashes[count] = hashed
    where[count, 0] = start
    where[count, 1] = size
    return count


@compiled
def _item(data: Any, at: int, end: int, found: Any) -> Any:  # pragma: no cover - compiled
    """Where the name (with its field headers) and the number of one item stand; False where it is no plain number."""
    found[0] = found[2] = _NO
    found[1] = found[3] = 0
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        if at < 0 or tag & 7 != 2:
            return False
        size, at = _varint(data, at, end)
        if at < 0 or size > end - at:
            return False
        number = tag >> 3
        if number == 1 or number == 2:
            if found[0] >= 0 and found[0] + found[1] != start:
                return False
            if found[0] < 0:
                found[0] = start
            found[1] = at + size - found[0]
        elif number == 16 and found[2] < 0 and size > 0:
            first = data[at]
            if not (48 <= first <= 57 or first == 45 or first == 78 or first == 73):  # a digit, -, N(aN), I(nfinity)
                return False
            found[2] = at
            found[3] = size
        else:
            return False
        at += size
    return found[0] >= 0 and found[2] >= 0


@compiled
def _step(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """The step in a HistoryStep (0 where it is empty, as protocol buffers leave zeros out); -1 where it is no such."""
    if at == end:
        return 0
    tag, at = _varint(data, at, end)
    if at < 0 or tag != 8:
        return _NO
    step, at = _varint(data, at, end)
    return step if at == end else _NO


@compiled
def _field(data: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Number of a field with a length, where its content begins and ends; the number is -1 where it is another."""
    tag, at = _varint(data, at, end)
    if at < 0 or tag & 7 != 2:
        return _NO, at, at
    size, at = _varint(data, at, end)
    if at < 0 or size > end - at:
        return _NO, at, at
    return tag >> 3, at, at + size


@compiled
def _message(data: Any, at: int, end: int, r: int, kind: int, state: Any, out: Any) -> Any:  # pragma: no cover
    """Take the items of one history or summary record; False where it has to be read in Python.

    `state` holds how many items, names and bytes of text there are, the step, how many items are of the history, and
    whether one of these is no number.
    """
    keys, items, text, offsets, usual = out
    slots, hashes, where = keys
    found = np.empty(4, np.int64)
    place = 0
    while at < end:
        number, at, stop = _field(data, at, end)
        if number == 1:
            if not _item(data, at, stop, found):
                return False
            name = usual[kind & 1, place]
            if name < 0 or not _same(data, found[0], found[1], where, name):
                name = _key(data, found[0], found[1], slots, hashes, where, state[1])
                if name < 0:
                    return False
                state[1] = max(state[1], name + 1)
                usual[kind & 1, place] = name
            place = min(place + 1, USUAL - 1)
            count = state[0]
            items[count, 0], items[count, 1], items[count, 2], items[count, 3] = r, name, found[2], found[3]
            state[0] = count + 1
            if kind == 2:
                used = state[2]
                for i in range(found[3]):  # not a slice: making one costs more than copying these few bytes
                    text[np.uintp(used + i)] = data[np.uintp(found[2] + i)]
                if not _is_number(data, found[2], found[3]):
                    state[5] = 1
                state[4] += 1
                state[2] = offsets[state[4]] = used + found[3]
        elif number == 2 and kind == 2:
            state[3] = _step(data, at, stop)
            if state[3] < 0:
                return False
        elif number != 200:
            return False
        at = stop
    return True


@compiled
def _record(data: Any, at: int, end: int, r: int, state: Any, out: Any) -> Any:  # pragma: no cover - compiled
    """The kind of a record whose items were taken, 0 where it has to be read in Python."""
    kind = 0
    while at < end:
        if data[at] == 8:  # num, the count of records, which every record begins with
            _, at = _varint(data, at + 1, end)
            if at < 0:
                return 0
            continue
        number, at, stop = _field(data, at, end)
        if number == 2 or number == 3:
            if kind or not _message(data, at, stop, r, number, state, out):
                return 0
            kind = number
        elif number != 16 and number != 200:
            return 0
        at = stop
    return kind


@compiled
def walk(data: Any, ends: Any, records: Any, out: Any) -> Any:  # pragma: no cover - compiled
    """Walk the records of `data`, which end at `ends`: how many items, names, bytes of text and values there are, and
    whether one of the values is no number.

    `records` gets for each record its kind (2 history, 3 summary, 0 to be read in Python) and step (-1 for none).
    `out` is the table of names (slots, hashes, and where each name stands in `data`), for each item its record, the
    number of its name, and where its value begins and how long it is, and the values of the history as they are
    written, one after another, with their offsets; at last a table of (2, `USUAL`) numbers of names, -1 for none.
    """
    state = np.zeros(6, np.int64)
    at = 0
    for r in range(len(ends)):
        count, used, values, odd = state[0], state[2], state[4], state[5]
        state[3] = _NO
        kind = _record(data, at, ends[r], r, state, out)
        if kind == 0:
            state[0], state[2], state[4], state[5] = count, used, values, odd
        records[r, 0] = kind
        records[r, 1] = state[3]
        at = ends[r]
    return state[0], state[1], state[2], state[4], state[5]
