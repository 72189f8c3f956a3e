"""The resumes of a run, each with the training loss after it and all that stands before it, on one grid of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.integrity.rhythm import usual_step
from parsers.naming.roles import LOSSES
from parsers.run import Run, live_branch

__all__ = ["Resume", "loss_rows", "resumes_of"]

Floats = NDArray[np.float64]

#: Records after a resume that are looked at: more would only make a clear case clearer.
_AFTER = 4096
#: Records before a resume that are looked at, the latest ones.
_BEFORE = 1 << 20
#: Records that may be missing at the beginning of a log for it to be taken as counted from step 0 all the same.
_MISSING = 64


@dataclass(frozen=True, slots=True, eq=False)
class Resume:
    """One resume: `after` is the loss from `step` on, one value every `every` steps, NaN where none was logged.

    `before` is the live branch up to it on the same grid, its last value one record before `step`, with the attempt of
    each value; `dead` is the branch that the resume left, from `step` on. `epoch_records` is how many records make an
    epoch, None where the log does not tell. `every` is 0, and there are no values, where the steps keep no rhythm.
    """

    rank: int
    attempt: int
    step: int
    every: int
    after: Floats
    before: Floats
    attempts: NDArray[np.int64]
    dead: Floats
    epoch_records: float | None

    def step_at(self, lag: int) -> int:
        """The step that stands so many records before the resume."""
        return self.step - lag * self.every


def loss_rows(run: Run) -> pl.DataFrame:
    """The longest training loss of the lowest rank that wrote one, of all attempts: rank, attempt, step, epoch, value,
    metric. Empty where the run has no loss with steps.
    """
    best: tuple[tuple[bool, int, int], tuple[int, str, str]] | None = None
    for rank, split, metric, tag, count in run.catalogue.select("rank", "split", "metric", "tag", "count").iter_rows():
        known = run.roles.of(metric, split, tag)
        if known.side == "train" and known.role in LOSSES:
            mark = (known.role == "loss", -rank, count)
            if best is None or mark > best[0]:
                best = mark, (rank, split, tag)
    keep = pl.lit(False)
    if best is not None:
        rank, split, tag = best[1]
        keep = (pl.col("rank") == rank) & (pl.col("split") == split) & (pl.col("tag") == tag)
    rows = run.lazy().filter(keep).select("rank", "attempt", "step", "epoch", "value", "metric").collect()
    return rows.drop_nulls(["step", "value"])


def resumes_of(rows: pl.DataFrame) -> Iterator[Resume]:
    """Every resume in the rows of one series (`loss_rows`), in their order."""
    for attempt in sorted(rows["attempt"].unique().to_list()):
        former, mine = rows.filter(pl.col("attempt") < attempt), rows.filter(pl.col("attempt") == attempt)
        if former.height and mine.height:
            yield _resume(live_branch(former), former, mine.head(_AFTER), attempt)


def _resume(live: pl.DataFrame, former: pl.DataFrame, mine: pl.DataFrame, attempt: int) -> Resume:
    rank, first = int(mine["rank"][0]), int(mine["step"].to_numpy().min())
    past = live.filter(pl.col("step") < first).tail(_BEFORE)
    every = usual_step(mine["step"].to_numpy()) or usual_step(past["step"].to_numpy()) or 0
    nothing = np.empty(0)
    if not every:
        return Resume(rank, attempt, first, 0, nothing, nothing, np.empty(0, np.int64), nothing, None)
    start = _aligned(mine["step"].to_numpy(), every)
    oldest = _oldest(past, start, every)
    lost = former.filter(pl.col("step") >= start)
    attempts = _on_grid(past.with_columns(value=pl.col("attempt").cast(pl.Float64)), oldest, start, every)
    return Resume(
        rank=rank,
        attempt=attempt,
        step=start,
        every=every,
        after=_on_grid(mine, start, start + _AFTER * every, every),
        before=_on_grid(past, oldest, start, every),
        attempts=np.where(np.isfinite(attempts), attempts, -1).astype(np.int64),
        dead=_on_grid(lost, start, start + _AFTER * every, every),
        epoch_records=_epoch_records(past, every),
    )


def _oldest(past: pl.DataFrame, start: int, every: int) -> int:
    """The step at which the grid begins: that of the first record, or step 0 where its first records are missing."""
    if past.is_empty():
        return start
    records = (start - int(past["step"].to_numpy().min())) // every
    to_zero = start // every
    return start - every * (to_zero if 0 <= to_zero - records <= _MISSING else records)


def _aligned(steps: NDArray[np.int64], every: int) -> int:
    """The first step of the phase that most steps have: a first record may stand outside of the rhythm."""
    phases = steps % every
    found, counts = np.unique(phases, return_counts=True)
    return int(steps[phases == found[counts.argmax()]].min())


def _on_grid(rows: pl.DataFrame, start: int, stop: int, every: int) -> Floats:
    """Values by step from `start` up to `stop`, as far as there are rows; of a step logged twice the last counts."""
    kept = rows.filter(pl.col("step").is_between(start, stop - 1) & ((pl.col("step") - start) % every == 0))
    if kept.is_empty():
        return np.empty(0)
    places = ((kept["step"].to_numpy() - start) // every).astype(np.int64)
    grid = np.full(int(places.max()) + 1, np.nan)
    grid[places] = kept["value"].to_numpy()
    return grid


def _epoch_records(rows: pl.DataFrame, every: int) -> float | None:
    """Records that make an epoch, from fractional epochs or from where whole ones change."""
    known = rows.drop_nulls("epoch").filter(pl.col("epoch").is_finite())
    if known.height < 2:
        return None
    step, epoch = known["step"].to_numpy().astype(float), known["epoch"].to_numpy()
    ahead, steps = np.diff(epoch), np.diff(step)
    if (epoch != np.floor(epoch)).any():
        grows = (ahead > 0) & (steps > 0)
        return float(np.median(steps[grows] / ahead[grows])) / every if grows.any() else None
    changes = np.flatnonzero(ahead == 1) + 1
    if not len(changes):
        return None
    starts = np.concatenate([step[:1], step[changes]]) if epoch[0] == epoch.min() else step[changes]
    return float(np.median(np.diff(starts))) / every if len(starts) > 1 else None
