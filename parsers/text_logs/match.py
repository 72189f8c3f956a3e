"""Which lines a pattern matches, and the numbers in them, many lines at once.

Lines are matched by Polars' engine for regular expressions, whose time grows with the length of the text and never
with the pattern's shape. Sequences of names and numbers are learnt: the first line of a kind becomes a template with
a hole for each number, and all lines that fit it are read together; odd lines are read one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from parsers.finish import Reject
from parsers.tables.assemble import INDEX
from parsers.tables.columns import SPLIT_WORDS
from parsers.text_logs.dialect import COMMAS, NUMBER, PAIRS, PLACE, Pattern
from parsers.text_logs.lines import LONGEST
from parsers.text_logs.numbers import counts, numbers, plain_commas, times

__all__ = ["Found", "Matcher"]

#: Templates kept of one pattern.
TEMPLATES = 40
#: Parts of a duration in seconds.
_SECONDS = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
#: What letters alone behind a number mean; with more behind them (`1.5GB`, `12ms`) they are a unit, and stay one.
_FACTORS = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
#: Lines without a template before the rest is read one by one, and lines that templates are first learnt from.
ODD, FEW = 50, 256
#: How a pattern says that all that follows is names and numbers: a template then takes the place of this.
_REST = "(?P<pairs>.*)"
#: Names in one line up to which it becomes a template (a pattern with more holes takes seconds to compile), and names
#: that are read at all: as many as a line that is searched can hold.
WIDE, MANY = 100, 8000
_PLAIN, _COMMAS = re.compile(NUMBER), re.compile(COMMAS)
_DIGITS = re.compile(r"[0-9][0-9.:]*")


@dataclass(slots=True)
class Found:
    """Lines that a pattern matched: `index` (order, line and what `PLACE` says) with `values` wide beside it, or
    `tag` and `value` long; `settings` are names and texts of configuration."""

    index: pl.DataFrame
    values: pl.DataFrame | None = None
    long: pl.DataFrame | None = None
    settings: dict[str, str] = field(default_factory=dict)
    #: The groups of lines that are events.
    events: pl.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class _Template:
    regex: str
    names: tuple[str, ...]
    #: By what each number is multiplied: 1000 for `1.5k`.
    factors: tuple[float, ...]


@dataclass(slots=True)
class Matcher:
    """Finds the lines of one pattern.

    >>> matcher = Matcher(Pattern("loss", "^step (?P<step>[0-9]+): (?P<pairs>.*)$", "equals"))
    >>> lines = pl.DataFrame({"order": [0, 1], "line": [1, 2], "text": ["step 5: loss=2.5, lr=1e-3", "done"]})
    >>> found, = matcher.find(lines, "log.txt", [])
    >>> found.index["step"][0], found.values.row(0, named=True)
    (5, {'loss': 2.5, 'lr': 0.001})
    """

    pattern: Pattern
    names: Mapping[str, str] = field(default_factory=dict)
    #: Lines that began as this pattern and did not go on as it; the reader drops those that another pattern took.
    broken: list[pl.DataFrame] = field(default_factory=list)
    #: How many steps the training is to have, as the last line found says.
    planned_steps: int | None = None
    _templates: list[_Template] = field(default_factory=list)
    _numeric: set[str] = field(default_factory=set)
    _first_epoch: float | None = None

    def find(self, lines: pl.DataFrame, file: str, rejects: list[Reject]) -> Iterator[Found]:
        """What matches among `lines` (order, line, text); lines that match only in part become rejects."""
        pattern = self.pattern
        if pattern.literal:
            lines = lines.filter(pl.col("text").str.contains(pattern.literal, literal=True))
        lines = lines.filter(pl.col("text").str.len_bytes() <= LONGEST)
        if pattern.redrawn:
            lines = _redrawn(lines, pattern.redrawn)
        if _REST in pattern.regex:
            lines = yield from self._known(lines, file, rejects)
        if not lines.is_empty():
            yield from self._by_pattern(lines, file, rejects)

    def _known(self, lines: pl.DataFrame, file: str, rejects: list[Reject]) -> Generator[Found, None, pl.DataFrame]:
        """Lines that fit a known template from their first character on, in one pass; what is left is returned."""
        if not self._templates and lines.height > FEW:  # the first lines are enough to learn the usual templates
            yield from self._by_pattern(lines.head(FEW), file, rejects)
            lines = lines.slice(FEW)
        for template in self._templates:
            if lines.is_empty():
                break
            regex = self.pattern.regex.replace(_REST, template.regex.removeprefix("^").removesuffix("$"))
            groups = lines["text"].str.extract_groups(regex).struct.unnest()
            holes = [c for c in groups.columns if c.isdigit()]
            if len(holes) != len(template.names):  # the pattern has groups without a name: its own way is right
                break
            hit = groups[holes[0]].is_not_null()
            if hit.any():
                mine, found = (lines, groups) if hit.all() else (lines.filter(hit), groups.filter(hit))
                index = self._index(mine, found, file, rejects)
                fixed = [c.alias(f"={c.name}") for c in self._columns(found, index, file, rejects)]
                yield self._filled(index.hstack(fixed), found.select(holes), template, file, rejects)
                lines = lines.filter(~hit)
        return lines

    def _by_pattern(self, lines: pl.DataFrame, file: str, rejects: list[Reject]) -> Iterator[Found]:
        pattern = self.pattern
        groups = lines["text"].str.extract_groups(pattern.regex).struct.unnest()
        hit = groups.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
        if pattern.closing:
            hit &= lines["text"].str.strip_chars_end(" ").str.ends_with(pattern.closing)
        if pattern.opening and not hit.all():
            broken = lines.filter(~hit).filter(pl.col("text").str.contains(pattern.opening))
            self.broken += [broken] if broken.height else []
        if not hit.all():
            lines, groups = lines.filter(hit), groups.filter(hit)
        if lines.is_empty():
            return
        if pattern.setting:
            yield Found(lines.head(0), settings=dict(zip(groups["key"], groups["value"], strict=True)))
            return
        index = self._index(lines, groups, file, rejects)
        if pattern.event:
            yield Found(index, events=groups)
            return
        if "pairs" in groups.columns:
            yield from self._pairs(index, groups["pairs"], self._columns(groups, index, file, rejects), file, rejects)
        elif "key" in groups.columns:
            value = numbers(groups["value"])
            _damaged(index, groups["value"], value, file, rejects)
            long = pl.DataFrame({"tag": groups["key"].str.strip_chars(), "value": value})
            keep = value.is_not_null()
            yield Found(index.filter(keep), long=long.filter(keep))
        else:
            yield Found(index, pl.DataFrame(self._columns(groups, index, file, rejects)))

    def _columns(self, groups: pl.DataFrame, index: pl.DataFrame, file: str, rejects: list[Reject]) -> list[pl.Series]:
        columns: dict[str, pl.Series] = {}
        for group in self.pattern.values:
            column = numbers(groups[group])
            _damaged(index, groups[group], column, file, rejects)
            base, _, unit = group.partition("__")
            name = self.names.get(base, base)
            if unit in _SECONDS:
                part = column * _SECONDS[unit]
                before = columns.get(name, pl.repeat(None, len(part), dtype=pl.Float64, eager=True))
                column = (before.fill_null(0.0) + part.fill_null(0.0)).set(before.is_null() & part.is_null(), None)
            columns[name] = column.alias(name)
        return list(columns.values())

    def _index(self, lines: pl.DataFrame, groups: pl.DataFrame, file: str, rejects: list[Reject]) -> pl.DataFrame:
        columns = [lines["order"], lines["line"]]
        for name in PLACE:
            if name not in groups.columns:
                columns.append(pl.repeat(None, lines.height, dtype=INDEX[name], eager=True).alias(name))
                continue
            column: pl.Series = _READ[name](groups[name])
            if name != "split":
                _damaged(lines, groups[name], column, file, rejects)
            columns.append(column.alias(name))
        frame = pl.DataFrame(columns)
        if "planned_steps" in groups.columns:
            told = groups["planned_steps"].drop_nulls().tail(1).cast(pl.Int64, strict=False).drop_nulls()
            self.planned_steps = told[0] if len(told) else self.planned_steps
        if "total" in groups.columns:
            frame = self._counted(frame, groups["total"])
        return frame.with_columns(split=pl.lit(self.pattern.split)) if self.pattern.split else frame

    def _counted(self, frame: pl.DataFrame, total: pl.Series) -> pl.DataFrame:
        """The step over all epochs, from the batch within its epoch and the batches of one: epochs from 0 or from 1.

        Where the batches of an epoch are not known (`?`), the batch is the step.
        """
        if self._first_epoch is None:
            known = frame["epoch"].drop_nulls().to_list()
            self._first_epoch = known[0] if known else 1.0
        before = pl.col("epoch") - min(self._first_epoch, 1.0)
        return frame.with_columns(
            (before * total.cast(pl.Int64, strict=False).fill_null(0) + pl.col("step")).cast(pl.Int64).alias("step")
        )

    def _pairs(
        self, index: pl.DataFrame, pairs: pl.Series, fixed: list[pl.Series], file: str, rejects: list[Reject]
    ) -> Iterator[Found]:
        rest = index.with_columns(pairs.alias("="), *(c.alias(f"={c.name}") for c in fixed))
        for template in list(self._templates):
            rest = yield from self._by_template(rest, template, file, rejects)
        odd = 0
        while not rest.is_empty():
            learnt = _learn(rest["="][0], self.pattern.style)
            if len(self._templates) >= TEMPLATES or odd >= ODD:
                yield self._one_by_one(rest, file, rejects)
                return
            before = rest.height
            if learnt is not None:
                self._templates.append(learnt)
                self._numeric.update(learnt.names)
                rest = yield from self._by_template(rest, learnt, file, rejects)
            if rest.height == before:  # no template, or one that does not even fit its own line
                self._templates = [t for t in self._templates if t is not learnt]
                yield self._one_by_one(rest.head(1), file, rejects)
                rest, odd = rest.slice(1), odd + 1

    def _by_template(
        self, rest: pl.DataFrame, template: _Template, file: str, rejects: list[Reject]
    ) -> Generator[Found, None, pl.DataFrame]:
        """The lines that fit the template; what is left is returned."""
        if rest.is_empty():
            return rest
        groups = rest["="].str.extract_groups(template.regex).struct.unnest()
        hit = groups.to_series(0).is_not_null()
        if not hit.any():
            return rest
        mine, groups = (rest, groups) if hit.all() else (rest.filter(hit), groups.filter(hit))
        yield self._filled(mine, groups, template, file, rejects)
        return rest.filter(~hit)

    def _filled(
        self, rows: pl.DataFrame, texts: pl.DataFrame, template: _Template, file: str, rejects: list[Reject]
    ) -> Found:
        columns = []
        for name, factor, text in zip(template.names, template.factors, texts.get_columns(), strict=True):
            column = numbers(text)
            _damaged(rows, text, column, file, rejects, name)
            columns.append((column if factor == 1.0 else column * factor).alias(name))
        return self._placed(rows, columns)

    def _one_by_one(self, rows: pl.DataFrame, file: str, rejects: list[Reject]) -> Found:
        """Lines without a template: numbers are kept, and what should be one (as in other lines) and is not is said."""
        places: list[int] = []
        found: list[tuple[str, float]] = []
        roles: dict[str, dict[int, float]] = {}
        for place, (line, text) in enumerate(zip(rows["line"], rows["="], strict=True)):
            for *_, name, value in _found_pairs(text, self.pattern.style):
                hole = _hole(value)
                number = None if hole is None else _number(hole[0])
                if hole is None or number is None:
                    if name in self._numeric:
                        rejects.append(Reject(file, f"{name}: {value[:40]!r} is no number", line=line, text=text))
                    continue
                self._numeric.add(name)
                number *= _factor(value, hole)
                if name in self.pattern.roles:
                    roles.setdefault(self.pattern.roles[name], {})[place] = number
                else:
                    places.append(place)
                    found.append((self.pattern.prefix + name, number))
        index = rows.select("order", "line", *PLACE)
        for role, known in roles.items():
            own = pl.Series([known.get(k) for k in range(rows.height)], dtype=pl.Float64)
            own = own if role == "epoch" else _whole(own)
            index = index.with_columns(own.alias(role).zip_with(own.is_not_null(), index[role]))
        for column in (c for c in rows.get_columns() if c.name.startswith("=") and c.name != "="):
            places += range(rows.height)
            found += [(column.name[1:], value) for value in column]
        long = pl.DataFrame(found, schema={"tag": pl.String, "value": pl.Float64}, orient="row")
        kept = long["value"].is_not_null()
        return Found(index[places].filter(kept), long=long.filter(kept))

    def _placed(self, rows: pl.DataFrame, columns: list[pl.Series]) -> Found:
        """The numbers with the index; those that are a step or an epoch go into the index."""
        index = rows.select("order", "line", *PLACE)
        values = {c.name.removeprefix("="): c for c in rows.get_columns() if c.name.startswith("=") and c.name != "="}
        for column in columns:
            role = self.pattern.roles.get(column.name)
            if role is None:
                values[self.pattern.prefix + column.name] = column
            else:
                own = column.cast(INDEX[role], strict=False) if role == "epoch" else _whole(column)
                index = index.with_columns(own.alias(role).zip_with(own.is_not_null(), index[role]))
        return Found(index, pl.DataFrame([column.alias(name) for name, column in values.items()]))


def _redrawn(lines: pl.DataFrame, regex: str) -> pl.DataFrame:
    """Of drawings of a bar that follow one another with the same count the last; see `Pattern.redrawn`."""
    count, *goal = lines["text"].str.extract_groups(regex).struct.unnest().get_columns()
    lines = lines.with_columns(count.alias("="))
    kept = lines.filter(count == goal[0]) if goal else lines
    again = pl.all_horizontal(pl.col(name) == pl.col(name).shift(-1) for name in ("line", "="))
    return kept.filter(again.not_().fill_null(True)).drop("=")


def _found_pairs(text: str, style: str) -> list[tuple[int, int, str, str]]:
    """Places of the name and of the value, name and value of each pair; of two equal names the first counts."""
    found: list[tuple[int, int, str, str]] = []
    seen: set[str] = set()
    for match in re.finditer(PAIRS[style], text):
        at = match.lastindex or 2  # a style may be two forms, each with its name and its value
        name = match[at - 1].strip()
        if name not in seen and len(found) < MANY:
            seen.add(name)
            found.append((match.start(at - 1) + match[at - 1].index(name), match.start(at), name, match[at]))
    return found


def _learn(text: str, style: str) -> _Template | None:
    """A template of this line, or None where a value in it is no number."""
    parts, names, factors, at = ["^"], [], [], 0
    for start, place, name, value in _found_pairs(text, style):
        hole = _hole(value)
        if hole is None:
            return None
        kind = COMMAS if "," in hole[0] else NUMBER
        parts += [_literal(text[at:start]), _escaped(name), _literal(text[start + len(name) : place]), f"({kind})"]
        names.append(name)
        factors.append(_factor(value, hole))
        at = place + hole.end()
    if not names or len(names) > WIDE:
        return None
    return _Template("".join([*parts, _literal(text[at:]), "$"]), tuple(names), tuple(factors))


def _hole(value: str) -> re.Match[str] | None:
    """The number that a value begins with; None where it is none, or goes on as something else than a unit."""
    hole = (_COMMAS if "," in value else _PLAIN).match(value)
    if hole is None or re.search(r"[0-9]", value[hole.end() :]) or _number(hole[0]) is None:
        return None
    return hole


def _factor(value: str, hole: re.Match[str]) -> float:
    """By what the number of a value is multiplied for the letter behind it: `950` and `1.2k` are of one series."""
    return _FACTORS.get(value[hole.end() :], 1.0)


def _number(text: str) -> float | None:
    """One number, as `numbers` reads a column of them."""
    if "," in text:
        text = plain_commas(text)
    try:
        return float(text)
    except ValueError:
        return None


def _literal(text: str) -> str:
    """The text between numbers: runs of spaces of any length, other digits (dates, places in an epoch) any digits."""
    parts = []
    for piece in re.split(r"( +|[0-9][0-9.:]*)", text):
        if piece.startswith(" "):
            parts.append(" *" if len(piece) == 1 else " +")
        elif _DIGITS.fullmatch(piece):
            parts.append("[0-9][0-9.:]*")
        else:
            parts.append(_escaped(piece))
    return "".join(parts)


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_ \t," else f"\\x{{{ord(c):x}}}" for c in text)


def _damaged(
    index: pl.DataFrame, given: pl.Series, read: pl.Series, file: str, rejects: list[Reject], name: str = ""
) -> None:
    """A reject for each text that should be a number (or a time) and is none."""
    if read.null_count() == given.null_count():  # what is null as text is null as a number
        return
    bad = given.is_not_null() & read.is_null()
    for line, text in zip(index["line"].filter(bad), given.filter(bad), strict=True):
        rejects.append(Reject(file, f"{name or given.name}: {text[:40]!r} cannot be read", line=line, text=text))


def _whole(column: pl.Series) -> pl.Series:
    """Numbers as steps; null where one is no whole number of 64 bits."""
    fits = column.is_finite() & (column == column.floor()) & (column.abs() < 2.0**63)
    return column.set(~fits.fill_null(False), None).cast(pl.Int64, strict=False)


def _split(column: pl.Series) -> pl.Series:
    return column.str.to_lowercase().replace(SPLIT_WORDS)


_READ: dict[str, Callable[[pl.Series], pl.Series]] = {
    "step": lambda c: counts(c),
    "epoch": lambda c: c.cast(pl.Float64, strict=False),
    "time": times,
    "split": _split,
    "rank": lambda c: c.cast(pl.Int32, strict=False),
}
