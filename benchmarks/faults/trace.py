"""What a training left in memory before it is written as a log: rows of numbers, events, and what was meant to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Event", "Row", "Trace"]

Floats = NDArray[np.float64]


@dataclass
class Row:
    """Numbers of one step and split. `time` is in seconds since 1970 and set by `clock.stamp`."""

    step: int
    values: dict[str, float]
    split: str = "train"
    epoch: float | None = None
    time: float = 0.0
    attempt: int = 0
    rank: int = 0


@dataclass
class Event:
    """A structured event: `kind` and `payload` as the recorder's methods take them."""

    kind: str
    step: int | None
    payload: dict[str, Any]
    time: float = 0.0
    attempt: int = 0
    rank: int = 0


@dataclass
class Trace:
    """One training: rows in the order of their logging, `config` and `plan`, and how it ended.

    `status` is the end that is recorded (`finished`, `failed`), or None where the process was killed.
    `steps` are the optimiser steps that were meant; `every` the steps between logged rows. `world` is the number of
    processes, `killed` the ranks that were, `carried` the steps whose eval rows repeat an earlier evaluation, `other`
    what a second logger of the same run holds.
    """

    rows: list[Row]
    config: dict[str, Any]
    plan: dict[str, Any]
    steps: int
    every: int
    events: list[Event] = field(default_factory=list)
    status: str | None = "finished"
    error: str = ""
    world: int | None = None
    killed: tuple[int, ...] = ()
    carried: frozenset[int] = frozenset()
    other: Trace | None = None

    def copy(self) -> Trace:
        """Rows and events of its own; numbers may then be changed."""
        rows = [replace(row, values=dict(row.values)) for row in self.rows]
        events = [replace(event, payload=_deep(event.payload)) for event in self.events]
        return replace(self, rows=rows, events=events, config=_deep(self.config), plan=_deep(self.plan))

    def where(self, split: str = "train", metric: str | None = None) -> list[Row]:
        """Rows of a split that hold a metric."""
        return [row for row in self.rows if row.split == split and (metric is None or metric in row.values)]

    def series(self, metric: str, split: str = "train") -> tuple[NDArray[np.int64], Floats]:
        """Steps and values of one metric."""
        rows = self.where(split, metric)
        return np.array([row.step for row in rows], np.int64), np.array([row.values[metric] for row in rows], float)

    def metrics(self, split: str = "train") -> list[str]:
        """Names in a split, in the order of their first logging."""
        return list(dict.fromkeys(name for row in self.rows if row.split == split for name in row.values))

    def change(self, metric: str, rows: Iterable[Row], by: Callable[[float], float]) -> None:
        """Puts `by(value)` in the place of each value of `metric` in `rows`."""
        for row in rows:
            if metric in row.values:
                row.values[metric] = by(row.values[metric])

    @property
    def last_step(self) -> int:
        """The last logged step."""
        return max(row.step for row in self.rows)

    def in_order(self) -> Iterator[Row | Event]:
        """Rows and events by the time of their logging; rows of one time before events."""
        return iter(sorted([*self.rows, *self.events], key=lambda record: (record.attempt, record.time)))


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_deep(inner) for inner in value]
    return value
