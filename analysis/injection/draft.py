"""The tables of a run while a fault is written into them: series that change, rows that go, events that come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.injection.shapes import Floats
from eventstream.errors import InputError, unknown_name
from parsers.naming.role_layout import SeriesRole
from parsers.run import Run
from parsers.schema import EVENTS

__all__ = ["Draft", "Part", "Place"]

#: A series needs this many rows to have a place in its midst.
_LEAST = 4


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One series of one rank in the order logged. `rows` counts from the onset, in rows of the series that the fault
    goes into (negative before, fractions where this series has another rhythm)."""

    rank: int
    step: Floats
    value: Floats
    rows: Floats

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which rows are at the onset or behind it."""
        return np.asarray(self.rows >= 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the fault begins: the series it goes into, step (None in a log without steps), share and row, rows from
    there to the end, and steps between two rows."""

    series: SeriesRole
    step: int | None
    share: float
    row: int
    rest: int
    every: float


class Draft:
    """A run to be, and what was asked of the fault: `at`, `size`, `metric`, `length`, `consequences`.

    A plant calls `begin` for the place, then changes the tables; `chance` draws what is left to chance. Values of a
    lazy run are read only for the series that change; the rest stays lazy.
    """

    def __init__(
        self,
        run: Run,
        kind: str,
        at: float,
        size: float,
        metric: str | None = None,
        length: int | None = None,
        consequences: bool = True,
        seed: int = 0,
    ) -> None:
        self.run, self.kind, self.at, self.size = run, kind, at, size
        self.metric, self.consequences = metric, consequences
        self._length = length
        self.chance = np.random.default_rng([seed, *map(ord, kind)])
        self.table = run.scalars if "scalars" in run.__dict__ else None
        self.rows = run.lazy()
        self.events, self.rejects, self.sources = run.events, run.rejects, run.sources
        self.final_attempt = run.final_attempt
        self.place: Place | None = None
        self.of_the_log = False  # whether the fault is one of the log as a whole, and of no series

    def refused(self, why: str) -> InputError:
        """The error that says what the log lacks."""
        return InputError(f"{self.run.name}: {self.kind} cannot be planted: {why}")

    # which series

    def wanted(self, name: str, record: str) -> SeriesRole:
        """The series that `metric` names, else the one that stands for the run as `name` (a role)."""
        if self.metric is not None:
            fit = [one for one in self.run.roles if self.metric in (one.metric, one.tag)]
            if not fit:
                raise InputError(f"{self.run.name}: {unknown_name('metric', self.metric, self.run.metrics)}")
            return max(fit, key=lambda one: (one.side == "train", one.count))
        primary = self.run.roles[name]
        if name == "train_loss" and primary.series is None:  # of a GAN the generator's loss is what is trained
            primary = self.run.roles["generator_loss"]
        if primary.series is None:
            raise self.refused(f"the log has no {name.replace('_', ' ')}; {record}")
        return primary.series

    def longest(self, record: str) -> SeriesRole:
        """The longest series, whose rhythm is that of the log; of training before others."""
        if not len(self.run.roles):
            raise self.refused(f"the log holds no numbers; {record}")
        return max(self.run.roles, key=lambda one: (one.count, one.side == "train"))

    def found(self, metric: str) -> SeriesRole | None:
        """The longest series of exactly this metric, training before others; None where there is none."""
        fit = [one for one in self.run.roles if one.metric == metric]
        return max(fit, key=lambda one: (one.side == "train", one.count), default=None)

    def of_role(self, *roles: str, side: str = "train") -> list[SeriesRole]:
        """All series of some roles on one side."""
        return [one for one in self.run.roles if one.role in roles and one.side == side]

    # where

    def begin(self, series: SeriesRole) -> Place:
        """The place of the onset in `series`, kept for all that follows."""
        steps = self._frame(series).filter(pl.col("rank") == pl.col("rank").min())["step"]
        count = len(steps)
        if count < _LEAST:
            raise self.refused(f"{series!s} has {count} rows, and {_LEAST} are needed to have a place in their midst")
        known = steps.null_count() == 0
        if isinstance(self.at, int):
            row = self._row_of(steps, known, int(self.at), series)
        else:
            row = min(int(self.at * count), count - 1)
        gaps = np.abs(np.diff(steps.to_numpy().astype(np.float64))) if known else np.ones(1)
        every = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 1.0
        step = int(steps[row]) if known else None
        self.place = Place(series, step, row / count, row, count - row, every)
        return self.place

    def _row_of(self, steps: pl.Series, known: bool, at: int, series: SeriesRole) -> int:
        if not known:
            raise self.refused(f"{series} has no steps: give `at` as a share of the run, from 0 to 1")
        behind = np.flatnonzero(steps.to_numpy() >= at)
        if not len(behind):
            raise self.refused(f"step {at} lies behind the last step of {series}, {steps.to_numpy().max()}")
        return int(behind[0])

    @property
    def onset(self) -> Place:
        """The place, once `begin` was called."""
        if self.place is None:
            raise RuntimeError("a plant asks for its place before it has begun")
        return self.place

    def length(self, default: float) -> float:
        """The rows that the user gave, else the default; one at least."""
        return max(float(default if self._length is None else self._length), 1.0)

    # values

    def parts(self, series: SeriesRole) -> Iterator[Part]:
        """The series of each rank."""
        for (rank,), rows in self._frame(series).group_by("rank", maintain_order=True):
            step = rows["step"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            value = rows["value"].to_numpy()
            yield Part(int(str(rank)), step, value, self._rows_since(step))

    def _rows_since(self, step: Floats) -> Floats:
        place = self.place
        if place is None:
            return np.arange(float(len(step)))
        if place.step is None or np.isnan(step).any():
            count = max(len(step), 1)
            stretched = (place.row + place.rest) / count
            return (np.arange(float(len(step))) - int(place.share * count)) * stretched
        return (step - place.step) / place.every

    def _frame(self, series: SeriesRole) -> pl.DataFrame:
        columns = ["rank", "step", "value"]
        return self.rows.filter(_is(series)).select(columns).collect()

    def change(self, series: SeriesRole, how: Callable[[Part], Floats]) -> None:
        """Other values for a series, rank by rank: `how` gives as many as it is given."""
        made = {part.rank: np.asarray(how(part), np.float64) for part in self.parts(series)}
        if self.table is not None:
            value, rank = self.table["value"].to_numpy().copy(), self.table["rank"]
            chosen = self.table.select(_is(series)).to_series()
            for number, values in made.items():
                value[(chosen & (rank == number)).to_numpy()] = values
            self.set_table(self.table.with_columns(value=pl.Series("value", value, pl.Float64)))
            return
        own = self.rows.filter(_is(series)).collect()
        pieces = [own.filter(pl.col("rank") == n).with_columns(value=pl.Series(v)) for n, v in made.items()]
        self.rows = pl.concat([self.rows.filter(~_is(series)), pl.concat(pieces).lazy()])

    def scale(self, series: SeriesRole, factor: Callable[[Floats], Floats]) -> None:
        """The series times a factor of the rows since the onset; before it nothing changes."""
        self.change(series, lambda part: np.where(part.inside, part.value * factor(part.rows), part.value))

    # rows and events

    def set_table(self, table: pl.DataFrame) -> None:
        """The scalars as they now are, of a run that is in memory."""
        self.table, self.rows = table, table.lazy()

    def each_row(self, **columns: pl.Expr) -> None:
        """Other values of columns of the scalars, and of the same columns of the events."""
        self.rows = self.rows.with_columns(**columns)
        self.table = None if self.table is None else self.table.with_columns(**columns)
        shared = {name: expression for name, expression in columns.items() if name in EVENTS}
        self.events = self.events.with_columns(**shared)

    def drop(self, gone: pl.Expr) -> None:
        """Leave out rows of the scalars, and events with a step, for which `gone` (over rank and step) is true."""
        stays = ~gone.fill_null(value=False)
        self.rows = self.rows.filter(stays)
        self.table = None if self.table is None else self.table.filter(stays)
        self.events = self.events.filter(stays)

    def add_event(self, kind: str, payload: Mapping[str, Any], step: int | None, like: str = "") -> None:
        """One more event at the end, with the time of the onset where known, and the split of the events of `like`."""
        splits = self.events.filter(pl.col("kind") == like)["split"] if like else pl.Series([], dtype=pl.String)
        row = {
            "run": self.run.name, "rank": 0, "attempt": self.run.last_attempt if step is not None else 0, "step": step,
            "epoch": None, "time": self.onset_time if step is not None else None,
            "split": splits[0] if len(splits) else "", "kind": kind, "payload": json.dumps(payload),
        }  # fmt: skip
        self.events = pl.concat([self.events, pl.DataFrame([row], schema=EVENTS, orient="row")])

    @cached_property
    def onset_time(self) -> Any:
        """When the onset was logged; None without times."""
        if self.place is None:
            return None
        rows = self.rows.filter(_is(self.place.series)).select("step", "time").collect()
        if self.place.step is None:
            return rows["time"][self.place.row] if rows.height > self.place.row else None
        return rows.filter(pl.col("step") >= self.place.step)["time"].drop_nulls().min()

    def finished(self, note: Mapping[str, Any]) -> Run:
        """The run as it is now, with an event of kind `injected` that says what was planted."""
        place, self.place = self.place, None
        self.add_event("injected", note, None)
        self.place = place
        made = replace(
            self.run,
            source=self.rows,
            whole=None,
            events=self.events,
            rejects=self.rejects,
            sources=self.sources,
            final_attempt=self.final_attempt,
        )
        if self.table is not None:
            made.__dict__["scalars"] = self.table
        return made


def _is(series: SeriesRole) -> pl.Expr:
    """The rows of a series, of every rank and attempt."""
    own = (pl.col("split") == series.split) & (pl.col("metric") == series.metric)
    return own & (pl.col("tag") == series.tag)
