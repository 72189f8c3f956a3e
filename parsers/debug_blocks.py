"""Loss and curriculum debug blocks out of a text log: [TRAIN DEBUG], [CURRICULUM], [KD LOSS], [ROUTING LOSSES].

Training scripts print such blocks between anything else: progress bars, warnings, logger prefixes. A block is a header
(`[KD LOSS] Step 2000`) between two rules of `=`, lines `label: number`, and a closing rule. What the blocks say becomes
the tags of the event stream (`losses/kd/raw`, `curriculum/weight/kd`, ...), besides `losses/scaled_total` (the total
after division for gradient accumulation) and `losses/sum` (the sum that the log itself printed). One event per block
keeps its numbers together with `decimals`, the printed precision of each, which loss accounting needs.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

import polars as pl

from eventstream.errors import InputError
from eventstream.records import strict_number
from parsers.finish import Reject, finish
from parsers.run import Run
from parsers.schema import EVENTS

__all__ = ["read", "sniff"]

_NAMES = r"TRAIN DEBUG|CURRICULUM|KD LOSS|ROUTING LOSSES"
_SNIFF = re.compile(rf"\[(?:{_NAMES})\]\s*Step\b".encode())
_HEADER = re.compile(rf"\[({_NAMES})\]\s*Step\b\s*[:=]?\s*(\S*?),?(?:\s+(.*))?$")
_RULE = re.compile(r"={8,}\s*$")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_LABELLED = re.compile(
    r"(Progress bar loss|Sum of components|Total loss|Scaled for grad accum|Raw KD loss|Curriculum weight"
    rf"|Weighted KD loss)\b[^:]*:\s*({_NUMBER})\s*$",
    re.IGNORECASE,
)
_SECTION = re.compile(r"([ \t]*)(Raw loss components|Curriculum weights)\s*:\s*$", re.IGNORECASE)
_ENTRY = re.compile(r"([ \t]*)([^\s:|]+)\s*:(?:\s+(\S.*?))?\s*$")
_ROUTING = re.compile(rf"\b(Raw|Weight|Scaled)\s*:\s*({_NUMBER})\s*$", re.IGNORECASE)
_PHASE = re.compile(r"\bPhase\s*:\s*(\S.*?)\s*$", re.IGNORECASE)
_PROGRESS = re.compile(r"Progress:?\s*([\d.]+)\s*(%?)")
_BATCH = re.compile(r"Batch:?\s*(\d+)")
_RANK = re.compile(r"\[?(?:rank|default)[ :=]?(\d+)\]?", re.IGNORECASE)
_NUMBER_ONLY = re.compile(_NUMBER, re.IGNORECASE)

#: Printed label -> what it is: (component or empty for the whole, field).
_FIELDS = {
    "progress bar loss": ("", "displayed"),
    "sum of components": ("", "sum"),
    "total loss": ("", "total"),
    "scaled for grad accum": ("", "scaled_total"),
    "raw kd loss": ("kd", "raw"),
    "curriculum weight": ("kd", "weight"),
    "weighted kd loss": ("kd", "weighted"),
}
_ROUTING_FIELDS = {"raw": "raw", "weight": "weight", "scaled": "weighted"}
#: Without which a block is not whole; the other kinds are lists without such a mark, only with a closing rule.
_NEEDED = {"TRAIN DEBUG": ("", "total"), "KD LOSS": ("kd", "weighted")}
#: A block that is interrupted by more foreign lines than this was left behind.
_PATIENCE = 200
#: Bytes searched for a first header: blocks may start after a long preamble of downloads and progress bars.
_SEARCHED = 4 << 20
#: Longer pieces than this (a progress bar without line ends) are looked at only in their last part.
_LONGEST = 2000

_Key = tuple[str, str]


@dataclass(slots=True)
class _Block:
    """A block while it is read: `numbers` maps (component, field) to the value and its printed decimals."""

    name: str
    step: int
    rank: int
    line: int
    numbers: dict[_Key, tuple[float, int | None]] = field(default_factory=dict)
    notes: dict[str, str | int] = field(default_factory=dict)
    attempt: int = 0
    opened: bool = False
    filled: bool = False  # a number came after the header's own
    indent: int | None = None
    entry: str = ""
    foreign: int = 0

    def whole(self, *, by_rule: bool) -> bool:
        """Whether nothing is missing: the numbers that its kind needs, and the closing rule of an open-ended list."""
        if not self.filled or (self.opened and not by_rule and self.name not in _NEEDED):
            return False
        return self.name not in _NEEDED or _NEEDED[self.name] in self.numbers


def sniff(path: Path, head: bytes) -> bool:
    """Whether one of the four headers stands in the first 4 MiB (`head` is looked at first)."""
    if _SNIFF.search(head.replace(b"\0", b"")):
        return True
    if len(head) < 1 << 16 or b"\0\0" in head or not path.match("*.[lto][oux]*"):
        return False  # shorter than the head, so all of it was seen, or no text log
    with path.open("rb") as file:
        return _SNIFF.search(file.read(_SEARCHED)) is not None


def read(path: Path) -> Run:
    """The run whose debug blocks are printed in the text file at `path`.

    Values under "Raw loss components" are what entered the sum, so they are `contribution`. Names are brought to one
    form: `_loss` is taken off, components of the routing block carry `routing_`. A step that goes back begins a new
    attempt. A block that is cut (no closing rule and numbers missing) keeps the numbers that are whole and becomes a
    reject with its line; so does a header without a step and an entry whose value is no number. A last line without
    an end is never trusted. Raises `InputError` when no header is there.
    """
    blocks: list[_Block] = []
    rejects: list[Reject] = []
    for item in _scan(path):
        if isinstance(item, _Block):
            blocks.append(item)
        else:
            rejects.append(item)
    if not blocks and not rejects:
        raise InputError(f"{path}: no [TRAIN DEBUG], [CURRICULUM], [KD LOSS] or [ROUTING LOSSES] block in this file")
    _count_attempts(blocks)
    _unify_names(blocks)
    scalars = [row for block in blocks for row in _scalar_rows(block)]
    columns: dict[str, pl.DataType | type[pl.DataType]] = {
        "rank": pl.Int32,
        "attempt": pl.Int32,
        "step": pl.Int64,
        "tag": pl.String,
        "value": pl.Float64,
    }
    events = [(b.rank, b.attempt, b.step, _kind(b), _payload(b)) for b in blocks]
    kept = {name: EVENTS[name] for name in ("rank", "attempt", "step", "kind", "payload")}
    return finish(
        path.stem,
        str(path),
        "debug-blocks",
        pl.DataFrame(scalars, schema=columns, orient="row"),
        events=pl.DataFrame(events, schema=kept, orient="row"),
        rejects=rejects,
    )


def _lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Number, text and whether it ended, of each piece; carriage returns of progress bars separate pieces too."""
    with path.open("rb") as file:
        start = file.read(2)
    wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what PowerShell's `>` writes
    with path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="\n") as text:
        for number, line in enumerate(text, start=1):
            ended = line.endswith("\n")
            for piece in line.rstrip("\r\n").split("\r"):
                yield number, piece[-_LONGEST:].replace("\0", ""), ended


def _scan(path: Path) -> Iterator[_Block | Reject]:
    file = str(path)
    open_blocks: dict[int, _Block] = {}
    for number, text, ended in _lines(path):
        if not open_blocks and "[" not in text:
            continue
        mark = _RANK.search(text)
        rank = int(mark[1]) if mark else 0
        header = _HEADER.search(text) if "]" in text else None
        if header:
            yield from _closed(open_blocks.pop(rank, None), file, number)
            step = header[2].replace(",", "").replace("_", "")
            if not step.isdecimal() or not ended or int(step) >= 1 << 63:
                yield Reject(file, f"[{header[1]}] block without a readable step", number, text=text)
                continue
            open_blocks[rank] = _begin(header, int(step), rank, number)
            continue
        block = open_blocks.get(rank)
        if block is None:
            continue
        if not ended and text.strip():
            yield from _closed(open_blocks.pop(rank), file, number)
        elif _RULE.search(text) and not (block.opened or block.filled):
            block.opened = True
        elif _RULE.search(text):
            yield from _closed(open_blocks.pop(rank), file, number, by_rule=True)
        elif text.strip().startswith("```") or block.foreign > _PATIENCE:
            yield from _closed(open_blocks.pop(rank), file, number)
        else:
            yield from _take(block, text, file, number)
    for block in open_blocks.values():
        yield from _closed(block, file, block.line)


def _begin(header: re.Match[str], step: int, rank: int, number: int) -> _Block:
    block = _Block(header[1], step, rank, number)
    rest = header[3] or ""
    if progress := _PROGRESS.search(rest):
        value, decimals = _parsed(progress[1])
        percent = bool(progress[2])
        exact = float(Decimal(progress[1]) / 100) if percent and math.isfinite(value) else value
        block.numbers["", "progress"] = exact, None if decimals is None else decimals + 2 * percent
    if batch := _BATCH.search(rest):
        block.notes["batch"] = int(batch[1])
    return block


def _take(block: _Block, text: str, file: str, number: int) -> Iterator[Reject]:
    """Put what a line inside a block says into the block; a line of somebody else leaves it as it was."""
    block.foreign += 1
    if labelled := _LABELLED.search(text):
        key = _FIELDS[labelled[1].lower()]
        if (block.name == "KD LOSS") == bool(key[0]) and block.name in _NEEDED:
            _store(block, key, labelled[2])
            block.indent = None
    elif block.name == "ROUTING LOSSES":
        yield from _take_routing(block, text, file, number)
    elif block.name in ("TRAIN DEBUG", "CURRICULUM"):
        yield from _take_listed(block, text, file, number)


def _take_listed(block: _Block, text: str, file: str, number: int) -> Iterator[Reject]:
    """An entry under "Raw loss components" or "Curriculum weights": indented deeper than that label."""
    if section := _SECTION.search(text):
        block.indent = len(section[1])
        return
    if block.name == "CURRICULUM" and (phase := _PHASE.search(text)):
        block.notes["phase"] = phase[1]
        return
    entry = _ENTRY.search(text)
    if entry is None or block.indent is None or entry[3] is None or len(entry[1]) <= (block.indent or -1):
        return
    if _NUMBER_ONLY.fullmatch(entry[3]):
        _store(block, (entry[2], "contribution" if block.name == "TRAIN DEBUG" else "weight"), entry[3])
    else:
        yield Reject(file, f"[{block.name}] {entry[2]}: not a number: {entry[3][:40]!r}", number, text=text)


def _take_routing(block: _Block, text: str, file: str, number: int) -> Iterator[Reject]:
    if value := _ROUTING.search(text):
        if block.entry:
            _store(block, (block.entry, _ROUTING_FIELDS[value[1].lower()]), value[2])
        return
    entry = _ENTRY.search(text)
    if entry is None:
        return
    if entry[3] is None:
        block.entry = entry[2]
    elif entry[2].lower() in _ROUTING_FIELDS:
        yield Reject(file, f"[{block.name}] {entry[2]}: not a number: {entry[3][:40]!r}", number, text=text)


def _store(block: _Block, key: _Key, printed: str) -> None:
    block.numbers[key] = _parsed(printed)
    block.foreign, block.filled = 0, True


def _parsed(printed: str) -> tuple[float, int | None]:
    """Value and printed decimals (`1.27e-3` has 5); no decimals for what is not finite.

    >>> _parsed("14.8400"), _parsed("1.27e-3")
    ((14.84, 4), (0.00127, 5))
    """
    try:
        exponent = Decimal(printed).as_tuple().exponent
    except InvalidOperation:
        return math.nan, None
    return float(printed), -exponent if isinstance(exponent, int) else None


def _closed(block: _Block | None, file: str, number: int, *, by_rule: bool = False) -> Iterator[_Block | Reject]:
    if block is None:
        return
    if by_rule and not block.filled:
        yield Reject(file, f"[{block.name}] block of step {block.step} holds no number", block.line)
    elif not block.whole(by_rule=by_rule):
        begun = f"[{block.name}] block of step {block.step} (begun in line {block.line})"
        yield Reject(file, f"{begun} is cut here", number)
    if block.numbers:
        yield block


def _count_attempts(blocks: list[_Block]) -> None:
    """A block whose step lies before the last block of its own kind begins a new attempt of its rank."""
    attempt: dict[int, int] = {}
    last: dict[tuple[int, str], int] = {}
    for block in blocks:
        if block.step < last.get((block.rank, block.name), block.step):
            attempt[block.rank] = attempt.get(block.rank, 0) + 1
            last = {key: step for key, step in last.items() if key[0] != block.rank}
        last[block.rank, block.name] = block.step
        block.attempt = attempt.get(block.rank, 0)


def _unify_names(blocks: list[_Block]) -> None:
    """One name per component across the blocks: `kd_loss` is `kd`, the routing block's names carry `routing_`."""
    routing = {c for b in blocks if b.name == "ROUTING LOSSES" for c, _ in b.numbers}
    weighted = {_short(c) for b in blocks if b.name in ("CURRICULUM", "KD LOSS") for c, _ in b.numbers}
    alone = {_short(c) for c in routing} - weighted
    for block in blocks:
        own = block.name == "ROUTING LOSSES"
        renamed: dict[_Key, tuple[float, int | None]] = {}
        for (component, what), number in block.numbers.items():
            name = _short(component)
            if (own or name in alone) and not name.startswith("routing_"):
                name = f"routing_{name}"
            if (name, what) in renamed:
                name = component  # `kd` and `kd_loss` in one block are two things
            renamed[name, what] = number
        block.numbers = renamed


def _short(name: str) -> str:
    return name.removesuffix("_loss") or name


def _kind(block: _Block) -> str:
    return "curriculum" if block.name == "CURRICULUM" else "losses"


def _path(block: _Block, key: _Key) -> str:
    component, what = key
    if not component:
        return what
    return f"weight/{component}" if block.name == "CURRICULUM" else f"{component}/{what}"


def _scalar_rows(block: _Block) -> Iterator[tuple[int, int, int, str, float]]:
    for key, (value, _) in block.numbers.items():
        yield block.rank, block.attempt, block.step, f"{_kind(block)}/{_path(block, key)}", value


def _payload(block: _Block) -> str:
    parts: dict[str, dict[str, float | str]] = {}
    whole: dict[str, object] = {"block": block.name, "line": block.line, **block.notes}
    weights: dict[str, float | str] = {}
    for (component, what), (value, _) in block.numbers.items():
        if not component:
            whole[what] = strict_number(value)
        elif block.name == "CURRICULUM":
            weights[component] = strict_number(value)
        else:
            parts.setdefault(component, {})[what] = strict_number(value)
    if block.name == "CURRICULUM":
        whole["weights"] = weights
    elif parts:
        whole["components"] = parts
    whole["decimals"] = {_path(block, key): d for key, (_, d) in block.numbers.items() if d is not None}
    return json.dumps(whole, allow_nan=False)
