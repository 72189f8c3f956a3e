"""What the numbers of memory mean, in words: growth, a limit near, memory that ran out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import polars as pl

from analysis.findings import Finding, Severity
from analysis.limits import Gauge, Limits
from analysis.usage.limits import device_of, number, shown
from analysis.usage.memory import NEAR, Memory
from analysis.usage.out_of_memory import OutOfMemory
from parsers.run import Run

__all__ = ["growth_findings", "overflow_findings"]

#: Growth worth a warning where the limit is at its default, as a share of the level where the climb begins; below 16 MB
#: it is nobody's concern, whatever it is a share of.
_WARNING, _LEAST_BYTES = 0.10, 16 * 2.0**20
#: Where the climb is of so much with evaluations in so few intervals, it comes with them.
_WITH_EVALUATION, _FEW_INTERVALS = 0.6, 0.4
#: At this share of the limit there is no room for the next batch (where the limit of the kind is at its default).
_FULL = 0.99
#: From this share of its peak on, a series is at its height.
_NEAR_PEAK = 0.97
#: A series that reached its height by the middle of the run, to within this share, has come to rest.
_AT_REST = 1.005


def growth_findings(run: Run, memories: Sequence[Memory], gauge: Gauge) -> Iterator[Finding]:
    """One finding a metric whose memory climbs, about the rank that climbs most."""
    for one in memories:
        if one.judged:
            gauge.keep("memory-growth", one.growth if _counts(one) else 0.0, one.metric)
    climbing = [one for one in memories if one.climb is not None and _matters(one, gauge.limits)]
    for metric, found in groupby(sorted(climbing, key=lambda one: one.name), key=lambda one: one.name):
        ranks = sorted(found, key=lambda one: -one.growth)
        everywhere = len([one for one in memories if one.name == metric])
        yield _growth(run, ranks[0], len(ranks), everywhere, gauge.limits)


def _counts(one: Memory) -> bool:
    """Whether a climb is of so many bytes that anybody cares, as far as its unit is known."""
    return one.unit.factor is None or one.climb is None or one.climb.growth * one.unit.factor >= _LEAST_BYTES


def _matters(one: Memory, limits: Limits) -> bool:
    return _counts(one) and one.growth >= limits.of("memory-growth", one.metric)


def _growth(run: Run, one: Memory, ranks: int, everywhere: int, limits: Limits) -> Finding:
    assert one.climb is not None
    climb, meets = one.climb, one.meets_limit
    planned = _planned(run)
    comes = meets is not None and meets <= max(planned, one.step[-1] + (one.step[-1] - one.step[climb.first]))
    severity: Severity = (
        "warning" if one.growth >= _WARNING * limits.scale("memory-growth", one.metric) or comes else "info"
    )
    count, axis = 1000.0, "steps" if one.counted else "records"
    per = [count * slope for slope in (climb.slope.slope, climb.slope.low, climb.slope.high)]
    end = f"; it meets the limit of {shown(one.limit or 0, one.unit)} at step {meets:,}" if meets is not None else ""
    first, last = int(one.step[climb.first]), int(one.step[-1])
    return Finding(
        "memory-growth",
        severity,
        run.name,
        f"{one.name} climbs steadily from {shown(climb.level, one.unit)} at {axis[:-1]} {first:,} to "
        f"{shown(climb.level + climb.growth, one.unit)} at {last:,}: {shown(per[0], one.unit)} "
        f"({number(per[1])} to {number(per[2])}) per 1,000 {axis}{end if one.counted else ''}",
        metric=one.metric,
        first_step=first if one.counted else None,
        last_step=last if one.counted else None,
        evidence={
            "rank": one.rank,
            "ranks_climbing": ranks,
            "ranks_measured": everywhere,
            "unit": one.unit.name or "unknown",
            "level_before": climb.level,
            "level_after": climb.level + climb.growth,
            "growth_share": one.growth,
            "share_limit": limits.of("memory-growth", one.metric),
            f"per_1000_{axis}": per[0],
            f"per_1000_{axis}_low": per[1],
            f"per_1000_{axis}_high": per[2],
            "kendall_tau": climb.slope.tau,
            "limit": one.limit,
            "limit_from": one.limit_from or None,
            "meets_limit_at_step": meets if one.counted else None,
            "planned_steps": planned or None,
        },
        causes=(*_growth_causes(run, one), *_everywhere(ranks, everywhere)),
        suggestions=_growth_suggestions(one),
    )


def _planned(run: Run) -> int:
    """Steps that the run was meant to take; 0 where it does not say."""
    for settings in (run.plan, run.config):
        found = settings.get("max_steps")
        if isinstance(found, int | float) and 0 < found < 2**62:
            return int(found)
    return 0


def _growth_causes(run: Run, one: Memory) -> Iterator[str]:
    assert one.climb is not None
    share = _with_evaluation(run, one)
    if share is not None:
        yield f"{share:.0%} of the growth falls on intervals with an evaluation: what that collects is kept"
        return
    tau = one.climb.slope.tau
    rises = f"it rises in nearly every stretch (Kendall's tau {tau:.2f})"
    if device_of(one.metric) == "gpu":
        yield f"{rises}: tensors kept over steps, as a loss that is added up without .item() keeps its graph"
    elif device_of(one.metric) == "host":
        yield f"{rises}: objects kept over steps (lists of results, caches), or workers of the data loader that grow"
    else:
        yield f"{rises}: something is kept at each step; the name does not tell whether on the host or on a device"


def _with_evaluation(run: Run, one: Memory) -> float | None:
    """Share of the growth in intervals in which an evaluation lies, where few have one and the growth is theirs."""
    assert one.climb is not None
    sides = run.catalogue.filter(~pl.col("split").is_in(["", "train"]) & (pl.col("count") >= 3))
    if sides.is_empty() or not one.counted:
        return None
    row = sides.sort("count", descending=True).row(0, named=True)
    steps = run.series(row["metric"], split=row["split"])["step"].drop_nulls().unique().sort().to_numpy()
    x, y = one.step[one.climb.first :], one.value[one.climb.first :]
    inside = np.searchsorted(steps, x[1:], side="right") > np.searchsorted(steps, x[:-1])
    if not 0 < inside.mean() <= _FEW_INTERVALS:
        return None
    share = float(np.diff(y)[inside].sum() / (y[-1] - y[0])) if y[-1] > y[0] else 0.0
    return min(share, 1.0) if share >= _WITH_EVALUATION else None


def _everywhere(ranks: int, everywhere: int) -> tuple[str, ...]:
    if everywhere < 2:
        return ()
    if ranks == everywhere:
        return (f"all {everywhere} ranks climb: it is in what all of them run",)
    return (f"{ranks} of {everywhere} ranks climb: look at what only these do (logging, evaluation, saving)",)


def _growth_suggestions(one: Memory) -> tuple[str, ...]:
    if device_of(one.metric) == "gpu":
        first = "look for tensors kept over steps: sum losses with .item() or .detach(), empty lists of outputs"
        return (first, "compare two torch.cuda.memory snapshots 100 steps apart", "call zero_grad(set_to_none=True)")
    return (
        "compare two tracemalloc snapshots 100 steps apart",
        "run with num_workers=0: growth that vanishes is in the workers (Python objects copied on reference counts)",
        "keep results as arrays or on disk, and empty lists after each evaluation",
    )


def overflow_findings(
    run: Run, memories: Sequence[Memory], told: Sequence[OutOfMemory], gauge: Gauge
) -> Iterator[Finding]:
    """Memory that ran out, by what was said; and series within a twentieth of their limit, the fullest of each name."""
    if told:
        yield _ran_out(run, memories, told, gauge.limits)
    near = [
        one for one in memories if one.share is not None and gauge.reaches("memory-overflow", one.share, one.metric)
    ]
    for _, found in groupby(sorted(near, key=lambda one: one.name), key=lambda one: one.name):
        yield _near(run, max(found, key=lambda one: one.share or 0.0), gauge.limits)


def _ran_out(run: Run, memories: Sequence[Memory], told: Sequence[OutOfMemory], limits: Limits) -> Finding:
    worst = next((one for one in told if one.final), told[0])
    ended = "and the run ended" if worst.final else "and the run went on, as far as the log tells"
    where = f" at step {worst.step:,}" if worst.step is not None else ""
    times = f" ({len(told)} times)" if len(told) > 1 else ""
    fullest = max((one for one in memories if one.share is not None), key=lambda one: one.share or 0.0, default=None)
    climbing = [one for one in memories if one.climb is not None and _matters(one, limits)]
    causes = [f"{one.name} grew by {one.growth:.0%} before: memory leaks" for one in climbing[:2]]
    if not climbing and any(one.judged for one in memories):
        longest = max(memories, key=lambda one: len(one.value))
        level = f"{longest.name} kept its level (peak {shown(longest.peak, longest.unit)})"
        causes.append(f"{level}: one batch or an evaluation asked for more than there was")
    elif not climbing:
        causes.append("cannot tell a leak from a batch too large in this log; record the memory of each step to know")
    return Finding(
        "memory-overflow",
        "critical" if worst.final else "warning",
        run.name,
        f"memory ran out on rank {worst.rank}{where}{times}, {ended}: {worst.text[:120]}",
        first_step=min((one.step for one in told if one.step is not None), default=None),
        last_step=max((one.step for one in told if one.step is not None), default=None),
        evidence={
            "messages": len(told),
            "said_by": worst.kind,
            "rank": worst.rank,
            "ranks": len({one.rank for one in told}),
            "final": worst.final,
            "text": worst.text,
            "peak_share_of_limit": None if fullest is None else fullest.share,
        },
        causes=tuple(causes),
        suggestions=(
            "halve the batch and accumulate over two, or turn on activation checkpointing",
            "bound the longest sample (sort by length, cut, or count tokens instead of samples in a batch)",
            "evaluate with a smaller batch and under no_grad",
        ),
    )


def _near(run: Run, one: Memory, limits: Limits) -> Finding:
    assert one.limit is not None and one.share is not None
    # the use is near the limit from the first time on that it is as high as it will be, but for an allocator's steps
    near = int(np.argmax(one.value >= max(_NEAR_PEAK * one.peak, limits.of("memory-overflow", one.metric) * one.limit)))
    middle = len(one.value) // 2
    rests = one.value[:middle].max(initial=-np.inf) * _AT_REST >= one.peak
    device = device_of(one.metric) == "gpu"
    limit = limits.of("memory-overflow", one.metric)
    full = one.share >= 1 - (1 - _FULL) * (1 - limit) / (1 - NEAR) and not device
    severity: Severity = "warning" if full or not rests else "info"
    grown = "it stood there by the middle of the run" if rests else "and its peak rose in the second half of the run"
    held = "allocators keep what they once took" if device else "the host may begin to swap, or kill the process"
    return Finding(
        "memory-overflow",
        severity,
        run.name,
        f"{one.name} reached {shown(one.peak, one.unit)}, {one.share:.1%} of its limit "
        f"({shown(one.limit, one.unit)}, from {one.limit_from}); {grown}",
        metric=one.metric,
        first_step=int(one.step[near]) if one.counted else None,
        evidence={
            "peak": one.peak,
            "usual": one.usual,
            "limit": one.limit,
            "share": one.share,
            "share_limit": limit,
            "unit": one.unit.name or "unknown",
            "limit_from": one.limit_from,
            "rank": one.rank,
            "at_rest": bool(rests),
        },
        causes=(f"{'at rest' if rests else 'still rising'} at {one.share:.1%} of the limit: {held}",),
        suggestions=(
            "leave a tenth of the memory free: a smaller batch, or activation checkpointing",
            "record reserved and allocated memory apart, and the longest sample of each batch",
        ),
    )
