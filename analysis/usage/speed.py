"""How fast a run trained: its throughput, the time of its steps, or the time between its records, whichever it logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.hidden.facts import last_digit
from analysis.usage.slowdown import FEWEST
from parsers.naming.role_layout import SeriesRole
from parsers.naming.roles import words_of
from parsers.run import Run

__all__ = ["Speed", "speeds_of"]

Floats = NDArray[np.float64]
#: Times of other work than that of a step: what they measure comes and goes.
_OTHER_WORK = re.compile(
    r"\b(?:data|load|loader|loading|dataloader|fetch|eval|evaluation|validation|val|test|comm|save|checkpoint"
    r"|generation|rollout|inference|latency|epoch|predict)\b"
)
#: A clock shows intervals that are this much longer than its steps; shorter ones are put together first.
_TICKS = 20.0


@dataclass(frozen=True, eq=False)
class Speed:
    """Speed over the live branch of the first rank, in the order logged; what is not positive is left out.

    `what` it was read from, the `metric` behind it, and `speed` in `unit` (steps or records a second for intervals;
    for times of steps the inverse). `step` is NaN where unknown; `last_digit` what the last digit that was
    logged is worth.
    """

    what: Literal["throughput", "step time", "interval"]
    split: str
    metric: str
    unit: str
    step: Floats
    time: NDArray[np.int64]
    speed: Floats
    last_digit: float = 0.0


def speeds_of(run: Run) -> Iterator[Speed]:
    """What tells of the speed of the training, the most direct first: a throughput, the time of a step, intervals.

    Only what has 30 values or more, or could have: a series that is shorter says nothing about a change.
    """
    for role in ("throughput", "step_time"):
        for one in _series(run, role):
            found = _measured(run, one, role == "step_time")
            if len(found.speed) >= FEWEST:
                yield found
                break
    between = _between(run)
    if between is not None and len(between.speed) >= FEWEST:
        yield between


def _series(run: Run, role: str) -> list[SeriesRole]:
    """The candidates of a role on the training side, the one that stands for the run first, times of steps alone."""
    fit = [one for one in run.roles[role].candidates if one.side == "train" and one.count >= FEWEST]
    return [one for one in fit if one.by == "user" or not _OTHER_WORK.search(words_of(one.metric))]


def _measured(run: Run, one: SeriesRole, inverse: bool) -> Speed:
    rows = run.series(one.metric, split=one.split).filter(pl.col("tag") == one.tag)
    rows = _of_first_rank(rows).filter(pl.col("value").is_finite() & (pl.col("value") > 0))
    value = rows["value"].to_numpy()
    return Speed(
        what="step time" if inverse else "throughput",
        split=one.split,
        metric=one.metric,
        unit=one.metric,
        step=_steps(rows),
        time=_micros(rows),
        speed=1.0 / value if inverse else value,
        last_digit=last_digit(value),
    )


def _of_first_rank(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of the lowest rank; a series may have lost all of them to a later attempt."""
    return rows.filter(pl.col("rank") == pl.col("rank").min())


def _steps(rows: pl.DataFrame) -> Floats:
    return rows["step"].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _micros(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Microseconds since 1970, -1 where unknown."""
    found: NDArray[np.int64] = rows["time"].dt.timestamp("us").fill_null(-1).to_numpy()
    return found


def _between(run: Run) -> Speed | None:
    """Steps (records, where there are no steps) a second between the records of the longest training series."""
    trained = [one for one in run.roles if one.side == "train" and one.role not in ("system", "memory")]
    if not trained:
        return None
    one = max(trained, key=lambda one: (one.count, one.role == "loss"))
    rows = run.series(one.metric, split=one.split).filter(pl.col("tag") == one.tag)
    rows = _of_first_rank(rows).filter(pl.col("time").is_not_null())
    parts = [_intervals(part) for part in rows.partition_by("attempt", maintain_order=True) if part.height > 1]
    if not parts:
        return None
    unit = "steps a second" if all(part["counted"] for part in parts) else "records a second"
    step, time, speed = (np.concatenate([part[key] for part in parts]) for key in ("step", "time", "speed"))
    return Speed("interval", one.split, one.metric, unit, step, time, speed)


def _intervals(rows: pl.DataFrame) -> dict[str, Any]:
    """Speed in the intervals of one attempt, several put together where the clock is too coarse for one."""
    step, time = _steps(rows), _micros(rows)
    counted = bool(np.isfinite(step).all())
    done = np.diff(step) if counted else np.ones(len(time) - 1)
    micros = np.diff(time).astype(np.float64)
    size = _together(time, micros)
    starts = np.arange(0, len(micros) - size + 1, size)
    work, spent = np.add.reduceat(done, starts), np.add.reduceat(micros, starts)
    if len(starts) and len(micros) % size:  # the last sum took the rest with it
        work[-1], spent[-1] = done[starts[-1] : starts[-1] + size].sum(), micros[starts[-1] : starts[-1] + size].sum()
    kept = (work > 0) & (spent > 0)
    places = starts[kept]
    return {"counted": counted, "step": step[places], "time": time[places], "speed": work[kept] / spent[kept] * 1e6}


def _together(time: NDArray[np.int64], micros: Floats) -> int:
    """How many intervals make one that is long against the ticks of the clock."""
    tick = next((tick for tick in (1_000_000, 1_000) if not (time % tick).any()), 1)
    usual = float(micros[micros >= 0].mean()) if (micros >= 0).any() else 0.0
    return max(1, int(np.ceil(_TICKS * tick / usual))) if usual > 0 and tick > 1 else 1
