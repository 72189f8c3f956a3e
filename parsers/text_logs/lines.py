"""The lines of a text log as a table: terminal codes taken off, progress bars cut at their carriage returns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from parsers.content.lines import Block, blocks
from parsers.finish import Reject

__all__ = ["LONGEST", "Lines", "line_frame", "text_lines"]

#: A longer line is no line of metrics but a dump: it is not searched.
LONGEST = 20_000
#: Colours and cursor moves (ECMA-48 control sequences) and operating system commands such as a window's title.
_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines in the order read: `frame` has order (of all pieces read), line (number in its file) and text."""

    frame: pl.DataFrame
    #: The decoded text, for quick questions about what stands in it.
    text: str
    #: False where the last line has no line end.
    ended: bool = True


def text_lines(path: Path, first: int = 0) -> Iterator[Lines | Reject]:
    """The file in blocks of lines; `order` counts from `first`. Raises `InputError` when it cannot be opened."""
    order = first
    for block in blocks(path):
        if isinstance(block, Reject):
            yield block
            continue
        found = line_frame(block, order)
        order += found.frame.height
        yield found


def line_frame(block: Block, first: int = 0) -> Lines:
    r"""One block as lines.

    A carriage return begins a new piece of the same line (a progress bar drawn over itself), and so does a run of
    backspaces; bytes that are not UTF-8 are replaced, NUL bytes and terminal codes are left out.

    >>> line_frame(Block(b"\x1b[1mstep 1\x1b[0m\r\n 0%|\r50%|\n", 7)).frame.rows()
    [(0, 7, 'step 1'), (1, 8, ' 0%|'), (2, 8, '50%|')]
    """
    text = block.data.decode("utf-8", "replace")
    if "\x00" in text:
        text = text.replace("\x00", "")
    if "\x1b" in text:
        text = _CODES.sub("", text)
    if "\b" in text:
        text = re.sub("\b+", "\r", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    rows = text.split("\n")
    if not rows[-1]:
        rows.pop()
    frame = pl.DataFrame({"text": rows}, schema={"text": pl.String}).with_row_index("line", offset=block.first)
    if "\r" in text:
        frame = frame.with_columns(pl.col("text").str.strip_chars("\r").str.split("\r")).explode("text")
    frame = frame.with_row_index("order", offset=first).with_columns(pl.col("order", "line").cast(pl.Int64))
    return Lines(frame.select("order", "line", "text"), text, block.ended)
