"""How a table in text is written: its separator, its header, its decimal sign; and one line of it as cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from parsers.content.lines import to_utf8
from parsers.tables.columns import number, roles

__all__ = ["MISSING", "Dialect", "cells", "decoded", "find_dialect", "index_column", "logical", "renamed"]

SEPARATORS = ("\t", ";", ",", "|")
#: What people and libraries write where there is no value; `nan` is a value.
MISSING = frozenset(
    ("", "NA", "na", "N/A", "n/a", "<NA>", "null", "NULL", "Null", "None", "none", "NONE", "nil", "-", "--")
)
#: Columns that count steps and are named otherwise: Stable-Baselines, CleanRL, RLlib.
STEPS = ("time/total_timesteps", "total_timesteps", "num_timesteps", "timesteps", "timesteps_total", "env_steps")
#: Physical lines that one quoted name or cell may span: a stray quote must not swallow the file.
MOST_LINES = 20
#: Data lines that are looked at to tell the format, and the share of them that has to look like it.
LOOK, ENOUGH = 50, 0.6
_LOCAL = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+(?:[eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_LONGEST = 1 << 24

csv.field_size_limit(
    max(csv.field_size_limit(), _LONGEST)
)  # a line is never longer than `parsers.content.lines.LINE_LIMIT`


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one table is written. `names` has one name a column, empty for a column that is left out."""

    separator: str
    names: tuple[str, ...]
    #: Lines before the data: comments and the header.
    skip: int
    decimal_comma: bool = False
    comments: tuple[str, ...] = ()
    #: Names that stand more than once in the header, each with a number now.
    twice: tuple[str, ...] = field(default=())

    def record(self, found: Sequence[str]) -> dict[str, str]:
        """The cells of a line under their names, without the missing ones; decimal commas as points."""
        record = {}
        for name, cell in zip(self.names, found, strict=False):
            text = cell.strip()
            if name and text not in MISSING:
                record[name] = self.plain(text)
        return record

    def plain(self, text: str) -> str:
        """A number written with a decimal comma as one with a point; any other text as it is.

        >>> local = Dialect(";", ("a", "b"), 1, decimal_comma=True)
        >>> local.plain("1.234,5"), local.plain("0,5"), Dialect(",", ("a", "b"), 1).plain("1,234")
        ('1234.5', '0.5', '1,234')
        """
        if "," not in text or not _LOCAL.fullmatch(text) or (not self.decimal_comma and _GROUPED.fullmatch(text)):
            return text  # with a comma as separator, 1,234 in quotes may be either: it stays text and is told
        return text.replace(".", "").replace(",", ".")


def decoded(data: bytes) -> tuple[str, bool]:
    """`data` as text, and whether it was UTF-8; what is not is read as Latin-1."""
    try:
        return data.decode("utf-8"), True
    except UnicodeDecodeError:
        return data.decode("latin-1"), False


def cells(line: str, separator: str) -> list[str]:
    """The cells of one line; quotes around a cell are taken off.

    >>> cells('1,"a, b",2.5', ",")
    ['1', 'a, b', '2.5']
    """
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return line.split(separator)


def logical(lines: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    """Place, text and count of each run of lines that make one row: a quoted cell may hold line ends.

    >>> list(logical(['a', '"b', 'c"', 'd']))
    [(0, 'a', 1), (1, '"b\\nc"', 2), (3, 'd', 1)]
    """
    place = 0
    while place < len(lines):
        count = 1
        if lines[place].count('"') % 2:
            quotes = lines[place].count('"')
            for more in range(1, min(MOST_LINES, len(lines) - place)):
                quotes += lines[place + more].count('"')
                if quotes % 2 == 0:
                    count = more + 1
                    break
        yield place, "\n".join(lines[place : place + count]), count
        place += count


def find_dialect(head: bytes) -> Dialect | None:
    r"""How the table that begins with `head` is written; None where this is no table with a step, epoch or time to it.

    The first line that is no comment names the columns, one of which has to be a step, an epoch or timesteps, and most
    of the lines after it have to hold a number there; or there are none yet. Comments begin with `#`; a header may be
    the last of them.

    >>> found = find_dialect(b"epoch;loss\n1;0,5\n")
    >>> found.separator, found.names, found.decimal_comma, find_dialect(b"name,size\na,3\n")
    (';', ('epoch', 'loss'), True, None)
    """
    whole = len(head) < (1 << 16)
    lines = [line.rstrip("\r") for line in decoded(to_utf8(head))[0].split("\n")]
    if not whole and len(lines) > 1:
        lines.pop()  # the head ends inside it
    start = 0
    while start < len(lines) and (not lines[start].strip() or lines[start].lstrip().startswith("#")):
        start += 1
    comments = tuple(line.strip() for line in lines[:start] if line.strip())
    given = next(logical(lines[start:]), None)
    if given is not None:
        _, text, count = given
        found = _as_header(text, start + count, lines[start + count :], comments)
        if found is not None:
            return found
    if comments and given is not None:
        return _as_header(comments[-1].lstrip("# "), start, lines[start:], comments[:-1])
    return _as_header(comments[-1].lstrip("# "), start, [], comments[:-1]) if comments else None


def _as_header(text: str, skip: int, lines: Sequence[str], comments: tuple[str, ...]) -> Dialect | None:
    best: Dialect | None = None
    for separator in SEPARATORS:
        raw = [name.strip().strip("'").strip() for name in cells(text, separator)]
        if len(raw) < 2 or (best is not None and len(raw) <= len(best.names)):
            continue
        names, twice = _names(raw)
        index = index_column(names)
        if index is None or sum(number(name) is not None for name in raw) > len(raw) // 2:
            continue
        rows = [cells(line, separator) for line in lines[:LOOK] if line.strip()]
        found = Dialect(separator, names, skip, separator != "," and _has_commas(rows), comments, twice)
        good = sum(_fits(found, row, names.index(index)) for row in rows)
        if not rows or good >= max(1, ENOUGH * (len(rows) - 1)):
            best = found
    return best


def index_column(names: Sequence[str]) -> str | None:
    """The column that counts: a step, an epoch, or timesteps; None where there is none."""
    having = roles(name for name in names if name)
    steps = next((name for name in STEPS if name in names), None)
    return having.get("step") or steps or having.get("epoch")


def _names(raw: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names for all columns: an unnamed first one (an index) and an unnamed last one are left out."""
    names: list[str] = []
    twice: list[str] = []
    taken, given = set[str](), set(raw)
    for place, name in enumerate(raw):
        if not name:
            name = "" if place in (0, len(raw) - 1) else f"column {place + 1}"
        if name and name in taken:
            twice.append(name)
            count = 1
            while f"{name}.{count}" in taken or f"{name}.{count}" in given:
                count += 1
            name = f"{name}.{count}"
        names.append(name)
        taken.add(name)
    return tuple(names), tuple(twice)


def _fits(dialect: Dialect, row: Sequence[str], index: int) -> bool:
    if len(row) != len(dialect.names) or index >= len(row):
        return False
    text = row[index].strip()
    return text in MISSING or number(dialect.plain(text)) is not None


def _has_commas(rows: Sequence[Sequence[str]]) -> bool:
    found = [cell.strip() for row in rows for cell in row]
    return any(_LOCAL.fullmatch(c) for c in found) and not any(_POINT.fullmatch(c) for c in found)


def renamed(names: Sequence[str]) -> Mapping[str, str]:
    """Columns that are read under another name: timesteps are the step where nothing else is.

    >>> dict(renamed(["time/total_timesteps", "train/loss"]))
    {'time/total_timesteps': 'step'}
    """
    index = index_column(names)
    return {index: "step"} if index in STEPS and "step" not in names else {}
