"""The rows of a table in text as records: many at once where that is proven to lose nothing, else line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from parsers.content.lines import BLOCK, MARKS, Block, blocks, newlines
from parsers.content.table_text import MISSING, Dialect, cells, decoded, index_column, logical, renamed
from parsers.finish import Reject
from parsers.places.place import is_local
from parsers.tables.bulk import Bulk
from parsers.tables.columns import number, roles
from parsers.tables.generic import Records
from parsers.tables.generic_bulk import add_bulk

__all__ = ["add_table"]

#: Below this many lines, a part that could not be read at once is read line by line.
FEW = 512
#: Lines whose cells tell which columns hold numbers.
SAMPLE = 200
#: Largest file that is held whole; beyond, memory stays at that of a block.
WHOLE = 256 << 20
PIECE = 1 << 18
#: From here on a float does not hold every whole number.
_EXACT = 2.0**53
_NULLS = sorted(MISSING)
_WHOLE = re.compile(r"-?\d{1,15}", re.ASCII)


@dataclass(slots=True)
class _Table:
    dialect: Dialect
    records: Records
    file: str
    names: tuple[str, ...]
    index: str
    #: Whether bytes that are not UTF-8 were told.
    told: bool = False

    def reject(self, line: int, reason: str, text: str) -> None:
        self.records.rejects.append(Reject(self.file, reason, line=line, text=text))


def add_table(path: Path, dialect: Dialect, records: Records) -> None:
    """Add every row of the table at `path` to `records`.

    A row with fewer or more cells than the header is a reject, as nobody can tell which cell is which; so is the last
    cell of a last line without line end, which may be cut. A header that is repeated (the file was appended to) is
    passed over. Empty cells, `NA`, `null` and the like are missing values; other text is kept as an event.
    """
    changed = renamed(dialect.names)
    names = tuple(changed.get(name, name) for name in dialect.names)
    index = index_column(names)
    table = _Table(dialect, records, str(path), names, index or "step")
    for name in dialect.twice:
        table.reject(dialect.skip, f"column {name!r} stands more than once; the later ones are numbered", "")
    for block in () if _add_whole(table, path) else blocks(path):
        if isinstance(block, Reject):
            records.rejects.append(block)
            continue
        block = _without_head(block, dialect.skip)
        if not block.ended:
            block, last = _without_last(block)
            _add_part(table, block)
            _add_unended(table, block.first + newlines(block.data), last)
        else:
            _add_part(table, block)


def _without_head(block: Block, skip: int) -> Block:
    """The block without those of its lines that stand before the data."""
    drop = skip - block.first + 1
    if drop <= 0:
        return block
    data = block.data
    for _ in range(drop):
        end = data.find(b"\n")
        data = data[end + 1 :] if end >= 0 else b""
    return Block(data, block.first + drop, ended=block.ended)


def _without_last(block: Block) -> tuple[Block, bytes]:
    cut = block.data.rfind(b"\n") + 1
    return Block(block.data[:cut], block.first), block.data[cut:]


def _add_part(table: _Table, block: Block) -> None:
    """The block at once, else its halves, else line by line."""
    stack = [block]
    while stack:
        part = stack.pop()
        count = part.count()
        if not part.data:
            continue
        bulk = _at_once(table, _counted(part.data, table), part.first)
        if bulk is not None:
            add_bulk(table.records, bulk)
        elif count <= FEW or b'"' in part.data:  # a quoted cell may hold line ends: halves would tear it
            _add_lines(table, part)
        else:
            stack += reversed(_halved(part))


def _halved(block: Block) -> list[Block]:
    cut = block.data.find(b"\n", len(block.data) // 2) + 1
    if cut in (0, len(block.data)):
        cut = block.data.rfind(b"\n", 0, len(block.data) - 1) + 1
    first, rest = block.data[:cut], block.data[cut:]
    return [Block(first, block.first), Block(rest, block.first + newlines(first))]


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines that Polars is to read, and what was counted in them."""

    source: bytes | Path
    #: The first lines, or all.
    head: bytes
    separators: int
    count: int
    quoted: bool
    ended: bool = True


def _add_whole(table: _Table, path: Path) -> bool:
    """Read a large file in one piece, which is faster than in blocks; False where it takes the patient way."""
    try:
        if not BLOCK // 8 <= path.stat().st_size <= WHOLE:
            return False
        # what was counted in a file that Polars opens itself need not be held in memory besides
        lines = _counted_file(path, table) if is_local(path) else _counted(path.read_bytes(), table)
    except OSError:
        return False  # `blocks` says why
    if not lines.ended or any(lines.head.startswith(mark) for mark, _ in MARKS):
        return False
    bulk = _at_once(table, lines, 1, table.dialect.skip)
    if bulk is not None:
        add_bulk(table.records, bulk)
    return bulk is not None


def _counted(data: bytes, table: _Table) -> _Lines:
    """How often separators and line ends stand in `data`, counted in pieces that stay in the cache."""
    separator = ord(table.dialect.separator)
    whole = np.frombuffer(data, np.uint8)
    pieces = [whole[start : start + PIECE] for start in range(0, len(whole), PIECE)]
    separators, count = (sum(int(np.count_nonzero(piece == sign)) for piece in pieces) for sign in (separator, 10))
    return _Lines(data, data, separators, count, b'"' in data, data.endswith(b"\n"))


def _counted_file(path: Path, table: _Table) -> _Lines:
    separator, buffer, head = ord(table.dialect.separator), bytearray(PIECE), b""
    separators = count = last = 0
    quoted = False
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            piece = np.frombuffer(buffer, np.uint8, size)
            separators += int(np.count_nonzero(piece == separator))
            count += int(np.count_nonzero(piece == 10))
            quoted = quoted or buffer.find(b'"', 0, size) >= 0
            head, last = head or bytes(buffer[:size]), buffer[size - 1]
    return _Lines(path, head, separators, count, quoted, last == 10)


def _at_once(table: _Table, lines: _Lines, first: int, skip: int = 0) -> Bulk | None:
    """Lines as columns, without the `skip` first ones; None where it is not certain that all are read as they stand."""
    dialect = table.dialect
    if lines.quoted:
        return None
    start, count = _line_starts(lines.head, skip), lines.count - skip
    separators = lines.separators - lines.head.count(dialect.separator.encode(), 0, start)
    # Polars fills up short rows in silence and refuses long ones; with this count there are no short ones either
    if separators != count * (len(table.names) - 1):
        return None
    schema = _schema(table, lines.head, start)
    floats = {place: pl.Float64 if dtype == pl.Int64 else dtype for place, dtype in schema.items()}
    frame = None
    # whole numbers are read faster as such, and words such as NA take time to look for in every cell
    for columns, missing in ((schema, None), (floats, None), (floats, _NULLS)):
        frame = _parsed(dialect, lines.source, skip, columns, missing) if frame is None else frame
    if frame is None or frame.height != count:
        return None
    counted = roles(name for name in table.names if name).get("step")
    frame = pl.DataFrame(
        [_named(frame[str(place)], name, name == counted) for place, name in enumerate(table.names) if name]
    )
    index = frame[table.index]
    if not index.dtype.is_numeric() or np.any(np.abs(index.to_numpy()) >= _EXACT):
        return None  # a step beyond is read one by one, from its text
    return Bulk(frame, np.arange(first + skip, first + skip + count))


def _parsed(
    dialect: Dialect, source: bytes | Path, skip: int, schema: dict[str, Any], missing: list[str] | None
) -> pl.DataFrame | None:
    try:
        return pl.read_csv(
            source,
            has_header=False,
            skip_rows=skip,
            schema=schema,
            separator=dialect.separator,
            quote_char=None,
            decimal_comma=dialect.decimal_comma,
            null_values=missing,
        )
    except (pl.exceptions.PolarsError, ValueError):
        return None  # a cell that is no number, a row that is too long: the patient way says which


def _line_starts(data: bytes, lines: int) -> int:
    """Where the line after the first `lines` begins."""
    start = 0
    for _ in range(lines):
        start = data.find(b"\n", start) + 1
    return start


def _named(column: pl.Series, name: str, counted: bool) -> pl.Series:
    if column.dtype == pl.Int64 and not counted:
        column = column.cast(pl.Float64)
    elif column.dtype == pl.String:
        text = pl.col(column.name).str.strip_chars()
        column = column.to_frame().select(pl.when(~text.is_in(_NULLS)).then(text)).to_series()
    return column.alias(name)


def _schema(table: _Table, data: bytes, start: int) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Numbers where the first lines hold nothing else, text where they do."""
    end = start
    for _ in range(SAMPLE):
        following = data.find(b"\n", end)
        if following < 0:
            break
        end = following + 1
    rows = [line.rstrip("\r").split(table.dialect.separator) for line in decoded(data[start:end])[0].split("\n")[:-1]]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {}
    for place in range(len(table.names)):
        texts = {row[place].strip() for row in rows if place < len(row)} - MISSING
        numeric = all(number(table.dialect.plain(text)) is not None for text in texts)
        whole = numeric and all(_WHOLE.fullmatch(text) for text in texts) and bool(texts)
        schema[str(place)] = pl.Int64 if whole else pl.Float64 if numeric else pl.String
    return schema


def _add_lines(table: _Table, block: Block) -> None:
    text, clean = decoded(block.data)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    for place, row, _ in logical(lines):
        line = block.first + place
        if not row.strip():
            continue
        if not clean and not table.told and not row.isascii():
            table.told = True
            table.reject(line, "bytes that are not UTF-8; read as Latin-1, here and after", row)
        _add_row(table, line, row)


def _add_row(table: _Table, line: int, row: str) -> None:
    found = cells(row, table.dialect.separator)
    width = len(table.names)
    if len(found) > width and not any(cell.strip() for cell in found[width:]):
        found = found[:width]  # a separator at the end of the line
    if [cell.strip() for cell in found] == [name.strip() for name in table.dialect.names] or row.startswith("#"):
        return
    if len(found) != width:
        table.reject(line, f"{len(found)} cells where the header has {width}; which is which cannot be told", row)
        return
    record = table.dialect.record(found)
    if record:
        table.records.add(line, _under_names(table, record))


def _under_names(table: _Table, record: dict[str, str]) -> dict[str, str]:
    changed = renamed(table.dialect.names)
    return {changed.get(name, name): text for name, text in record.items()} if changed else record


def _add_unended(table: _Table, line: int, data: bytes) -> None:
    """The last line where it has no line end: its last cell may be cut, and so may the row."""
    row = decoded(data)[0].rstrip("\r")
    if not row.strip("\x00 "):
        return
    found = _whole_cells(row, table.dialect.separator)
    record = table.dialect.record(found)
    record = _under_names(table, record)
    if len(found) >= len(table.names) or table.index not in record:
        record = {}
    rest = len(table.names) - len(found)
    lost = "it" if not record else f"its last {rest} cells" if rest > 1 else "its last cell"
    table.reject(line, f"the last line has no line end and may be cut; {lost} was not read", row)
    if record:
        table.records.add(line, record)


def _whole_cells(row: str, separator: str) -> Sequence[str]:
    found = cells(row, separator)
    return [] if row.count('"') % 2 else found[:-1]
