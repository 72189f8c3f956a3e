"""Tables in a terminal never wrap; in a file or a pipe they have everything."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import unicodedata
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertrain.fitted import fitted

HEADER = ["save", "step", "format", "loss", ""]
ROWS = [["checkpoints/step_000100.pt", "100", "torch", "-", "best"], ["last.pt", "200", "torch", "-", ""]]
_CELLS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)


def _columns(line: str) -> int:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)
    return len(line) + wide - sum(unicodedata.combining(letter) > 0 for letter in line)


@given(st.integers(1, 120), st.lists(st.tuples(*[_CELLS] * 5), min_size=1, max_size=4))
def test_no_line_is_wider_than_the_terminal(width: int, rows: list[tuple[str, ...]]) -> None:
    told = fitted(rows, HEADER, spare=["format", "loss"], width=width)
    assert max(map(_columns, told.split("\n"))) <= width


def test_what_says_nothing_goes_first_then_the_least_telling_then_the_begin_of_names() -> None:
    assert fitted(ROWS, HEADER, spare=["format"]) == fitted(ROWS, HEADER, spare=["format"], width=57)
    assert fitted(ROWS, HEADER, spare=["format"], width=48).split("\n") == [
        "save                        step  format",
        "checkpoints/step_000100.pt  100   torch   best",
        "last.pt                     200   torch",
        "(not shown: loss)",
    ]
    assert fitted(ROWS, HEADER, spare=["format"], width=36).split("\n") == [
        "save                      step",
        "...points/step_000100.pt  100   best",
        "last.pt                   200",
        "(not shown: format, loss)",
    ]


def test_names_of_east_asia_are_as_wide_as_they_are_shown() -> None:
    told = fitted([["模型.pt", "1"], ["a.pt", "2"]], ["save", "step"]).split("\n")
    assert told == ["save     step", "模型.pt  1", "a.pt     2"]


@pytest.mark.parametrize(("columns", "against"), [(60, True), (80, False), (200, False)])
def test_the_command_fits_its_tables_to_a_real_terminal_and_writes_all_to_a_pipe(
    samples: Path, columns: int, against: bool
) -> None:
    saves = samples / "classifier-frozen-layer" / "checkpoints"
    first, last = (str(saves / f"step_{step:06}.pt") for step in (250, 500))
    arguments = ["checkpoints", last, *(["--against", first] if against else []), "--fail-on", "never"]
    command = [sys.executable, "-c", "from aftertrain.cli import entry; entry()", *arguments]
    piped = _piped(tuple(command))
    shown = _in_terminal(command, columns)
    assert max(map(len, shown.split("\n\n")[1].split("\n"))) <= columns
    assert (shown == piped) is (columns == 200)


@cache
def _piped(command: tuple[str, ...]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _in_terminal(command: list[str], columns: int) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    except OSError:  # Linux's end of a terminal whose program has left
        pass
    os.close(ours)
    assert process.wait() == 0
    return b"".join(parts).decode().replace("\r\n", "\n")
