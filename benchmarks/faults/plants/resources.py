"""Faults of memory and speed, put into the numbers that a training loop logs of its machine."""

from __future__ import annotations

import numpy as np

from benchmarks.faults.effects import level
from benchmarks.faults.planting import NAMED, ONE_LOSS, Draw, Planted, plants
from benchmarks.faults.trace import Trace

__all__ = ["memory_growth", "memory_overflow", "throughput_drop"]

FAMILIES = (*ONE_LOSS, "gan")
NAME = "gpu_memory_mb"


def _memory(trace: Trace, rng: np.random.Generator, level_mb: float, shape: np.ndarray) -> None:
    """Memory along a shape (times the level), with the small steps of an allocator, after two rows of warm-up."""
    for i, row in enumerate(trace.where("train")):
        warm = 1 - 0.4 * np.exp(-i / 1.5)
        unsteady = 1 + 0.002 * float(rng.choice([-1, 0, 0, 0, 1]))
        row.values[NAME] = round(level_mb * warm * float(shape[i]) * unsteady, 1)


@plants("memory-growth", variants=("steady", "late"), families=FAMILIES, formats=NAMED, points=(60, 120, 300, 800),
        pooled=True)  # fmt: skip
def memory_growth(draw: Draw) -> Planted:
    """Memory that climbs in a straight line: from the beginning, or from the middle of the run on."""
    trace = draw.base(memory=False)
    rows = trace.where("train")
    start = 0 if draw.variant == "steady" else len(rows) // 2
    climb = np.clip((np.arange(len(rows)) - start) / (len(rows) - 1 - start), 0, 1)
    _memory(trace, draw.rng, float(draw.rng.uniform(2_000, 20_000)), 1 + (draw.size - 1) * climb)
    values = trace.series(NAME)[1]
    found = level(values[-max(3, len(values) // 50) :]) / level(values[5 : max(8, start)])
    return Planted(trace, found, rows[start].step, metric=NAME, accepted=("level-shift",) if draw.size > 1.5 else ())


@plants("memory-overflow", families=FAMILIES, formats=NAMED, points=(60, 120, 300), pooled=True)
def memory_overflow(draw: Draw) -> Planted:
    """Memory that climbs towards the limit, which is logged beside it; 1: it runs out, and the run dies of it."""
    trace = draw.base(memory=False)
    limit = float(draw.rng.choice([16_384.0, 24_576.0, 40_960.0, 81_920.0]))
    rows = trace.where("train")
    start = len(rows) // 3
    if draw.magnitude == 1:
        keep = rows[int(0.8 * len(rows))].step
        trace.rows = [row for row in trace.rows if row.step <= keep]
        trace.events = [event for event in trace.events if event.step is None or event.step <= keep]
        rows = trace.where("train")
        trace.status, trace.error = (
            "failed",
            (f"CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of {limit / 1024:.2f} GiB"),
        )
    base = float(draw.rng.uniform(0.55, 0.7))
    top = draw.size if draw.magnitude > 1 else 0.995
    climb = np.clip((np.arange(len(rows)) - start) / (len(rows) * 0.55), 0, 1)
    _memory(trace, draw.rng, limit, base + (top - base) * climb)
    for row in rows:
        row.values["gpu_memory_total_mb"] = limit
    values = trace.series(NAME)[1]
    # where it ran out, it did so at the end; else the fault is there from where the use stands at its height
    near = [len(rows) - 1] if draw.magnitude == 1 else np.flatnonzero(values >= 0.97 * values.max())
    accepted = ("unfinished-run",) if draw.magnitude == 1 else ()
    size = 1.0 if draw.magnitude == 1 else float(np.median(np.sort(values)[-5:])) / limit
    return Planted(trace, size, rows[int(near[0])].step, metric=NAME, accepted=accepted)


@plants("throughput-drop", families=FAMILIES, formats=NAMED, points=(60, 120, 300, 800), pooled=True)
def throughput_drop(draw: Draw) -> Planted:
    """From one row on every step takes longer, by the clock as well as in the logged throughput."""
    trace = draw.base(speed=True)
    rows = trace.where("train")
    at = draw.place(0.35, 0.7)
    onset, begun = rows[at].step, rows[at].time
    for row in rows[at:]:
        row.values["samples_per_second"] = round(row.values["samples_per_second"] * draw.size, 3)
    for record in (*trace.rows, *trace.events):
        if record.step is not None and record.step >= onset:
            record.time = begun + (record.time - begun) / draw.size
    values = trace.series("samples_per_second")[1]
    found = level(values[at:]) / level(values[2:at])
    return Planted(trace, found, onset, metric="samples_per_second", accepted=("level-shift",))
