"""What is missing of a job's processes, and where they disagree, in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import numpy as np

from analysis.findings import Finding, Severity
from analysis.processes.agreement import Parting, level_apart
from analysis.processes.common_steps import Common
from analysis.processes.presence import Absence, Stop

__all__ = ["absent_finding", "listed", "parting_findings", "slower_finding", "stop_findings"]

#: So many records behind is no writer that held some back.
_LONG = 10.0
_SHOWN = 8
#: What a lasting difference of a shared number means by its role: of parameters and what moves them it is critical.
_SEVERE = ("param_norm", "checksum", "learning_rate", "grad_norm")
#: A learning rate that is off by less is one a few steps late.
_SLIGHT = 0.01
_WHY = {
    "param_norm": "the weights of the replicas are no longer the same",
    "checksum": "the weights of the replicas are no longer the same",
    "learning_rate": "the replicas take steps of different size",
    "grad_norm": "the replicas step along different gradients: they were not reduced over all ranks",
    "loss": "the reduced loss is not that of the same ranks or batches everywhere",
    "component_loss": "the reduced loss is not that of the same ranks or batches everywhere",
}
_LEVEL_CAUSES = (
    "the data of the rank differ (a shard of another source, a broken or repeated file)",
    "the weights of the rank differ: record a norm or checksum of the parameters on each rank to know",
)


def listed(ranks: Sequence[int]) -> str:
    """Ranks in words, neighbours joined.

    >>> listed([3]), listed([0, 1, 2, 5])
    ('rank 3', 'ranks 0-2, 5')
    """
    groups: list[list[int]] = []
    for rank in sorted(ranks):
        if groups and rank == groups[-1][-1] + 1:
            groups[-1].append(rank)
        else:
            groups.append([rank])
    parts = [str(g[0]) if len(g) == 1 else f"{g[0]}-{g[-1]}" for g in groups]
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(parts[:_SHOWN])}{more}"


def absent_finding(run: str, absence: Absence, there: Sequence[int]) -> Finding:
    """The finding of ranks without a log."""
    source = f"{absence.known} says {absence.world}" if absence.known else f"the ranks go up to {max(there)}"
    severity: Severity = "info" if absence.doubtful else "warning"
    unless = ", unless only some processes write" if absence.doubtful else ""
    return Finding(
        "rank-missing",
        severity,
        run,
        f"{listed(absence.missing)} left no log: {source}, and {len(there)} logged{unless}",
        evidence={
            "missing": len(absence.missing),
            "logged": len(there),
            "world_size": absence.world,
            "world_size_from": absence.known or "numbering",
            "first_missing": absence.missing[0],
        },
        causes=(
            f"{len(there)} of {absence.world} processes wrote: the others failed before their first record",
            "their files were not copied with the others",
        ),
        suggestions=(
            "look for the files of these ranks on their nodes",
            "look at the scheduler's output for the first error",
        ),
    )


def stop_findings(run: str, stops: Sequence[Stop], ranks: int) -> Iterator[Finding]:
    """One finding for the processes that stopped within the last attempt, and one for those that missed it."""
    early = [stop for stop in stops if stop.absent_from is None]
    if early:
        yield _stopped(run, early, ranks)
    absent = [stop for stop in stops if stop.absent_from is not None]
    if absent:
        yield _not_resumed(run, absent, ranks)


def _stopped(run: str, stops: Sequence[Stop], ranks: int) -> Finding:
    first = stops[0]
    when = f" at {_clock(first.process.ended)}" if first.process.ended else ""
    by_clock = f", {first.seconds:,.0f} s before the last record of the others" if first.seconds is not None else ""
    severity: Severity = "warning" if first.records >= _LONG else "info"
    who = [stop.process.rank for stop in stops]
    return Finding(
        "rank-missing",
        severity,
        run,
        f"{listed(who)} of {ranks} stopped early: the last record of rank {first.process.rank} is step "
        f"{first.process.last_step:,}{when}, {first.behind:,} steps before the others' {first.others_last:,}{by_clock}",
        first_step=first.process.last_step,
        last_step=first.others_last,
        evidence={
            "rank": first.process.rank,
            "stopped": len(stops),
            "logged": ranks,
            "steps_behind": first.behind,
            "records_behind": round(first.records, 1),
            "seconds_behind": first.seconds,
            "error": first.process.error or None,
        },
        causes=tuple(_why_stopped(first, stops)),
        suggestions=(
            f"look at the output of rank {first.process.rank} and of its node around that time",
            "set a timeout on collectives, so that the loss of one process ends the others with its name",
        ),
    )


def _why_stopped(first: Stop, stops: Sequence[Stop]) -> Iterator[str]:
    for stop in stops[:3]:
        if stop.process.error:
            yield f"rank {stop.process.rank} ended with an error: {stop.process.error[:120]}"
    if not first.process.error:
        yield "no end is recorded for it: it was killed (out of memory on its node, a lost node), or its disk was full"
    if first.records < _LONG:
        yield f"it is {first.records:.0f} records behind: its writer may have held them back when the job was killed"


def _not_resumed(run: str, stops: Sequence[Stop], ranks: int) -> Finding:
    who = [stop.process.rank for stop in stops]
    smaller = sorted(who) == list(range(ranks - len(who), ranks))
    first = stops[0]
    return Finding(
        "rank-missing",
        "info" if smaller else "warning",
        run,
        f"{listed(who)} of {ranks} took no part in attempt {first.absent_from}: their last record is step "
        f"{first.process.last_step:,}, that of the others {first.others_last:,}",
        first_step=first.process.last_step,
        last_step=first.others_last,
        evidence={"absent": len(who), "logged": ranks, "attempt": first.absent_from, "steps_behind": first.behind},
        causes=(
            f"the first {ranks - len(who)} ranks went on: the job was resumed with fewer processes"
            if smaller
            else f"ranks in the middle of {ranks} are missing: they failed at the restart or could not write",
        ),
        suggestions=("compare the number of processes before and after the restart with the batch and learning rate",),
    )


def parting_findings(
    run: str, common: Common, partings: Sequence[Parting], nature: str, limit: float
) -> Iterator[Finding]:
    """The findings of one series, one a parting."""
    for parting in partings:
        who = [common.ranks[column] for column in parting.columns]
        step = int(common.step[parting.first])
        yield Finding(
            "rank-divergence",
            _severity(common, parting),
            run,
            _message(common, parting, who, step),
            metric=common.metric,
            first_step=step,
            last_step=int(common.step[-1]),
            evidence={
                "how": parting.how,
                "nature": nature,
                "rank": who[0],
                "ranks_apart": len(who),
                "ranks": len(common.ranks),
                "difference": parting.difference,
                "limit": limit if parting.how == "level" else None,
                "common_steps": len(common.step),
                "steps_apart": parting.rows,
                "from_the_beginning": parting.first == 0,
            },
            causes=_causes(common, parting, who),
            suggestions=_suggestions(common, parting),
        )


def _severity(common: Common, parting: Parting) -> Severity:
    if parting.how == "apart":
        slight = common.role == "learning_rate" and parting.difference < _SLIGHT
        return "critical" if common.role in _SEVERE and not slight else "warning"
    if parting.how == "non-finite":
        return "warning"
    # Data of another kind on one rank is a choice of some trainings; what changed in the course of one is none.
    return "warning" if parting.how == "level" and parting.first > 0 else "info"


def _message(common: Common, parting: Parting, who: Sequence[int], step: int) -> str:
    begin = "from the first common step on" if parting.first == 0 else f"from step {step:,}{_at(common, parting)}"
    if parting.how == "apart":
        all_of = len(who) == len(common.ranks)
        whom = f"{listed(who)} disagree" if all_of else f"{listed(who)} left the other {_others(common, who)}"
        return (
            f"{common.name}: {whom} {begin}, by {parting.difference:.2g} of its value (median of {parting.rows} steps)"
        )
    if parting.how == "non-finite":
        return f"{common.name} is NaN or infinite on {listed(who)} alone at {parting.rows} steps, first at {step:,}"
    if parting.how == "noise":
        return f"{common.name} of {listed(who)} is {parting.difference:.1f} times as noisy as that of the others"
    if len(who) == len(common.ranks):
        return f"{common.name}: rank {who[1]} lies {parting.difference:+.0%} off rank {who[0]} {begin}"
    return f"{common.name} of {listed(who)} lies {parting.difference:+.0%} off the others {begin}"


def _others(common: Common, who: Sequence[int]) -> str:
    count = len(common.ranks) - len(who)
    return "rank" if count == 1 else f"{count} ranks"


def _at(common: Common, parting: Parting) -> str:
    micros = int(common.time[parting.first])
    return "" if micros < 0 else f" ({_clock(dt.datetime.fromtimestamp(micros / 1e6, dt.UTC))})"


def _clock(time: dt.datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _causes(common: Common, parting: Parting, who: Sequence[int]) -> tuple[str, ...]:
    if parting.how == "apart":
        began = "it never agreed" if parting.first == 0 else f"{parting.first} common steps agreed to rounding before"
        return (f"{began}: {_WHY[common.role]}",)
    if parting.how == "level":
        return (
            f"each rank logs its own {common.metric}, and the others keep together: {_LEVEL_CAUSES[0]}",
            _LEVEL_CAUSES[1],
        )
    if parting.how == "noise":
        return (
            f"the steps of {listed(who)} scatter {parting.difference:.1f} times as far: smaller batches or other data",
        )
    return (f"only {listed(who)} has no number there: a bad batch or a faulty device of that process",)


def _suggestions(common: Common, parting: Parting) -> tuple[str, ...]:
    if parting.how == "apart" and common.role == "learning_rate":
        return (
            "step the scheduler on every rank, and as often: compare the counts of steps",
            "save and load the state of the scheduler on every rank",
        )
    if parting.how == "apart":
        return (
            "compare a checksum of the parameters over ranks, and broadcast them from rank 0 where it differs",
            "look for parameters outside DDP, for no_sync, and for branches that not every rank takes",
            "run a test of the device of the rank that left (silent corruption)",
        )
    return (
        "look at the batches of that rank from that step on",
        "compare a norm or checksum of the parameters over ranks",
    )


def slower_finding(run: str, common: Common, limit: float) -> Finding | None:
    """A rank that takes longer than the others by `limit` (a share) to the end, where three or more tell theirs."""
    values = common.values[np.isfinite(common.values).all(axis=1) & (common.values > 0).all(axis=1)]
    if len(values) < 30 or len(common.ranks) < 3:
        return None
    level = float(np.log1p(limit))
    found = level_apart(np.log(values), level)
    sign = 1.0 if common.role == "step_time" else -1.0
    if found is None or sign * found[2] < level:
        return None
    columns, first, away = found
    rank, step = common.ranks[columns[0]], int(common.step[first])
    return Finding(
        "rank-divergence",
        "info",
        run,
        f"rank {rank} is slower from step {step:,}: its {common.name} lies {np.expm1(away):+.0%} off the others'",
        metric=common.metric,
        first_step=step,
        last_step=int(common.step[-1]),
        evidence={
            "how": "slower",
            "rank": rank,
            "ranks": len(common.ranks),
            "difference": float(np.expm1(away)),
            "limit": limit,
        },
        causes=(f"{common.metric} of rank {rank} alone is longer: its node, its device or its share of the data",),
        suggestions=("compare clock and temperature of its device with the others', and the time of loading its data",),
    )
