"""Whether all processes of a job are there to the end, and whether they agree where they should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import axes, draw_series, style
from analysis.findings import Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.processes.agreement import Agreement, Parting, agreement_of, own_level
from analysis.processes.common_steps import COMPARED, PACED, Common, common_series
from analysis.processes.presence import Process, absence_of, processes_of, stops_of, world_size
from analysis.processes.rank_findings import absent_finding, parting_findings, slower_finding, stop_findings
from analysis.result import Result
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Ranks", "ranks"]

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "rank": pl.Int32,
    "attempt": pl.Int32,
    "records": pl.Int64,
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "ended": pl.Datetime("us", "UTC"),
    "steps_behind": pl.Int64,
    "seconds_behind": pl.Float64,
    "apart_in": pl.List(pl.String),
}
_FRAME = pl.Schema(_COLUMNS)
#: Series that shards of a model have each its own of, and whose level says nothing about the others.
_OF_SHARDS = ("param_norm", "checksum", "learning_rate")


@dataclass(frozen=True, eq=False, repr=False)
class Ranks(Result):
    """The processes of a job. `frame` has a row a rank: rank, attempt (its last), records (of its longest series),
    first_step, last_step, ended (its last time), steps_behind and seconds_behind (its last record before that of the
    others; null where it did not stop early), apart_in (metrics in which it left the others).

    `processes` and `compared` (each series with its agreement) hold the same with the numbers behind them.
    """

    processes: tuple[Process, ...]
    compared: tuple[tuple[Common, Agreement], ...]

    def plot(self, ax: Axes | None = None, *, metric: str | None = None, **options: Any) -> Axes:
        """A compared series of every rank over steps, or without one the last step of each; `options` go to the lines.

        `metric` chooses it (default the first in which ranks came apart); one that was not compared raises
        `ValueError` with the known names.
        """
        known = {common.metric: common for common, _ in reversed(self.compared)}
        if metric is not None and metric not in known:
            listed_names = ", ".join(sorted(known)) or "none"
            raise ValueError(f"metric {metric!r} was not compared between ranks; compared were: {listed_names}")
        drawn = axes(ax)
        first = next((common for common, found in self.compared if found.partings), None)
        chosen = known[metric] if metric is not None else first or next(iter(known.values()), None)
        kind = "rank-divergence" if chosen is not None else "rank-missing"
        said = next(
            (f.message for f in self.findings if f.kind == kind and f.metric in (None, metric or f.metric)), None
        )
        with style():
            if chosen is None or (metric is None and first is None and self.findings):
                self._draw_steps(drawn)
                said = self.findings[0].message if self.findings else said
            else:
                for rank, values in list(zip(chosen.ranks, chosen.values.T, strict=True))[:16]:
                    draw_series(
                        drawn, chosen.step.astype(float), values, **{"label": f"rank {rank}", "lw": 0.9, **options}
                    )
                drawn.set_xlabel("step")
                drawn.set_ylabel(chosen.name[:60], parse_math=False)
                drawn.legend()
        said = said or ("the ranks agree" if self.compared else "one rank, or nothing to compare")
        drawn.set_title(f"{self.run}: {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn

    def _draw_steps(self, ax: Axes) -> None:
        shown = [p for p in self.processes if p.last_step is not None]
        ax.barh([str(p.rank) for p in shown], [float(p.last_step or 0) for p in shown])
        ax.set_xlabel("last step")
        ax.set_ylabel("rank")


@np.errstate(all="ignore")  # numbers near the largest float overflow in sums; that is no news about the run
def ranks(run: Run, *, world_size_is: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Ranks:
    """Whether every process of a job logged to the end, and whether they agree where they should.

    - `rank-missing` (warning; info where it is doubtful or slight): a rank left no log although the settings
      (`world_size`, `num_processes`, or `world_size_is`) or the numbers of the others promise it; a rank's last record
      lies more than three records before that of the others (warning from ten), or it took no part in the last attempt.
      Ranks at equal distances are one process a node and whole.
    - `rank-divergence` at common steps: learning rates, norms and checksums of parameters and gradient norms that were
      the same on all ranks to rounding and come apart for good, or on which the same minority never agrees (critical);
      the same of a reduced loss (warning). Losses and gradient norms that are each rank's own differ by noise: a rank
      whose level leaves the others' by a fifth and beyond chance in the course of the run is a warning, one that was
      off from the beginning or scatters three times as far information, as is a rank that is a fifth slower. NaN on
      some ranks alone is a warning. Shards of a model (FSDP, tensor parallel) have numbers of their own and are silent.

    A run with one rank is `not_applicable`: most trainers log on one. The same holds without steps that two ranks have
    in common (ten, for their own losses thirty). `world_size_is` below 1 raises `ValueError`. `limits` may set another
    difference than a fifth.

    >>> from parsers.finish import finish
    >>> rows = {"tag": ["lr"] * 80, "step": [*range(40)] * 2, "rank": [0] * 40 + [1] * 40}
    >>> rates = [1e-3] * 70 + [2e-3] * 10
    >>> print(ranks(finish("r", "r", "jsonl", pl.DataFrame({**rows, "value": rates}))).findings[0].message)
    lr: ranks 0-1 disagree from step 30, by 0.67 of its value (median of 10 steps)
    """
    if world_size_is is not None and (isinstance(world_size_is, bool) or world_size_is < 1):
        raise ValueError(f"world_size_is is {world_size_is!r}; it must be 1 or more processes")
    there = sorted(run.catalogue["rank"].unique().to_list())
    if len(there) < 2:
        reason = "one rank logged; most trainers log on one, and it can be compared with none"
        entries = tuple(NotApplicable(k, reason if there else "nothing is logged") for k in _KINDS)
        return Ranks(run=run.name, frame=_FRAME.to_frame(), not_applicable=entries, processes=(), compared=())
    world = world_size(run) if world_size_is is None else (world_size_is, "world_size_is")
    processes = processes_of(run)
    stops = stops_of(processes)
    absence = absence_of(there, world)
    findings = [] if absence is None else [absent_finding(run.name, absence, there)]
    findings += stop_findings(run.name, stops, len(there))
    gauge = Gauge(limits)
    compared = [(common, _agreement(common, gauge)) for common in common_series(run, COMPARED)]
    paced = list(common_series(run, PACED))
    for common, agreement in compared:
        limit = limits.of("rank-divergence", common.metric)
        findings += parting_findings(run.name, common, agreement.partings, agreement.nature, limit)
    findings += _slowest(run.name, paced, limits)
    missing = () if compared or paced else (NotApplicable("rank-divergence", _nothing_common(run)),)
    behind = {stop.process.rank: (stop.behind, stop.seconds) for stop in stops}
    return Ranks(
        run=run.name,
        frame=_frame(processes, behind, compared),
        findings=tuple(findings),
        not_applicable=missing,
        measures=gauge.measures,
        processes=tuple(processes),
        compared=tuple(compared),
    )


_KINDS = ("rank-missing", "rank-divergence")


def _agreement(common: Common, gauge: Gauge) -> Agreement:
    of_shards = common.role in _OF_SHARDS
    found = agreement_of(
        common.values,
        infinite_is_fine=common.role == "grad_norm",
        judge_own=not of_shards,
        level=float(np.log1p(gauge.limits.of("rank-divergence", common.metric))),
    )
    if found.nature == "own" and not of_shards and common.role != "learning_rate":
        gauge.keep("rank-divergence", own_level(common.values), common.metric)
    if common.role != "learning_rate" or found.nature != "own":
        return found
    # A learning rate is nobody's own: ranks that never agree on it came apart at the beginning.
    usual = np.abs(np.median(common.values, axis=1))
    away = float(np.nanmedian(np.ptp(common.values, axis=1) / np.maximum(usual, 1e-300)))
    every = tuple(range(len(common.ranks)))
    return Agreement("shared", (*found.partings, Parting("apart", every, 0, len(common.values), away)))


def _slowest(run: str, paced: Sequence[Common], limits: Limits) -> list[Finding]:
    """The slow ranks, each told once."""
    told: dict[object, Finding] = {}
    for common in paced:
        finding = slower_finding(run, common, limits.of("rank-divergence", common.metric))
        if finding is not None:
            told.setdefault(finding.evidence["rank"], finding)
    return list(told.values())


def _nothing_common(run: Run) -> str:
    roles = {one.role for one in run.roles}
    if not roles & {*COMPARED, *PACED}:
        return "no learning rate, loss, norm or time of a step is known among what the ranks logged"
    return "the ranks have fewer than 10 steps in common in any series that they could share"


def _frame(
    processes: Sequence[Process],
    behind: dict[int, tuple[int, float | None]],
    compared: Sequence[tuple[Common, Agreement]],
) -> pl.DataFrame:
    apart: dict[int, list[str]] = {}
    for common, agreement in compared:
        for parting in agreement.partings:
            for column in parting.columns:
                apart.setdefault(common.ranks[column], []).append(common.metric)
    rows = [
        (
            *(p.rank, p.attempt, p.records, p.first_step, p.last_step, p.ended),
            *behind.get(p.rank, (None, None)),
            list(dict.fromkeys(apart.get(p.rank, []))),
        )
        for p in processes
    ]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")
