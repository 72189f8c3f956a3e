"""Counts of the data consumed, and whether they go back at a resume while the step goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from parsers.run import Run, live_branch

__all__ = ["Rewind", "rewinds"]

#: Names under which training code logs how much data it has consumed since its beginning.
_POSITION = re.compile(
    r"(.*[/._ -])?("
    r"consumed[/._ -](train[/._ -]|training[/._ -])?(samples|tokens|sequences|batches|examples)"
    r"|(samples|tokens|sequences|batches|examples|images|frames)[/._ -](seen|consumed|processed)"
    r"|(total|trained|seen|num_input)[/._ -](samples|tokens|sequences|examples|images|frames)([/._ -]seen)?"
    r"|(data(set|loader)?|sampler)[/._ -]?(position|index|offset|cursor)"
    r"|data[/._-](files|samples|tokens|examples)"
    r")",
    re.IGNORECASE,
)
#: Fewest rows on either side that show a count to be one since the beginning.
_ROWS = 3
#: By how much of its way a count must go back: rounding and averaging over ranks move it by less.
_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Rewind:
    """A count that fell at a resume: its last value on the live branch before, its first after."""

    metric: str
    attempt: int
    step: int
    before: float
    after: float

    def __str__(self) -> str:
        """The fall in words."""
        return f"{self.metric} goes back from {self.before:,.6g} to {self.after:,.6g}"


def rewinds(run: Run, loss: pl.DataFrame) -> list[Rewind]:
    """Every count, and the epoch of the `loss` rows, that goes back at a resume of the lowest rank.

    A count grows or stays within each attempt, from three rows on either side. What falls is held against the step:
    a count that begins again together with the step is a run begun anew, and no rewind.

    >>> from parsers.finish import finish
    >>> count = [10 * (i % 5) for i in range(10)]
    >>> columns = {"tag": ["tokens_seen"] * 10, "step": list(range(10)), "attempt": [0] * 5 + [1] * 5, "value": count}
    >>> [str(r) for r in rewinds(finish("r", "r", "jsonl", pl.DataFrame(columns, strict=False)), pl.DataFrame())]
    ['tokens_seen goes back from 40 to 0']
    """
    found = list(_rewinds("epoch", loss.with_columns(value="epoch"))) if "epoch" in loss.columns else []
    counts = run.catalogue.filter(pl.col("split").is_in(["", "train"]))
    for rank, tag, metric in (
        counts.select("rank", "tag", "metric").sort("rank").unique("tag", keep="first").iter_rows()
    ):
        if _POSITION.fullmatch(metric):
            rows = run.lazy().filter((pl.col("rank") == rank) & (pl.col("tag") == tag)).collect()
            found += _rewinds(metric, rows)
    return sorted(found, key=lambda rewind: (rewind.attempt, rewind.metric))


def _rewinds(metric: str, rows: pl.DataFrame) -> Iterator[Rewind]:
    rows = rows.select("rank", "attempt", "step", "value").drop_nulls()
    for attempt in sorted(rows["attempt"].unique().to_list())[1:]:
        mine = rows.filter(pl.col("attempt") == attempt)
        first = int(mine["step"].to_numpy().min())
        past = live_branch(rows.filter(pl.col("attempt") < attempt)).filter(pl.col("step") < first)
        if past.height < _ROWS or not (_counts(past) and _counts(mine)) or mine.height < _ROWS:
            continue
        way = float(past["value"].to_numpy()[-1] - past["value"].to_numpy()[0])
        before, after = float(past["value"].to_numpy()[-1]), float(mine["value"].to_numpy()[0])
        if after < before - _SHARE * way:
            yield Rewind(metric, int(attempt), first, before, after)


def _counts(rows: pl.DataFrame) -> bool:
    """Whether the values of each attempt only grow, and grow at all."""
    parts = [part["value"].to_numpy() for part in rows.partition_by("attempt", maintain_order=True)]
    known = all(np.isfinite(part).all() and (np.diff(part) >= 0).all() for part in parts)
    return known and any(len(part) > 1 and part[-1] > part[0] for part in parts)
