"""Tables as wide as the terminal: the least telling columns go first, then names are cut, and no line wraps."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence

__all__ = ["fitted", "terminal_width"]

_GAP = 2
#: Names are not cut below this while there are columns to leave out.
_LEAST_NAME = 24


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where it is a file or a pipe, which gets everything."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(
    rows: Sequence[Sequence[str]], header: Sequence[str], *, spare: Sequence[str] = (), width: int | None = None
) -> str:
    """Rows as a table of at most `width` columns (None: as wide as it is), the first column being names.

    Where it is too wide, columns that say nothing (`-`) go first, then those in `spare`, in this order. Then names are
    cut at their beginning, and what is still too wide at its end. A line below says which columns were left out.

    >>> print(fitted([["epoch_3.pt", "torch", "0.5"]], ["save", "format", "loss"], spare=["format"], width=20))
    save        loss
    epoch_3.pt  0.5
    (not shown: format)
    """
    kept = list(range(len(header)))
    cells = [list(header), *(list(row) for row in rows)]
    if width is None:
        return "\n".join(_lines(cells, kept))
    silent = [name for n, name in enumerate(header) if n and all(row[n] in ("-", "") for row in rows)]
    order = [*(name for name in reversed(header) if name in silent), *(name for name in spare if name not in silent)]
    left_out: list[str] = []
    while _taken(cells, kept, most=_LEAST_NAME) > width and order:
        name = order.pop(0)
        kept.remove(header.index(name))
        left_out += [name] if name else []
    room = max(width - _taken(cells, kept, most=0), 1)
    cells = [[_cut_left(row[0], room), *row[1:]] for row in cells]
    lines = [_cut_right(line, width) for line in _lines(cells, kept)]
    told = ", ".join(name for name in header if name in left_out)
    return "\n".join([*lines, *([_cut_right(f"(not shown: {told})", width)] if told else [])])


def _lines(cells: Sequence[Sequence[str]], kept: Sequence[int]) -> list[str]:
    widths = [max(_columns(row[n]) for row in cells) for n in kept]
    gap = " " * _GAP
    return [gap.join(_padded(row[n], w) for n, w in zip(kept, widths, strict=True)).rstrip() for row in cells]


def _taken(cells: Sequence[Sequence[str]], kept: Sequence[int], *, most: int) -> int:
    """Columns of the table where names take `most`."""
    widths = [max(_columns(row[n]) for row in cells) for n in kept]
    return min(widths[0], most) + sum(widths[1:]) + _GAP * (len(kept) - 1)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    """Columns that a text takes in a terminal: letters of East Asia two, marks above letters none.

    Source: Unicode Standard Annex 11, East Asian Width.
    """
    return len(text) if text.isascii() else sum(_columns_of(letter) for letter in text)


def _columns_of(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _cut_left(text: str, width: int) -> str:
    """The end of a name, which tells more than its beginning."""
    return text if _columns(text) <= width else ("..." + _end(text, width - 3) if width > 3 else _end(text, width))


def _end(text: str, width: int) -> str:
    taken = 0
    for place in range(len(text) - 1, -1, -1):
        taken += _columns_of(text[place])
        if taken > width:
            return text[place + 1 :]
    return text


def _cut_right(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    end = "..." if width > 3 else ""
    kept = _end(text[::-1], width - len(end))[::-1]
    return kept + end
