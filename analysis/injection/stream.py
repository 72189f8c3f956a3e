"""Faults of the log itself: records that are missing, steps and times that jump, a run that ends or begins again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from analysis.injection.draft import Draft, Part
from analysis.injection.fault import Fault
from analysis.injection.follow import losses_become
from analysis.injection.losses import RECORD_LOSS
from analysis.injection.shapes import Floats, parted
from parsers.naming.role_layout import SeriesRole
from parsers.run import COMPARED
from parsers.schema import REJECTS

__all__ = ["FAULTS"]

_STEP, _TIME = pl.col("step"), pl.col("time")


def _longest(draft: Draft) -> SeriesRole:
    """The longest series, whose rhythm is that of the log."""
    if draft.metric is not None:
        return draft.wanted("train_loss", RECORD_LOSS)
    draft.of_the_log = True
    return draft.longest(RECORD_LOSS)


def _stepped(draft: Draft) -> int:
    """The onset as a step."""
    step = draft.begin(_longest(draft)).step
    if step is None:
        raise draft.refused("the log has no steps; record them: rec.log(step, ...)")
    return step


def _timed(draft: Draft) -> pl.Expr:
    """Which rows were written at the onset or later."""
    draft.begin(_longest(draft))
    if draft.onset_time is None:
        raise draft.refused("the log has no times; a Recorder writes them with every record")
    begun = pl.lit(draft.onset_time)
    return _TIME.ge(begun)


def _missing(draft: Draft) -> None:
    step = _stepped(draft)
    span = draft.size * draft.onset.every * (draft.onset.row + draft.onset.rest)
    draft.drop((step <= _STEP) & (step + span > _STEP))


def _back(draft: Draft) -> None:
    step = _stepped(draft)
    back = round(draft.size * draft.onset.every)
    draft.each_row(step=pl.when(step <= _STEP).then(_STEP - back).otherwise(_STEP))


def _skewed(draft: Draft) -> None:
    late = _timed(draft)
    draft.each_row(time=pl.when(late).then(_TIME - pl.duration(microseconds=round(draft.size * 1e6))).otherwise(_TIME))


def _stalled(draft: Draft) -> None:
    late = _timed(draft)
    draft.each_row(time=pl.when(late).then(_TIME + pl.duration(microseconds=round(draft.size * 1e6))).otherwise(_TIME))


def _unfinished(draft: Draft) -> None:
    """The last `size` of the run is gone, and with it the record that says how it ended."""
    draft.begin(_longest(draft))
    last = draft.run.last_step
    if draft.onset.step is None or last is None:
        raise draft.refused("the log has no steps; record them: rec.log(step, ...)")
    end = last - draft.size * last
    draft.drop(_STEP.gt(end))
    draft.events = draft.events.filter(pl.col("kind") != "end")


def _cut(draft: Draft) -> None:
    records = sum(one.count for one in draft.run.roles)
    count = max(round(draft.size * records), 1)
    draft.begin(_longest(draft))
    rows = {
        "file": [draft.run.path] * count,
        "line": draft.chance.integers(1, count + records + 1, count),
        "offset": [None] * count,
        "reason": ["not valid JSON: planted"] * count,
        "text": [""] * count,
    }
    draft.rejects = pl.concat([draft.rejects, pl.DataFrame(rows, schema=REJECTS)])


def _repeated(draft: Draft) -> None:
    """A resume, after which the noise of the loss is that of the run's beginning, mixed with its own."""
    loss = draft.wanted("train_loss", RECORD_LOSS)
    step = draft.begin(loss).step
    if step is None:
        raise draft.refused(f"{loss} has no steps, by which a resume is known")

    def again(part: Part) -> Floats:
        own = parted(part.value)
        late = np.flatnonzero(part.inside)[: int(draft.length(len(part.value)))]
        early = own.noise[: len(late)]
        count = min(len(late), len(early))
        noise = own.noise.copy()
        kept = np.sqrt(max(1 - draft.size**2, 0.0)) * noise[late[:count]]
        noise[late[:count]] = draft.size * early[:count] * _as_wide(noise[late[:count]], early[:count]) + kept
        changed = np.zeros(len(part.value), bool)
        changed[late[:count]] = True
        return np.where(changed, own.joined(own.trend, noise), part.value)

    losses_become(draft, loss, again)
    later = (step <= _STEP).fill_null(value=False)
    draft.each_row(attempt=pl.when(later).then(pl.col("attempt") + 1).otherwise(pl.col("attempt")))
    draft.events = draft.events.with_columns(
        attempt=pl.when(pl.col("kind") == "end").then(pl.col("attempt") + 1).otherwise(pl.col("attempt"))
    )
    draft.final_attempt = None if draft.final_attempt is None else draft.final_attempt + 1


def _as_wide(own: Floats, other: Floats) -> float:
    """By how much the other noise is to be stretched to be as wide as the run's own there."""
    wide, there = float(np.median(np.abs(own))), float(np.median(np.abs(other)))
    return wide / there if there > 0 else 1.0


def _disagreeing(draft: Draft) -> None:
    """In the second log of the run, `size` of the numbers of its longest shared series are half as large again."""
    places = [n for n, source in enumerate(draft.sources) if source.against.height]
    if not places:
        raise draft.refused("the run has one log; let a second writer log too (TensorBoard beside a Recorder)")
    draft.place = None
    source = draft.sources[places[0]]
    row = source.against.with_row_index("_row").sort("tells", "compared", descending=True).row(0, named=True)
    differing = min(max(round(draft.size * row["compared"]), 1), row["compared"])
    first = _first_shared(draft, row)
    changed = source.against.with_row_index("_row").with_columns(
        *(
            pl.when(pl.col("_row") == row["_row"]).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
            for name, value in {
                "differing": differing, "first_step": first[0], "value": first[1], "other_value": first[1] * 1.5,
            }.items()
        )
    )  # fmt: skip
    against = changed.select(pl.col(name).cast(dtype) for name, dtype in COMPARED.items())
    draft.sources = tuple(replace(s, against=against) if s is source else s for s in draft.sources)


def _first_shared(draft: Draft, row: dict[str, object]) -> tuple[int | None, float]:
    """Step and value at which the logs begin to differ: at the onset in the series."""
    series = draft.found(str(row["metric"]))
    if series is None:
        return None, 1.0
    draft.begin(series)
    part = next(draft.parts(series))
    return draft.onset.step, float(part.value[min(draft.onset.row, len(part.value) - 1)])


FAULTS = (
    Fault(
        "truncated-stream",
        "records that could not be read come to `size` of those that could",
        _cut, "share of the records", 0.1, 0.0, 0.0, 10.0, placed=False,
    ),
    Fault(
        "missing-steps",
        "all records of a stretch of `size` of the run are gone",
        _missing, "share of the run", 0.1, 0.0, 0.0, 0.5,
    ),
    Fault(
        "step-regression",
        "the step counter goes back by `size` records, and counts on from there",
        _back, "records", 20.0, 0.0, 1.0, 1e9, counted=True,
    ),
    Fault(
        "clock-skew",
        "the clock goes back by `size` seconds, and on from there",
        _skewed, "seconds", 3600.0, 0.0, 0.0, 1e8,
    ),
    Fault(
        "stall",
        "the log stands still for `size` seconds",
        _stalled, "seconds", 7200.0, 0.0, 0.0, 1e8,
    ),
    Fault(
        "unfinished-run",
        "the last `size` of the run was never trained, and nothing says how it ended",
        _unfinished, "share of the run", 0.3, 0.0, 0.0, 0.95, placed=False,
    ),
    Fault(
        "repeated-data",
        "the run is resumed there, and is fed the data of its beginning again: `size` is how far the noise of the loss "
        "follows that of then (its correlation); the rest is the run's own",
        _repeated, "correlation", 0.95, 0.0, 0.0, 1.0,
    ),
    Fault(
        "source-disagreement",
        "`size` of the numbers that two logs of the run share differ, by half",
        _disagreeing, "share of the numbers", 0.2, 0.0, 0.0, 1.0,
    ),
)  # fmt: skip
