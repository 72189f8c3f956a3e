"""What was looked at and what came of it: one `Fact` a series and kind, and the series that the facts are read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.findings import Finding
from parsers.run import Run

__all__ = [
    "Drawn",
    "Fact",
    "Floats",
    "Series",
    "catalogue",
    "last_digit",
    "ordinal",
    "read_series",
    "training",
    "whole",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What shows a fact: a series, the rows of it that matter, and what these are."""

    x: Floats
    y: Floats
    marked: NDArray[np.bool_]
    axis: str
    label: str
    marks: str


@dataclass(frozen=True, eq=False)
class Fact:
    """One kind judged on one series.

    `points` are the rows looked at, `count` the rows or things that the kind counts (see `HiddenFacts`), `every` the
    period where there is one. A fact that was found brings its finding.
    """

    kind: str
    verdict: Literal["found", "clear"]
    split: str
    metric: str
    points: int
    count: int
    every: float | None
    detail: str
    finding: Finding | None = None
    drawn: Drawn | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """One series in the order logged, without dead branches; `step` and `epoch` are NaN where unknown."""

    split: str
    metric: str
    step: Floats
    epoch: Floats
    value: Floats

    @property
    def name(self) -> str:
        """Split and metric, as a message says them."""
        return f"{self.split} {self.metric}".strip()

    @property
    def axis(self) -> str:
        """step, else epoch, where every row has one; else record."""
        if len(self.step) and np.isfinite(self.step).all():
            return "step"
        return "epoch" if len(self.epoch) and np.isfinite(self.epoch).all() else "record"

    @property
    def x(self) -> Floats:
        """The places of the rows on `axis`."""
        if self.axis == "step":
            return self.step
        return self.epoch if self.axis == "epoch" else np.arange(float(len(self.value)))


def catalogue(run: Run) -> list[dict[str, Any]]:
    """The series of the first rank: what one process hides, all of them hide.

    Beside the columns of `run.catalogue` each has its `role` and `side`, and `primary`: whether it stands for the run.
    """
    table, roles = run.catalogue, run.roles
    rows = [] if table.is_empty() else table.filter(pl.col("rank") == table["rank"].min()).to_dicts()
    for row in rows:
        known = roles.of(row["metric"], row["split"], row["tag"])
        chosen = roles["train_loss" if known.role == "loss" else known.role].series if known.role else None
        row.update(role=known.role, side=known.side, primary=known is chosen)
    return rows


def read_series(run: Run, row: Mapping[str, Any]) -> Series:
    """The series that a row of `catalogue` names."""
    rows = run.series(str(row["metric"]), split=str(row["split"]), rank=int(row["rank"]))
    rows = rows.filter(pl.col("tag") == row["tag"])
    return Series(
        split=str(row["split"]),
        metric=str(row["metric"]),
        step=_numbers(rows, "step"),
        epoch=_numbers(rows, "epoch"),
        value=_numbers(rows, "value"),
    )


def _numbers(rows: pl.DataFrame, column: str) -> Floats:
    return rows[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def training(rows: list[dict[str, Any]], role: str) -> dict[str, Any] | None:
    """The training series of a role, of the rows of `catalogue`: what stands for the run, else the longest.

    >>> known = {"side": "train", "role": "loss", "count": 9}
    >>> training([{**known, "metric": m, "primary": m == "loss"} for m in ("nll_loss", "loss")], "loss")["metric"]
    'loss'
    """
    fit = [row for row in rows if row["side"] == "train" and row["role"] == role]

    def rank(row: dict[str, Any]) -> tuple[bool, int, int, str]:
        name = str(row["metric"])
        return bool(row["primary"]), int(row["count"]), -len(name), name

    return max(fit, key=rank, default=None)


def last_digit(values: Floats) -> float:
    """The place of the last digit that any of the values is written with, as far as the first 200 tell.

    >>> last_digit(np.array([0.5, 2.0, 0.125]))
    0.001
    """
    decimals = 0
    for value in values[:200]:
        mantissa, _, exponent = repr(float(value)).partition("e")
        decimals = max(decimals, len(mantissa.partition(".")[2].rstrip("0")) - int(exponent or 0))
    return 10.0**-decimals


def whole(value: float) -> int | None:
    """A place as a step; None where it is unknown."""
    return int(value) if np.isfinite(value) else None


def ordinal(number: int) -> str:
    """A number as it counts off.

    >>> [ordinal(n) for n in (2, 3, 11, 21, 22)]
    ['2nd', '3rd', '11th', '21st', '22nd']
    """
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"
