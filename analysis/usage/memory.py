"""The series of memory in a run: how full, how they climb, and when they meet the limit that the run tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.usage.climb import FEWEST, Climb, climb_of
from analysis.usage.limits import Limit, Unit, limit_for, unit_of
from parsers.run import Run

__all__ = ["NEAR", "Memory", "memories_of"]

Floats = NDArray[np.float64]
#: A series is near its limit from this share of it on.
NEAR = 0.95


@dataclass(frozen=True, eq=False)
class Memory:
    """One series of memory in one attempt of one rank; `step` counts records where the log has no steps.

    `peak` and `usual` (median) are in its own `unit`, as are `value` and `limit`; `limit_from` says where that stands.
    `climb` is None where it does not climb, or where it is too short to tell (`judged` is false then).
    """

    rank: int
    attempt: int
    split: str
    metric: str
    tag: str
    unit: Unit
    step: Floats
    counted: bool
    value: Floats
    climb: Climb | None
    limit: float | None
    limit_from: str

    @property
    def name(self) -> str:
        """Split and metric, as a message says them."""
        return f"{self.split} {self.metric}".strip()

    @property
    def judged(self) -> bool:
        """Whether it is long enough for a climb to show."""
        return len(self.value) >= FEWEST

    @property
    def peak(self) -> float:
        """The largest value."""
        return float(self.value.max())

    @property
    def usual(self) -> float:
        """The median."""
        return float(np.median(self.value))

    @property
    def growth(self) -> float:
        """What the climb adds, as a share of the level where it begins; 0 without a climb."""
        if self.climb is None:
            return 0.0
        return self.climb.growth / max(self.climb.level, self.climb.growth * 1e-3, 1e-300)

    @property
    def meets_limit(self) -> int | None:
        """The step at which the climb meets the limit if it goes on; None without a climb or a limit."""
        if self.climb is None or self.limit is None:
            return None
        fitted = self.climb.level + self.climb.growth
        ahead = max(0.0, self.limit - fitted) / self.climb.slope.slope
        return int(np.ceil(min(self.step[-1] + ahead, 2.0**62)))

    @property
    def share(self) -> float | None:
        """The peak as a share of the limit."""
        return None if self.limit is None else self.peak / self.limit


def memories_of(run: Run, limits: list[Limit]) -> Iterator[Memory]:
    """Each series of memory, of the attempt of its rank in which it has most values, as `run.roles` knows them."""
    known = [one for one in run.roles if one.role == "memory"]
    if not known:
        return
    wanted = pl.col("tag").is_in(list(dict.fromkeys(one.tag for one in known)))
    # values that are not finite are left out later: asked of the log itself, that would have all its series read
    rows = run.lazy().filter(wanted).collect().filter(pl.col("value").is_finite())
    for one in known:
        mine = rows.filter((pl.col("tag") == one.tag) & (pl.col("split") == one.split))
        for (_rank,), part in mine.group_by("rank", maintain_order=True):
            longest = max(part.partition_by("attempt", maintain_order=True), key=lambda piece: piece.height)
            yield _memory(longest, limits)


def _memory(rows: pl.DataFrame, limits: list[Limit]) -> Memory:
    metric = str(rows["metric"][0])
    value = rows["value"].to_numpy()
    step = rows["step"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    counted = bool(np.isfinite(step).all() and (np.diff(step) >= 0).all() and (len(step) < 2 or step[-1] > step[0]))
    step = step if counted else np.arange(float(len(value)))
    limit = limit_for(metric, rows["value"], limits)
    return Memory(
        rank=int(rows["rank"][0]),
        attempt=int(rows["attempt"][0]),
        split=str(rows["split"][0]),
        metric=metric,
        tag=str(rows["tag"][0]),
        unit=unit_of(metric, float(value.max())),
        step=step,
        counted=counted,
        value=value,
        climb=climb_of(step, value),
        limit=None if limit is None else limit[0],
        limit_from="" if limit is None else limit[1],
    )
