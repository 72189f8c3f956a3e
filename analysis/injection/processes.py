"""Faults of one process among several, and of memory and speed."""

from __future__ import annotations

import numpy as np
import polars as pl

from analysis.injection.draft import Draft, Part
from analysis.injection.fault import Fault
from analysis.injection.losses import RECORD_LOSS
from analysis.injection.shapes import Floats
from parsers.naming.role_layout import SeriesRole

__all__ = ["FAULTS"]

#: What PyTorch says; its numbers are an example.
_OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def _last_rank(draft: Draft) -> int:
    """The rank that the fault goes into: the last of several."""
    loss = draft.wanted("train_loss", RECORD_LOSS)
    ranks = draft.run.catalogue["rank"].unique().sort()
    if len(ranks) < 2:
        raise draft.refused("one rank was logged; let every process log: Recorder(folder, rank=rank)")
    draft.begin(loss)
    return int(ranks[-1])


def _apart(draft: Draft) -> None:
    rank = _last_rank(draft)

    def moved(part: Part) -> Floats:
        return np.where(part.inside & (part.rank == rank), part.value * (1 + draft.size), part.value)

    draft.change(draft.onset.series, moved)


def _gone(draft: Draft) -> None:
    rank, step = _last_rank(draft), draft.onset.step
    if step is None:
        raise draft.refused("the log has no steps; record them: rec.log(step, ...)")
    draft.drop((pl.col("rank") == rank) & (pl.col("step") >= step))
    draft.events = draft.events.filter((pl.col("rank") != rank) | (pl.col("kind") != "end"))


def _leak(draft: Draft) -> None:
    memory = draft.wanted("memory", "record it: rec.resources(step, {'memory_mb': megabytes})")
    rest = draft.begin(memory).rest

    def grown(part: Part) -> Floats:
        inside = part.value[part.inside]
        level = float(inside[0]) if len(inside) else 0.0
        return np.where(part.inside, part.value + draft.size * level * np.clip(part.rows / rest, 0, 1), part.value)

    draft.change(memory, grown)


def _out(draft: Draft) -> None:
    """The run ends there, with PyTorch's message as its end."""
    place = draft.begin(_any(draft))
    if place.step is None:
        raise draft.refused("the log has no steps; record them: rec.log(step, ...)")
    draft.drop(pl.col("step") > place.step)
    draft.events = draft.events.filter(pl.col("kind") != "end")
    draft.add_event("end", {"status": "failed", "error": _OUT_OF_MEMORY}, place.step)


def _any(draft: Draft) -> SeriesRole:
    if draft.metric is not None:
        return draft.wanted("train_loss", RECORD_LOSS)
    draft.of_the_log = True
    return draft.longest(RECORD_LOSS)


def _slower(draft: Draft) -> None:
    """Speeds fall, times of work grow, and the clock runs as they say."""
    speeds, times = draft.of_role("throughput"), draft.of_role("step_time")
    first = [one for one in [draft.run.roles["throughput"].series, *times] if one is not None]
    chosen = draft.wanted("throughput", "") if draft.metric is not None else (first or [_any(draft)])[0]
    draft.begin(chosen)
    if not first and draft.onset_time is None:
        raise draft.refused("the log has neither speeds nor times; record rec.resources(step, {'examples_per_s': n})")
    for one in speeds:
        draft.scale(one, lambda rows: np.where(rows >= 0, 1 / draft.size, 1.0))
    for one in times:
        draft.scale(one, lambda rows: np.where(rows >= 0, draft.size, 1.0))
    begun = draft.onset_time
    if begun is not None:
        since = (pl.col("time") - begun).dt.total_microseconds() * draft.size
        late = pl.lit(begun) + pl.duration(microseconds=since.round().cast(pl.Int64))
        time = pl.when(pl.col("time") > begun).then(late.cast(pl.Datetime("us", "UTC"))).otherwise(pl.col("time"))
        draft.each_row(time=time)


FAULTS = (
    Fault(
        "rank-divergence",
        "the training loss of the last rank is 1 + `size` times what it was, from there on",
        _apart, "relative difference", 1.0, 0.0, 0.0, 1e6,
    ),
    Fault("rank-missing", "the last rank logs nothing from there on", _gone),
    Fault(
        "memory-growth",
        "memory climbs evenly from there to the end, by `size` of its level",
        _leak, "of the level, by the end", 1.0, 0.0, 0.0, 1e3, tolerance=0.2,
    ),
    Fault("memory-overflow", "the run ends there, and its end says that CUDA is out of memory", _out),
    Fault(
        "throughput-drop",
        "training becomes `size` times slower from there on, by its speeds, its times of work and its clock",
        _slower, "times slower", 3.0, 1.0, 1.0, 1e3,
    ),
)  # fmt: skip
