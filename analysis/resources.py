"""What a run used: memory that climbs or runs out, and speed that falls and stays low."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from analysis.usage.climb import FEWEST as FEWEST_MEMORY
from analysis.usage.limits import Limit, limits_of
from analysis.usage.memory import Memory, memories_of
from analysis.usage.memory_findings import growth_findings, overflow_findings
from analysis.usage.out_of_memory import OutOfMemory, out_of_memory
from analysis.usage.slowdown import FEWEST as FEWEST_SPEED
from analysis.usage.slowdown import Slowdown, slowdown_and_share
from analysis.usage.speed import Speed, speeds_of
from analysis.usage.speed_findings import slowdown_finding
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Resources", "resources"]

_FRAME = pl.Schema(
    {
        "what": pl.String,
        "rank": pl.Int32,
        "attempt": pl.Int32,
        "split": pl.String,
        "metric": pl.String,
        "unit": pl.String,
        "records": pl.Int64,
        "usual": pl.Float64,
        "peak": pl.Float64,
        "limit": pl.Float64,
        "per_1000": pl.Float64,
        "per_1000_low": pl.Float64,
        "per_1000_high": pl.Float64,
        "changed_at": pl.Int64,
        "before": pl.Float64,
        "after": pl.Float64,
    }
)


@dataclass(frozen=True, eq=False, repr=False)
class Resources(Result):
    """What a run used. `frame` has a row a series: what (memory, throughput, step time, interval), rank, attempt
    (null where all are joined), split, metric, unit, records, usual (median), peak, limit; per_1000, per_1000_low,
    per_1000_high (slope for 1,000 steps, or records where the log has no steps, with its 99 % interval); changed_at
    (step at which a climb or a slowness begins), before and after (levels there; at the end of a climb). Speeds are in
    their unit, of step times the inverse. What was not found is null.

    `memories`, `speeds` and `slowdowns` hold the same with the series behind them.
    """

    memories: tuple[Memory, ...]
    speeds: tuple[Speed, ...]
    slowdowns: tuple[Slowdown | None, ...]

    def plot(self, ax: Axes | None = None, *, what: str | None = None, **options: Any) -> Axes:
        """Memory or speed over steps, what a finding speaks of first; `options` go to the lines.

        `what` is `memory` or `speed` (default: what was found, else what there is); another raises `ValueError`.
        """
        if what not in (None, "memory", "speed"):
            raise ValueError(f"what is {what!r}; it must be 'memory' or 'speed'")
        drawn = axes(ax)
        slow = any(finding.kind == "throughput-drop" for finding in self.findings)
        fuller = any(finding.kind.startswith("memory") for finding in self.findings)
        speed = what == "speed" or (what is None and (slow or not self.memories) and not fuller)
        kinds = ("throughput-drop",) if speed else ("memory-growth", "memory-overflow")
        said = next((f.message for f in self.findings if f.kind in kinds), None)
        with style():
            if speed:
                self._draw_speed(drawn, options)
            else:
                self._draw_memory(drawn, options)
        nothing = "no fall of the speed" if speed else "no growth of memory"
        shown = self.speeds if speed else self.memories
        said = said or (nothing if shown else f"no {'speed' if speed else 'memory'} was recorded")
        drawn.set_title(f"{self.run}: {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn

    def _draw_memory(self, ax: Axes, options: dict[str, Any]) -> None:
        ax.set_xlabel("step" if all(one.counted for one in self.memories) else "record")
        ax.set_ylabel("memory")
        if not self.memories:
            return
        first = max(self.memories, key=lambda one: (one.growth, one.share or 0.0, len(one.value)))
        alike = [one for one in self.memories if one.unit == first.unit and one.counted == first.counted][:6]
        for one in [first, *(one for one in alike if one is not first)][:6]:
            label = f"{one.name[:50]}, rank {one.rank}"
            draw_series(ax, one.step, one.value, **{"label": label, "lw": 0.9, **options})
        if first.climb is not None:
            begin, end = first.step[first.climb.first], first.step[-1]
            levels = [first.climb.level, first.climb.level + first.climb.growth]
            ax.plot([begin, end], levels, "--", color=COLOURS["vermilion"], label="climb")
        if first.limit is not None:
            ax.axhline(first.limit, ls=":", color=COLOURS["vermilion"], label="limit")
        ax.set_ylabel(f"memory ({first.unit.name or 'unit not named'})")
        ax.legend()

    def _draw_speed(self, ax: Axes, options: dict[str, Any]) -> None:
        ax.set_xlabel("step")
        ax.set_ylabel("speed")
        if not self.speeds:
            return
        place = next((i for i, fell in enumerate(self.slowdowns) if fell is not None), 0)
        speed, fell = self.speeds[place], self.slowdowns[place]
        known = bool(np.isfinite(speed.step).all())
        x = speed.step if known else np.arange(float(len(speed.speed)))
        draw_series(ax, x, speed.speed, **{"color": COLOURS["blue"], "lw": 0.9, **options})
        if fell is not None:
            ax.plot([x[fell.since], x[fell.first]], [fell.before] * 2, color=COLOURS["green"], label="before")
            ax.plot([x[fell.first], x[-1]], [fell.after] * 2, color=COLOURS["vermilion"], label="after")
            ax.legend()
        ax.set_xlabel("step" if known else "record")
        unit = f"steps a second (1 / {speed.metric})" if speed.what == "step time" else speed.unit
        ax.set_ylabel(unit[:60], parse_math=False)


@np.errstate(all="ignore")  # numbers near the largest float overflow in sums; that is no news about the run
def resources(
    run: Run,
    *,
    gpu_limit_gb: float | None = None,
    host_limit_gb: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Resources:
    """Whether memory climbs or runs out, and whether the training became slower and stayed so.

    - `memory-growth` (warning from 10 % of its level, or where it meets its limit within the plan or within as many
      steps again; info from 5 %): a series of memory climbs steadily to the end of its longest attempt. Warm-up to a
      plateau, the teeth of a garbage collector, single steps at evaluations and the caching of allocators are no climb.
    - `memory-overflow` (critical where it ended the run; warning; info where a GPU's memory is full and at rest): a
      message says that memory ran out, or a series comes within 5 % of its limit. Limits are read from series and
      settings whose names say so (`gpu_memory_total_gb`), a percentage has 100; `gpu_limit_gb` and `host_limit_gb`
      (GiB, each a positive number, else `ValueError`) say it for series of a device or of the host.
    - `throughput-drop` (warning; info where batches or sequences grew there, or a phase began): speed falls below
      three quarters of what it was and stays there. Read from the throughput, else from the time of a step, else from
      the times between the records of the training. Slow first steps, evaluations, checkpoints, a partial last batch
      and slowness that ended are none.

    Fewer than 24 values of memory, or 30 of speed, are `not_applicable`. Speed is that of the first rank. The rules of
    climb and fall are those of `analysis.usage.climb` and `analysis.usage.slowdown`; their bars do not depend on the
    length of the log. `limits` may set other shares than these.

    >>> from parsers.finish import finish
    >>> leak = {"step": list(range(200)), "value": [8000.0 + 20 * i for i in range(200)]}
    >>> print(resources(finish("r", "r", "jsonl", pl.DataFrame({"tag": ["gpu_mb"] * 200, **leak}))).findings[0].message)
    gpu_mb climbs steadily from 8,000 MB at step 0 to 11,980 MB at 199: 20,000 MB (20,000 to 20,000) per 1,000 steps
    """
    gauge = Gauge(limits)
    ceilings = [*_given(gpu_limit_gb, "gpu"), *_given(host_limit_gb, "host")]
    said = {limit.device for limit in ceilings}
    ceilings += [limit for limit in limits_of(run) if limit.device not in said]
    memories = tuple(memories_of(run, ceilings))
    messages = out_of_memory(run)
    speeds = tuple(speeds_of(run))
    falls = [_fall(speed, gauge) for speed in speeds[:1]]
    slower = [
        f
        for s, fell in zip(speeds, falls, strict=False)
        if fell and (f := slowdown_finding(run, s, fell, limits.of("throughput-drop", s.metric)))
    ]
    findings = [*growth_findings(run, memories, gauge), *overflow_findings(run, memories, messages, gauge), *slower]
    return Resources(
        run=run.name,
        frame=_frame(memories, speeds[:1], falls if slower else [None for _ in falls]),
        findings=tuple(findings),
        not_applicable=tuple(_reasons(memories, messages, speeds)),
        measures=gauge.measures,
        memories=memories,
        speeds=speeds[:1],
        slowdowns=tuple(falls if slower else [None for _ in falls]),
    )


def _fall(speed: Speed, gauge: Gauge) -> Slowdown | None:
    fell, left = slowdown_and_share(speed.speed, gauge.limits.of("throughput-drop", speed.metric))
    gauge.keep("throughput-drop", left, speed.metric)
    return fell


def _given(gigabytes: float | None, device: str) -> Iterator[Limit]:
    if gigabytes is None:
        return
    if isinstance(gigabytes, bool) or not isinstance(gigabytes, int | float) or not 0 < gigabytes < float("inf"):
        raise ValueError(f"{device}_limit_gb is {gigabytes!r}; it must be a positive number of GiB")
    yield Limit(gigabytes * 2.0**30, device, f"{device}_limit_gb")


def _reasons(
    memories: Sequence[Memory], messages: Sequence[OutOfMemory], speeds: Sequence[Speed]
) -> Iterator[NotApplicable]:
    longest = max((len(one.value) for one in memories), default=0)
    if not memories:
        yield NotApplicable("memory-growth", "no memory in use is recorded")
    elif longest < FEWEST_MEMORY:
        reason = f"the longest series of memory has {longest} values; {FEWEST_MEMORY} are needed to tell a climb"
        yield NotApplicable("memory-growth", reason)
    if not messages and all(one.limit is None for one in memories):
        what = "no limit of the memory is known" if memories else "no memory in use is recorded"
        yield NotApplicable("memory-overflow", f"{what}, and no message says that memory ran out")
    if not speeds:
        yield NotApplicable("throughput-drop", f"no throughput, step time or clock with {FEWEST_SPEED} values or more")


def _frame(memories: Sequence[Memory], speeds: Sequence[Speed], falls: Sequence[Slowdown | None]) -> pl.DataFrame:
    rows = [_memory_row(one) for one in memories]
    rows += [_speed_row(speed, fell) for speed, fell in zip(speeds, falls, strict=True)]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")


def _memory_row(one: Memory) -> tuple[Any, ...]:
    where = ("memory", one.rank, one.attempt, one.split, one.metric, one.unit.name or None, len(one.value))
    climb: tuple[Any, ...] = (None,) * 6
    if one.climb is not None:
        slopes = (one.climb.slope.slope, one.climb.slope.low, one.climb.slope.high)
        begin = int(one.step[one.climb.first]) if one.counted else None
        climb = (*(1000.0 * slope for slope in slopes), begin, one.climb.level, one.climb.level + one.climb.growth)
    return (*where, one.usual, one.peak, one.limit, *climb)


def _speed_row(speed: Speed, fell: Slowdown | None) -> tuple[Any, ...]:
    where = (speed.what, None, None, speed.split, speed.metric, speed.unit, len(speed.speed))
    levels = (float(np.median(speed.speed)), float(speed.speed.max()), None, None, None, None)
    if fell is None:
        return (*where, *levels, None, None, None)
    step = speed.step[fell.first]
    return (*where, *levels, int(step) if np.isfinite(step) else None, fell.before, fell.after)
