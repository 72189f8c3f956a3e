"""Whether the several logs of a run (event files, CSV, trainer_state.json, ...) tell the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, style
from analysis.findings import Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from parsers.run import COMPARED, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Sources", "sources"]

_FRAME = pl.Schema([("path", pl.String), ("format", pl.String), *COMPARED.items()])
#: Most findings of one run: further series are counted in the last.
_MOST = 10


@dataclass(frozen=True, eq=False, repr=False)
class Sources(Result):
    """How far the logs of a run agree. `frame` has one row a log and series that an earlier log of the run holds too:
    path and format of the log; split, metric and tag as the earlier log has them, other_tag as this one has it;
    compared (numbers at the same step), differing, first_step, value and other_value (of the first that differs),
    ratio, shift, hidden, tells, finer (`parsers.run.COMPARED`). Empty where the run has one log.
    """

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The share of numbers that differ, one bar a series and log, the worst 20; `options` go to the bars."""
        drawn = axes(ax)
        share = (pl.col("differing") / pl.col("compared")).alias("share")
        worst = self.frame.with_columns(share).sort("share", descending=True).head(20).reverse()
        with style():
            places = np.arange(worst.height)
            drawn.barh(places, worst["share"].to_numpy() * 100, **{"color": COLOURS["vermilion"], **options})
            drawn.set_yticks(places, [f"{tag} in {form}" for tag, form in worst.select("other_tag", "format").rows()])
        drawn.set_xlim(0, 100)
        drawn.set_xlabel("numbers that differ (%)")
        told = f"all {self.frame['compared'].sum():,} shared numbers agree" if self.frame.height else "one log only"
        drawn.set_title(
            f"{self.run}: {self.findings[0].message if self.findings else told}"[:100],
            parse_math=False, loc="left", fontsize=11,
        )  # fmt: skip
        return drawn


def sources(run: Run, *, limits: Limits = DEFAULT_LIMITS) -> Sources:
    """Where logs of one run tell different numbers at the same step, from the comparison made when they were joined.

    Numbers are the same when they differ by no more than half of the last digit printed, or than single precision.
    A warning needs 1 % of a series to differ (`limits` may set another share), or a number that is NaN or infinite in
    one log and finite in another; less is info. Where one factor or a shift by one or two records explains the
    difference, the finding says so.

    A run of one log is `not_applicable`; so are logs that share no series.

    >>> from parsers.finish import finish
    >>> print(sources(finish("r", "r.csv", "csv")).not_applicable[0].reason)
    the run has one log, nothing to compare it with
    """
    parts = [
        source.against.with_columns(path=pl.lit(source.path), format=pl.lit(source.format)).select(_FRAME.names())
        for source in run.sources
        if source.against.height
    ]
    frame = pl.concat(parts) if parts else _FRAME.to_frame()
    reasons = []
    if frame.is_empty():
        many = f"the {len(run.sources)} logs of the run share no series and step"
        why = many if run.sources else "the run has one log, nothing to compare it with"
        reasons.append(NotApplicable("source-disagreement", why))
    gauge = Gauge(limits)
    for metric, share in frame.select("metric", pl.col("differing") / pl.col("compared")).iter_rows():
        gauge.keep("source-disagreement", share, metric)
    return Sources(
        run=run.name,
        frame=frame,
        findings=tuple(_findings(run, frame, limits)),
        not_applicable=tuple(reasons),
        measures=gauge.measures,
    )


def _findings(run: Run, frame: pl.DataFrame, limits: Limits) -> Iterator[Finding]:
    apart = frame.filter(pl.col("differing") > 0)
    apart = apart.sort(pl.col("hidden") > 0, pl.col("differing") / pl.col("compared"), descending=True)
    first = run.sources[0] if run.sources else None
    for row in apart.head(_MOST).iter_rows(named=True):
        limit = limits.of("source-disagreement", row["metric"])
        yield _finding(run, row, first.path if first else "", apart.height - _MOST, limit)


def _finding(run: Run, row: dict[str, Any], first: str, more: int, limit: float) -> Finding:
    share = row["differing"] / row["compared"]
    step = "" if row["first_step"] is None else f", first at step {row['first_step']:,}"
    hidden = f"; NaN or infinite in one log only: {row['hidden']:,}" if row["hidden"] else ""
    causes, suggestions = _explained(row)
    return Finding(
        "source-disagreement",
        "warning" if share >= limit or row["hidden"] else "info",
        run.name,
        f"{row['tag']}: {row['differing']:,} of {row['compared']:,} numbers differ between the logs of the run{step} "
        f"({row['value']:.6g} and, in the {row['format']} log, {row['other_value']:.6g}){hidden}",
        metric=row["metric"],
        first_step=row["first_step"],
        evidence={
            "compared": row["compared"], "differing": row["differing"], "share": share, "limit": limit,
            "value": row["value"],
            "other_value": row["other_value"], "ratio": row["ratio"], "shift": row["shift"], "hidden": row["hidden"],
            "log": _below(first, run.path), "other_log": _below(row["path"], run.path), "further_series": max(more, 0),
        },
        causes=causes,
        suggestions=suggestions,
    )  # fmt: skip


def _below(path: str, folder: str) -> str:
    """A path as it stands in the run's folder."""
    return path.removeprefix(folder).lstrip("/\\") or path


def _explained(row: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Causes that the numbers support, and what to do."""
    if row["hidden"]:
        return (
            (f"one writer replaces or leaves out numbers that are not finite ({row['hidden']:,} here)",),
            ("believe the log that shows NaN", "turn off the filter of the other (logging_nan_inf_filter=False)"),
        )
    if row["shift"] is not None:
        return (
            (f"the logs agree when one is moved by {abs(row['shift'])} records: they count steps differently",),
            ("count steps in one place, and hand that number to every logger",),
        )
    if row["ratio"] is not None:
        return (
            (f"every number is {row['ratio']:.4g} x the other's: a sum against a mean, or one log scaled by the "
             "accumulation steps, the world size or a loss weight",),
            ("find out which of the two is the loss that is minimised, and log that one",),
        )  # fmt: skip
    return (
        ("one log holds single steps and the other means over an interval, or they belong to different trainings",),
        ("look at the first step that differs in both logs", "keep each training in a folder of its own"),
    )
