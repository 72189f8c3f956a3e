"""Lines of `key: value` and `key=value` with a step or an epoch, in a log whose dialect nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from parsers.finish import Reject
from parsers.tables.columns import candidates
from parsers.text_logs.dialect import INTEGER, TIME, Dialect, Pattern
from parsers.text_logs.lines import LONGEST
from parsers.text_logs.match import Found, Matcher
from parsers.text_logs.numbers import times

__all__ = ["AUTO", "AutoMatcher"]

AUTO = Dialect(
    "automatic",
    "key: value and key=value sequences with a step or an epoch",
    (Pattern("", r"^(?P<pairs>.*)$", "any"),),
    fallback=True,
)
_START = r"(?i)(?:^|[\s\[(,|:{'\x22-])"
_AFTER = r"['\x22]?[\s:=#\[(]{1,4}"
_STEP = rf"{_START}(?:(?:global|train|training)[_ ])?(?:steps?|iterations?|iters?|it|updates?){_AFTER}({INTEGER})\b"
_EPOCH = rf"{_START}(?:epochs?|ep){_AFTER}({INTEGER}(?:\.[0-9]+)?)\b"
_TIME = rf"^[^0-9]{{0,3}}({TIME})"
#: Names that place a line or say how long it will take, and are no measurement.
_PLACES = ("step", "epoch", "time", "rank")
_REMAINING = frozenset({"eta", "elapsed", "remaining", "time left"})


@dataclass(slots=True)
class AutoMatcher(Matcher):
    """Finds lines that say a step or an epoch and hold at least one other name with a number.

    >>> lines = pl.DataFrame({"order": [0], "line": [1], "text": ["Epoch [2/9], Step [100/600], Loss: 0.25"]})
    >>> found, = AutoMatcher(AUTO.patterns[0]).find(lines, "log.txt", [])
    >>> found.index.row(0)[2:4], found.values.row(0, named=True)
    ((100, 2.0), {'Loss': 0.25})
    """

    def find(self, lines: pl.DataFrame, file: str, rejects: list[Reject]) -> Iterator[Found]:
        """What is found among `lines`; nothing of them is a reject, because nobody said how they should look."""
        lines = lines.filter(
            pl.col("text").str.len_bytes() <= LONGEST,
            pl.col("text").str.contains_any(["step", "iter", "it", "update", "ep"], ascii_case_insensitive=True),
            pl.col("text").str.contains(r"[:=][ \t]*[-+.0-9nNiI]"),
        )
        text = lines["text"]
        index = lines.select("order", "line").with_columns(
            text.str.extract(_STEP).cast(pl.Int64, strict=False).alias("step"),
            text.str.extract(_EPOCH).cast(pl.Float64, strict=False).alias("epoch"),
            times(text.str.extract(_TIME)).alias("time"),
            pl.lit(None, pl.String).alias("split"),
            pl.lit(None, pl.Int32).alias("rank"),
        )
        placed = index.select(pl.col("step").is_not_null() | pl.col("epoch").is_not_null()).to_series()
        for found in self._pairs(index.filter(placed), text.filter(placed), [], file, []):
            values = found.values
            if values is not None and (names := _measured(values.columns)):
                yield Found(found.index, values.select(names))
            elif found.long is not None:
                kept = found.long["tag"].is_in(_measured(found.long["tag"].unique().to_list()))
                yield Found(found.index.filter(kept), long=found.long.filter(kept))


def _measured(names: list[str]) -> list[str]:
    places = {name for role in _PLACES for name in candidates(names, role)}
    return [n for n in names if n not in places and n.lower() not in _REMAINING]
