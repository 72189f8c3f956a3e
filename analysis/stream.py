"""Whether the log itself is whole: cut or unreadable parts, missing steps, a counter or clock gone back, stalls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import NotApplicable
from analysis.hidden.facts import read_series
from analysis.hidden.sampled import SIZES, sample_of
from analysis.integrity.between_attempts import Gap, gaps_between, judge_gaps
from analysis.integrity.rhythm import (
    ABSURD_S,
    holes_of,
    pauses_of,
    pauses_without_reason,
    times_usual,
    usual_interval,
    usual_step,
)
from analysis.integrity.set_back import set_back
from analysis.integrity.stream_findings import Part, judge_parts, truncation
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Stream", "stream"]

_FRAME = pl.Schema(
    {
        "rank": pl.Int32,
        "attempt": pl.Int32,
        "split": pl.String,
        "tag": pl.String,
        "records": pl.Int64,
        "first_step": pl.Int64,
        "last_step": pl.Int64,
        "every": pl.Int64,
        "missing": pl.Int64,
        "missing_before": pl.Int64,
        "steps_back": pl.Int64,
        "usual_interval_s": pl.Float64,
        "longest_interval_s": pl.Float64,
        "clock_jumps": pl.Int64,
        "stalls": pl.Int64,
    }
)
#: Events at which a training pauses by its nature.
_PAUSING = ("checkpoint", "samples", "embeddings")
#: More missing steps than this are not looked up in other series one by one.
_MOST_LOOKED_UP = 100_000


@dataclass(frozen=True, eq=False, repr=False)
class Stream(Result):
    """The log's integrity. `frame` has one row a rank, attempt and split, about its longest series: tag, records,
    first_step, last_step, every (usual steps between records, null where irregular), missing (steps in holes, null
    where irregular), missing_before (those between the end of the attempts before and this one's first step),
    steps_back (times the step fell), usual_interval_s, longest_interval_s (null without times), clock_jumps (times the
    clock fell by over a second or leapt 30 days), stalls.

    `parts` are the same with the places behind the numbers.
    """

    parts: tuple[Part, ...]

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Seconds between records over steps, one line a part (record numbers without times); stalls marked.

        `options` go to the lines.
        """
        drawn = axes(ax)
        timed = any(len(part.seconds) for part in self.parts)
        with style():
            for part in self.parts[:6]:
                x, y = (
                    (part.starts, part.seconds)
                    if timed
                    else (np.arange(float(part.records)), part.steps.astype(np.float64))
                )
                label = f"{part.split or 'log'}, rank {part.rank}, attempt {part.attempt}"
                draw_series(drawn, x[: len(y)], y[: len(x)], **{"label": label, "lw": 0.9, **options})
                for place in part.stalls if timed else ():
                    drawn.plot([x[place]], [y[place]], "v", color=COLOURS["vermilion"])
            if self.parts:
                drawn.legend()
        drawn.set_xlabel("step" if timed else "record")
        drawn.set_ylabel("seconds to the next record" if timed else "step")
        whole = "the log is whole" if self.parts else "no number was recorded"
        drawn.set_title(
            f"{self.run}: {self.findings[0].message if self.findings else whole}"[:100],
            parse_math=False,
            loc="left",
            fontsize=11,
        )
        return drawn


def stream(run: Run, *, limits: Limits = DEFAULT_LIMITS) -> Stream:
    """Whether the log is whole, from its rejects, its end, and the steps and times of its longest series.

    For each rank and split the longest series stands for all, and each attempt is judged for itself, and by the step at
    which those before it ended. The log's own rhythm is the standard: steps are missing where four of five intervals
    agree and one is longer, unless only a random sample of the series is left (`sampled-series`); a stall is an
    interval over a minute, over 30 usual ones and over twice what the slowest of a heavy tail reaches, with no
    evaluation or checkpoint in it, or one that is over as soon elsewhere. Regular gaps and pauses are habits and
    silent, as is the first interval. Lines that cannot be read count by their share: info below 1 %, warning from
    there, critical from 20 %. `limits` set others than the defaults for missing-steps, clock-skew and stall.

    Without steps or times the kinds concerned are `not_applicable`; repeated steps are no fault. Time grows linearly
    with the length of these series only.

    >>> from parsers.finish import finish
    >>> steps = [s for s in range(0, 1000, 10) if not 400 <= s < 600]
    >>> rows = pl.DataFrame({"tag": ["loss"] * len(steps), "step": steps, "value": [1.0] * len(steps)})
    >>> print(stream(finish("r", "r.jsonl", "jsonl", rows)).findings[0].message)
    20 of 100 steps that a record every 10 steps promises are missing, the largest hole from 390 to 600
    """
    gauge = Gauge(limits)
    parts = tuple(_parts(run, gauge))
    gaps = list(gaps_between(parts, lambda part, before, after: _logged(run, part, before, after)))
    findings = [
        *truncation(run, sum(part.records for part in parts)),
        *judge_parts(run.name, parts, gauge),
        *judge_gaps(run.name, gaps, limits.scale("missing-steps")),
        *set_back(run, parts),
    ]
    reasons: list[NotApplicable] = []
    if not any(part.every for part in parts):
        reason = "no series of 10 or more records keeps a rhythm of steps"
        if any(part.sampled for part in parts):
            reason = "only a random sample of the records is left: which others were logged cannot be told"
        reasons += [] if _told(findings, "missing-steps") else [NotApplicable("missing-steps", reason)]
    if not any(len(part.steps) for part in parts):
        reasons.append(NotApplicable("step-regression", "the log has no steps"))
    if not any(len(part.seconds) for part in parts):
        reasons += [NotApplicable(kind, "the log has no times") for kind in ("clock-skew", "stall")]
    return Stream(
        run=run.name,
        frame=_frame(parts, gaps),
        findings=tuple(findings),
        not_applicable=tuple(reasons),
        measures=gauge.measures,
        parts=parts,
    )


def _told(findings: list[Any], kind: str) -> bool:
    return any(finding.kind == kind for finding in findings)


def _parts(run: Run, gauge: Gauge) -> Iterator[Part]:
    first_logs = run.catalogue.filter(~_beside(pl.col("metric"), run))
    longest = first_logs.sort("count", descending=True).unique(["rank", "split"], keep="first", maintain_order=True)
    marks: dict[int, list[NDArray[np.float64]]] = {}
    for row in longest.sort("rank", "split").iter_rows(named=True):
        rank, split, tag = row["rank"], row["split"], row["tag"]
        here = (pl.col("rank") == rank) & (pl.col("split") == split)
        series = here & (pl.col("tag") == tag) & ~_beside(pl.col("metric"), run)
        rows = run.lazy().filter(series).select("attempt", "step", "time").collect()
        sampled = _is_sample(run, row)
        if rank not in marks:
            marks[rank] = _marks(run, rank, longest)
        for (attempt,), part in rows.group_by("attempt", maintain_order=True):
            pausing = marks[rank] if split in ("", "train") else []
            yield _part(run, int(str(attempt)), row, part, pausing, sampled, gauge)


def _beside(metric: pl.Expr, run: Run) -> pl.Expr:
    """Whether a series is one that disagrees with another log of the run, which stands beside it with the same tag."""
    names = [f"{Path(source.path).name}/" for source in run.sources[1:]]
    return pl.any_horizontal([pl.lit(False), *(metric.str.starts_with(name) for name in names)])


def _marks(run: Run, rank: int, longest: pl.DataFrame) -> list[NDArray[np.float64]]:
    """Sorted steps at which this rank saved, sampled, and evaluated each split."""
    told = run.events.filter(pl.col("kind").is_in(_PAUSING) & (pl.col("rank") == rank) & pl.col("step").is_not_null())
    steps = [told.filter(pl.col("kind") == kind)["step"].cast(pl.Float64).to_numpy() for kind in _PAUSING]
    for row in longest.filter((pl.col("rank") == rank) & ~pl.col("split").is_in(["", "train"])).iter_rows(named=True):
        here = (pl.col("rank") == rank) & (pl.col("split") == row["split"]) & (pl.col("tag") == row["tag"])
        found = run.lazy().filter(here).select("step").collect()["step"].drop_nulls()
        steps.append(found.cast(pl.Float64).to_numpy())
    return [np.sort(one) for one in steps if len(one)]


def _is_sample(run: Run, row: dict[str, Any]) -> bool:
    """Whether a tool that keeps so many points left a random sample of the series, as `hidden_facts` tells it."""
    if row["count"] not in SIZES:
        return False
    series = read_series(run, row)
    return series.axis == "step" and sample_of(series.step.astype(np.int64)) is not None


def _logged(run: Run, part: Part, before: int, after: int) -> NDArray[np.int64]:
    """Steps between two that any series of the part's rank and split has."""
    here = (pl.col("rank") == part.rank) & (pl.col("split") == part.split)
    between = pl.col("step").is_between(before, after, closed="none")
    return run.lazy().filter(here & between).select(pl.col("step").unique()).collect()["step"].to_numpy()


def _part(
    run: Run,
    attempt: int,
    row: dict[str, Any],
    rows: pl.DataFrame,
    marks: Sequence[NDArray[np.float64]],
    sampled: bool,
    gauge: Gauge,
) -> Part:
    steps = rows["step"].to_numpy() if rows["step"].null_count() == 0 else np.empty(0, np.int64)
    every = None if sampled else usual_step(steps)
    before, after = holes_of(steps, every) if every else (steps[:0], steps[:0])
    if len(before) and every:
        before, after = _really_missing(run, row, before, after, every)
    seconds = np.empty(0)
    if rows["time"].null_count() == 0 and rows.height > 1:
        seconds = np.diff(rows["time"].dt.timestamp("us").to_numpy()) / 1e6
    ends = steps.astype(np.float64) if len(steps) else np.arange(float(rows.height))
    ahead = np.diff(ends) / every if every else np.ones(max(rows.height - 1, 0))
    limit = gauge.limits.of("stall")
    pauses = pauses_of(seconds, ahead, limit) if len(seconds) else np.empty(0, np.int64)
    stalls = pauses_without_reason(pauses, seconds, ends[:-1], ends[1:], marks, limit)
    times = _measured(gauge, seconds, ahead, np.setdiff1d(pauses, stalls))
    return Part(
        rank=int(row["rank"]),
        attempt=attempt,
        split=str(row["split"]),
        tag=str(row["tag"]),
        records=rows.height,
        steps=steps,
        every=every,
        before=before,
        after=after,
        backward=np.flatnonzero(np.diff(steps) < 0),
        seconds=seconds,
        starts=ends[: len(seconds)],
        usual_s=usual_interval(seconds),
        jumps=np.flatnonzero((seconds < -gauge.limits.of("clock-skew")) | (seconds >= ABSURD_S)),
        stalls=stalls,
        sampled=sampled,
        times=times,
    )


def _measured(
    gauge: Gauge, seconds: NDArray[np.float64], ahead: NDArray[np.float64], excused: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How many usual intervals each is long. The longest without a reason is kept, and how far the clock went back."""
    if len(seconds) == 0:
        return seconds
    times = times_usual(seconds, ahead)
    gauge.keep("stall", float(np.delete(times, excused).max(initial=0.0)))
    gauge.keep("clock-skew", max(0.0, -float(seconds.min())))
    return times


def _really_missing(
    run: Run, row: dict[str, Any], before: NDArray[np.int64], after: NDArray[np.int64], every: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Holes that no other series of the same rank and split fills: a metric may be left out where the log goes on."""
    if int((after - before).sum()) // every > _MOST_LOOKED_UP:
        return before, after
    wanted = np.concatenate([np.arange(b + every, a, every) for b, a in zip(before, after, strict=True)])
    here = (pl.col("rank") == row["rank"]) & (pl.col("split") == row["split"]) & pl.col("step").is_in(wanted.tolist())
    there = run.lazy().filter(here).select(pl.col("step").unique()).collect()["step"].to_numpy()
    filled = np.array(
        [np.isin(np.arange(b + every, a, every), there).all() for b, a in zip(before, after, strict=True)]
    )
    return before[~filled], after[~filled]


def _frame(parts: tuple[Part, ...], gaps: list[Gap]) -> pl.DataFrame:
    lost = {gap.part: gap.missing for gap in gaps}
    rows = [
        (
            part.rank,
            part.attempt,
            part.split,
            part.tag,
            part.records,
            int(part.steps.min()) if len(part.steps) else None,
            int(part.steps.max()) if len(part.steps) else None,
            part.every,
            part.missing,
            None if part.every is None else lost.get(part, 0),
            len(part.backward),
            part.usual_s,
            float(part.seconds.max()) if len(part.seconds) else None,
            len(part.jumps),
            len(part.stalls),
        )
        for part in parts
    ]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")
