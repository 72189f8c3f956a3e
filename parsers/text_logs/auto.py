"""Lines of names and numbers with a step or an epoch, in a log whose dialect nobody knows.

Three forms are read: `key: value` and `key=value` anywhere in a line, `key value` alone between bars
(`step 10/600 | loss 2.3`), and lines that hold nothing but `key value` (`step 10, loss 2.3, lr 1e-4`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from parsers.finish import Reject
from parsers.tables.columns import ALIASES, SPLIT_WORDS, candidates
from parsers.text_logs.dialect import INTEGER, LEVELS, NUMBER, PROSE, TIME, UNIT, Dialect, Pattern
from parsers.text_logs.lines import LONGEST
from parsers.text_logs.match import Found, Matcher
from parsers.text_logs.numbers import times

__all__ = ["AUTO", "AutoMatcher"]

AUTO = Dialect(
    "automatic",
    "names and numbers (key: value, key=value, | key value |) with a step or an epoch",
    (Pattern("", r"^(?P<pairs>.*)$", "any"), Pattern("", r"^(?P<pairs>.*)$", "plain")),
    fallback=True,
)
_START = r"(?i)(?:^|[\s\[(,|:{'\x22-])"
_AFTER = r"['\x22]?[\s:=#\[(]{1,4}"
_STEP = rf"{_START}(?:(?:global|train|training)[_ ])?(?:steps?|iterations?|iters?|it|updates?){_AFTER}({INTEGER})\b"
_EPOCH = rf"{_START}(?:epochs?|ep){_AFTER}({INTEGER}(?:\.[0-9]+)?)\b"
#: A place in an epoch and how many it has: `Batch [10/938]`, `Epoch: [0][ 10/5005]`, `Epoch: 1 [640/60000 (1%)]`.
_BATCH = rf"{_START}(?:batch[\s:#]{{0,3}}\[?|epochs?:?[ ]*\[?{INTEGER}\]?[\s:]{{0,2}}\[)[ ]*({INTEGER})/({INTEGER})\b"
#: What loggers put before a message: a time, a level, the name of a module.
_BEFORE = rf"(?:\[[^\]]{{1,80}}\][ \t]*|(?:[^\sA-Za-z]+|(?:{LEVELS})[\w:.]*|[\w.]+(?::[0-9]+)?:)[ \t]+)*?"
_SPLIT = rf"(?i)^[ \t]*{_BEFORE}\W{{0,4}}(train|training|val|valid|validation|eval|evaluation|dev|test)\b"
_SPLIT += r"(?:\]|\)|>|:|[ \t]*\||[ \t]+-|[ \t]+(?:epochs?|steps?|iter(?:ation)?s?|at|set)\b)"
_NAME = r"[A-Za-z_][\w./@#-]*(?: [A-Za-z_][\w./@#-]*){0,2}"
_CELL = rf"{_NAME}[ \t]+[\[(]?{NUMBER}(?:/{INTEGER})?[\])]?[ \t]*{UNIT}(?:[ \t]*\([^()|]*\))?"
_CELL += r"(?:[ \t]*[,;|:]|[ \t]+-)?(?:[ \t]+|$)"
#: `Epoch: [0][  10/5005]`, which the training scripts of torchvision's examples begin their lines with.
_EPOCH_BATCH = rf"(?:Epoch:[ ]*\[{INTEGER}\][ ]*\[[ ]*{INTEGER}/{INTEGER}\][ \t]*)?"
_FRACTION = r"[ \t][-+]?(?:[0-9]*\.[0-9]|[0-9]+[eE]-|[nN][aA][nN]\b)"
#: By style, which lines may hold it: for `plain` nothing but names with numbers, no word of prose, and one number that
#: is no count (`step 3 part 2`).
_MAY_HOLD = {
    "any": pl.col("text").str.contains(r"[:=][ \t]*[-+.0-9nNiI]|\|[ \t]*[A-Za-z_][^|:=]*[ \t][-+.0-9nNiI]"),
    "plain": pl.col("text").str.contains(rf"^[ \t]*{_BEFORE}{_EPOCH_BATCH}(?:{_CELL}){{2,}}$")
    & pl.col("text").str.contains(_FRACTION)
    & ~pl.col("text").str.contains(rf"(?i)[ \t](?:{PROSE})[ \t]"),
}
_TIME = rf"^[^0-9]{{0,3}}({TIME})"
#: Names that place a line or say how long it will take, and are no measurement.
_PLACES = ("step", "epoch", "time", "rank")
_COUNTERS = frozenset({*ALIASES["step"], *ALIASES["epoch"]})
#: Words that a line begins with and that are no part of the name after them: `Train Epoch: 3`, `INFO step: 5`.
_LABEL = re.compile(rf"(?i)^(?:(?:{LEVELS}|{'|'.join(filter(None, SPLIT_WORDS))}) )+")
_REMAINING = frozenset({"eta", "elapsed", "remaining", "time left"})


@dataclass(slots=True)
class AutoMatcher(Matcher):
    """Finds lines that say a step or an epoch and hold at least one other name with a number.

    A line that begins with `train`, `val` or the like is of that split, but for names that say another.

    >>> lines = pl.DataFrame({"order": [0], "line": [1], "text": ["Epoch [2/9], Step [100/600], Loss: 0.25"]})
    >>> found, = AutoMatcher(AUTO.patterns[0]).find(lines, "log.txt", [])
    >>> found.index.row(0)[2:4], found.values.row(0, named=True)
    ((100, 2.0), {'Loss': 0.25})
    >>> bars = lines.with_columns(text=pl.lit("val | step 5/9 | loss 0.5 | see page 3 | done in 7s"))
    >>> found, = AutoMatcher(AUTO.patterns[0]).find(bars, "log.txt", [])
    >>> found.index.select("step", "split").row(0), found.values.row(0, named=True)
    ((5, 'eval'), {'loss': 0.5})
    """

    def find(self, lines: pl.DataFrame, file: str, rejects: list[Reject]) -> Iterator[Found]:
        """What is found among `lines`; nothing of them is a reject, because nobody said how they should look."""
        lines = lines.filter(
            pl.col("text").str.len_bytes() <= LONGEST,
            pl.col("text").str.contains_any(["step", "it", "update", "ep"], ascii_case_insensitive=True),
            _MAY_HOLD[self.pattern.style],
        )
        if lines.is_empty():
            return
        text = lines["text"]
        index = self._where(lines.select("order", "line"), text)
        placed = index.select(pl.col("step").is_not_null() | pl.col("epoch").is_not_null()).to_series()
        for found in self._pairs(index.filter(placed), text.filter(placed), [], file, []):
            values = found.values
            if values is not None and (names := _measured(values.columns)):
                yield Found(found.index, values.select(names))
            elif found.long is not None:
                kept = found.long["tag"].is_in(_measured(found.long["tag"].unique().to_list()))
                yield Found(found.index.filter(kept), long=found.long.filter(kept))

    def _where(self, index: pl.DataFrame, text: pl.Series) -> pl.DataFrame:
        """Step, epoch, time and split of each line; a batch of so many in an epoch is counted on over the epochs."""
        batch = text.str.extract_groups(_BATCH).struct.unnest().select(pl.all().cast(pl.Int64, strict=False))
        index = index.with_columns(
            batch.to_series(0).alias("step"),
            text.str.extract(_EPOCH).cast(pl.Float64, strict=False).alias("epoch"),
            times(text.str.extract(_TIME)).alias("time"),
            text.str.extract(_SPLIT).str.to_lowercase().replace(SPLIT_WORDS).alias("split"),
            pl.lit(None, pl.Int32).alias("rank"),
        )
        step = text.str.extract(_STEP).cast(pl.Int64, strict=False)
        index = self._counted(index, batch.to_series(1)) if batch.to_series(1).is_not_null().any() else index
        return index.with_columns(step.zip_with(step.is_not_null(), index["step"]).alias("step"))


def _measured(names: list[str]) -> list[str]:
    places = {name for role in _PLACES for name in candidates(names, role)}
    places |= {name for name in names if _LABEL.sub("", name).lower() in _COUNTERS}
    return [n for n in names if n not in places and n.lower() not in _REMAINING]
