"""What the footer of a Parquet file says about its row groups, so that the columns need not be read for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from parsers.places.place import for_library

__all__ = ["RowGroup", "first_line", "read_footer", "row_groups"]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, bounded; its type where it has none.

    >>> first_line(ValueError("bad\\nworse")), first_line(ValueError())
    ('bad', 'ValueError')
    """
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def read_footer(path: Path) -> Any:
    """The footer as pyarrow has it; `InputError` where there is none, as after a write that was cut."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(for_library(path))
        footer.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: no whole Parquet file ({first_line(error)})") from error
    return footer


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A stretch of rows: `same` holds columns with one value in all rows, `whole` those without nulls, `empty` null."""

    offset: int
    length: int
    same: dict[str, Any]
    whole: frozenset[str]
    empty: frozenset[str]


def row_groups(footer: Any) -> Iterator[RowGroup]:
    """The row groups in order, with what the statistics say of their columns.

    A column that the statistics say nothing of is neither the same, nor whole, nor empty.
    """
    names = footer.schema.to_arrow_schema().names
    # nested columns have several entries each: their places are not those of the names, so nothing is known then
    places = dict(enumerate(names)) if footer.num_columns == len(names) else {}
    offset = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        known = {name: group.column(place).statistics for place, name in places.items()}
        counted = {name: s for name, s in known.items() if s is not None and s.has_null_count}
        whole = frozenset(name for name, s in counted.items() if s.null_count == 0)
        empty = frozenset(name for name, s in counted.items() if s.null_count == group.num_rows)
        same = {n: known[n].min for n in whole if known[n].has_min_max and known[n].min == known[n].max}
        yield RowGroup(offset, group.num_rows, same, whole, empty)
        offset += group.num_rows
