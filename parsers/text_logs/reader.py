"""One text log while it is read: which dialect it speaks, what its lines hold, and what a header hands on to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.finish import Reject
from parsers.naming.names import resolve, split_tag
from parsers.tables.assemble import INDEX, Pieces
from parsers.text_logs.auto import AUTO, AutoMatcher
from parsers.text_logs.dialect import PLACE, Dialect
from parsers.text_logs.lines import Lines
from parsers.text_logs.match import Found, Matcher
from parsers.text_logs.tail import may_be_cut

__all__ = ["Reader", "matchers_of", "score"]

#: Lines looked at first to tell the dialect; the whole block where they hold no line of one.
SAMPLE = 4_000
#: One in so many lines is a good part of them.
PLENTY = 4
#: Lines with the same name that the automatic mode needs before it believes in a log.
BELIEVE = 3
#: The kind of event that a program writes at each of its starts.
START = "start"


@dataclass(slots=True)
class Reader:
    """What is read of one log, block by block."""

    file: str
    dialects: Sequence[Dialect]
    pieces: Pieces = field(default_factory=Pieces)
    rejects: list[Reject] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    #: order, line, step, epoch, time of lines that are events, their kind and their groups.
    events: list[tuple[dict[str, Any], str, dict[str, Any]]] = field(default_factory=list)
    chosen: Dialect | None = None
    total: int = 0
    used: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[int, str]] = field(default_factory=dict)
    last: tuple[int, str] = (0, "")
    #: Per rank, the `order` of each line that opens another attempt; known when the table was made.
    opened: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    #: How many iterations an epoch has, where steps that began again with every epoch were counted on.
    epoch_length: int | None = None
    _matchers: list[Matcher] = field(default_factory=list)
    _carried: dict[str, Any] = field(default_factory=dict)
    #: The last line that each matcher found: what the end of a file is held against.
    _previous: dict[int, str] = field(default_factory=dict)

    def add(self, lines: Lines) -> None:
        """The numbers of one block."""
        frame = lines.frame
        self.total += frame.height
        if filled := frame.filter(pl.col("text").str.contains(r"\S")).tail(1).rows():
            self.last = (filled[0][1], filled[0][2])
        if self.chosen is None:
            self.chosen = choose(lines, self.dialects)
            if self.chosen is None:
                return
            self._matchers = matchers_of(self.chosen)
            if self.chosen.first_step is not None:
                self._carried["step"] = self.chosen.first_step
        if not lines.ended:
            lines = self._trusted(lines)
        self._take(lines)

    def _trusted(self, lines: Lines) -> Lines:
        """The block without a last line that has no end and may have lost digits of its last number."""
        last = lines.frame.tail(1)
        if last.is_empty():
            return lines
        line, text = last["line"][0], last["text"][0]
        for place, matcher in enumerate(self._matchers):
            if next(matcher.find(last, self.file, []), None) is not None and may_be_cut(
                text, self._previous.get(place, "")
            ):
                reason = "the last line has no line end and its last number may be cut; the line is left out"
                self.rejects.append(Reject(self.file, reason, line=line, text=text))
                matcher.broken.clear()
                return Lines(lines.frame.slice(0, lines.frame.height - 1), lines.text)
            matcher.broken.clear()
        return lines

    def _take(self, lines: Lines) -> None:
        assert self.chosen is not None
        frame = lines.frame
        if frame.is_empty():
            return
        first = int(frame["order"][0])
        free = np.ones(frame.height, bool)
        taken: list[tuple[Matcher, Found]] = []
        for place, matcher in enumerate(self._matchers):
            if matcher.pattern.literal not in lines.text:
                continue
            rest = frame if free.all() else frame.filter(pl.Series(free))
            for found in matcher.find(rest, self.file, self.rejects):
                mine = found.index["order"].to_numpy() - first
                free[mine] = matcher.pattern.shares
                if len(mine):
                    self._previous[place] = frame["text"][int(mine[-1])]
                self.settings |= {k.strip(): v.strip() for k, v in found.settings.items() if v is not None}
                if found.index.height:
                    taken.append((matcher, found))
        self._broken(free, first)
        wide: list[pl.DataFrame] = []
        for found, kind in self._carry(taken):
            self._keep(found, kind, frame, first, wide)
        if wide:  # one table in the order of the lines: a series may have rows in several templates
            table = wide[0] if len(wide) == 1 else pl.concat(wide, how="diagonal").sort("order", maintain_order=True)
            names = [c for c in table.columns if c.startswith("=")]
            self.pieces.add_wide(table.select(list(INDEX)), table.select(pl.col(c).alias(c[1:]) for c in names))

    def _broken(self, free: np.ndarray[Any, np.dtype[np.bool_]], first: int) -> None:
        reason = "begins as a line of numbers and is cut or damaged"
        seen: set[int] = set()
        for matcher in self._matchers:
            for order, line, text in (row for part in matcher.broken for row in part.iter_rows()):
                if free[order - first] and order not in seen:
                    seen.add(order)
                    self.rejects.append(Reject(self.file, reason, line=line, text=text))
            matcher.broken.clear()

    def _carry(self, taken: list[tuple[Matcher, Found]]) -> Iterator[tuple[Found, str]]:
        """What was found, with the step and so on that headers before it said."""
        assert self.chosen is not None
        carry = self.chosen.carry
        if not carry or not taken:
            for matcher, found in taken:
                self._count(matcher, found)
                yield found, matcher.pattern.event
            return
        every = pl.concat([found.index.select("order", *PLACE) for _, found in taken]).sort(
            "order", maintain_order=True
        )
        every = every.unique("order", keep="last", maintain_order=True)
        filled = []
        for name in carry:
            column = every[name].forward_fill()
            if name in self._carried:
                column = column.fill_null(self._carried[name])
            if len(column) and column[-1] is not None:
                self._carried[name] = column[-1]
            filled.append(column.alias(name))
        every = every.select("order").with_columns(filled)
        for matcher, found in taken:
            self._count(matcher, found)
            joined = found.index.drop(carry).join(every, on="order", how="left", maintain_order="left")
            found.index = joined.select("order", "line", *PLACE)
            yield found, matcher.pattern.event

    def _count(self, matcher: Matcher, found: Found) -> None:
        holds = found.long is not None or (found.values is not None and found.values.width > 0)
        if (holds or found.events is not None) and not matcher.pattern.shares:  # what shares is counted once
            lines = found.index.height if found.long is None else found.index["order"].n_unique()
            self.used[matcher.pattern.literal.strip() or "key: value"] += lines

    def _keep(self, found: Found, kind: str, frame: pl.DataFrame, first: int, wide: list[pl.DataFrame]) -> None:
        assert self.chosen is not None
        index = _indexed(found.index)
        if found.events is not None:
            rows = zip(found.index.iter_rows(named=True), found.events.iter_rows(named=True), strict=True)
            self.events += [(place, kind, groups) for place, groups in rows]
        elif found.long is not None:
            self.pieces.add_long(index.hstack(self._scaled_long(found.long)))
        elif found.values is not None and found.values.width:
            scale = self.chosen.scale
            columns = [c * scale[c.name] if c.name in scale else c for c in found.values.get_columns()]
            wide.append(index.hstack([c.alias(f"={c.name}") for c in columns]))
        else:
            return
        key = self.chosen.name
        if key not in self.examples:
            at = int(found.index["order"][0]) - first
            self.examples[key] = (int(frame["line"][at]), str(frame["text"][at])[:200])

    def _scaled_long(self, long: pl.DataFrame) -> list[pl.Series]:
        assert self.chosen is not None
        factor = pl.col("tag").replace_strict(dict(self.chosen.scale), default=1.0, return_dtype=pl.Float64)
        scaled = long.with_columns(pl.col("value") * factor) if self.chosen.scale else long
        return [scaled["tag"], scaled["value"]]

    @property
    def planned_steps(self) -> int | None:
        """How many steps the lines say that the training is to have (`step 7/100`); None where they do not."""
        told = [m.planned_steps for m in self._matchers if m.planned_steps]
        return told[0] if told else None

    def table(self, run: str) -> pl.DataFrame:
        """All numbers in the columns of `SCALARS`, names brought to the field's words, attempts numbered."""
        self.pieces.named = partial(_canonical, self.chosen or AUTO)
        dialect = self.chosen or AUTO
        if dialect.per_epoch or dialect is AUTO:
            self.epoch_length = self.pieces.count_over_epochs(sure=dialect.per_epoch)
        starts = [place["order"] for place, kind, _ in self.events if kind == START]
        self.opened = self.pieces.find_attempts(starts)
        return self.pieces.table(run)


def _indexed(index: pl.DataFrame) -> pl.DataFrame:
    """The place of lines in the columns that `Pieces` wants."""
    default: dict[str, Any] = {"rank": 0, "split": ""}
    columns = [pl.lit(0, dtype).alias(name) if name == "attempt" else pl.col(name).cast(dtype)
               for name, dtype in INDEX.items()]  # fmt: skip
    return index.select(columns).with_columns(pl.col(name).fill_null(value) for name, value in default.items())


def _canonical(dialect: Dialect, tag: str, split: str) -> tuple[str, str]:
    """Split and metric of a tag: what the dialect says it is, else its name with blanks and brackets replaced."""
    if tag in dialect.metrics:
        return resolve(dialect.metrics[tag], split)
    if dialect is AUTO and (named := split_tag(tag)[0]):  # a line of the training may tell of the evaluation too
        split = named
    own, metric = resolve(tag, split)
    metric = metric.removeprefix(dialect.prefix)
    return own, re.sub(r"[()\[\]]", "", metric).strip().replace(" ", "_") or metric


def matchers_of(dialect: Dialect) -> list[Matcher]:
    """What finds the lines of a dialect."""
    kind = AutoMatcher if dialect is AUTO else Matcher
    return [kind(pattern, dialect.names) for pattern in dialect.patterns]


def choose(lines: Lines, dialects: Iterable[Dialect]) -> Dialect | None:
    """The dialect of most lines; one of the table before progress bars and the automatic mode.

    The first lines decide where they speak one of the table, or another in a good part of them; else all lines do.
    """
    height, dialects = lines.frame.height, tuple(dialects)
    for sample in dict.fromkeys((min(SAMPLE, height), height)):
        some = lines.frame.head(sample)
        text = lines.text if sample == height else "\n".join(some["text"])
        fitting = [d for d in dialects if any(p.literal in text for p in d.patterns)]
        count, best = _best(some, [d for d in fitting if not d.fallback])
        if best is not None:
            return best
        count, best = _best(some, [*(d for d in fitting if d.fallback), AUTO])
        if best is not None and (sample == height or count * PLENTY >= sample):
            return best
    return None


def _best(lines: pl.DataFrame, dialects: Iterable[Dialect]) -> tuple[int, Dialect | None]:
    """The dialect with most lines, the first of equals; None where none has any."""
    count, found = 0, None
    for dialect in dialects:
        if (mine := score(lines, dialect)) > count:
            count, found = mine, dialect
    return count, found


def score(lines: pl.DataFrame, dialect: Dialect) -> int:
    """How many of the lines hold a number in this dialect; 0 where the automatic mode sees too few to believe."""
    count, names = 0, Counter[str]()
    for matcher in matchers_of(dialect):
        matcher.pattern = replace(matcher.pattern, redrawn="")  # every drawing of a bar speaks for its dialect
        for found in matcher.find(lines, "", []):
            if found.values is not None and found.values.width:
                count += found.index.height
                names.update({c.name: len(c) - c.null_count() for c in found.values.get_columns()})
            elif found.long is not None or found.events is not None:
                count += found.index.height
                names.update([] if found.long is None else found.long["tag"].to_list())
    if dialect is AUTO and max(names.values(), default=0) < BELIEVE:
        return 0
    return count
