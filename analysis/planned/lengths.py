"""Findings about the length of a run: it ended before its plan, or went on beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from analysis.findings import Finding, NotApplicable, Severity
from analysis.limits import Gauge
from analysis.planned.ending import Ending, ending_of
from analysis.planned.reached import Reached
from parsers.run import Run

__all__ = ["OVERLONG", "UNFINISHED", "judge_length"]

UNFINISHED, OVERLONG = "unfinished-run", "overlong-run"
#: How near a multiple of the plan must be for steps to be batches of which several make an update.
_NEAR = 0.02


def judge_length(
    run: Run, lengths: Sequence[Reached], gauge: Gauge, now: datetime
) -> tuple[list[Finding], list[NotApplicable]]:
    """The finding about how far a run came, or why neither kind can be told; `now` is when the log is looked at.

    Of several planned lengths the one that is reached counts: frameworks stop at whichever comes first, or heed one.
    """
    if not lengths:
        reason = _unplanned(run)
        return [], [NotApplicable(UNFINISHED, reason), NotApplicable(OVERLONG, reason)]
    furthest = max(lengths, key=lambda one: (one.done, round(one.share, 3)))  # of equal ones the steps
    batches = _micro_batches(run, furthest)
    if batches:
        return [], [NotApplicable(OVERLONG, batches)]
    gauge.keep(UNFINISHED, 1.0 if furthest.done else furthest.share)
    if not furthest.done:
        return [_unfinished(run, furthest, gauge, now)], []
    nearest = min((one for one in lengths if one.done), key=lambda one: one.share)
    gauge.keep(OVERLONG, max(nearest.share, 1.0))
    if nearest.reached > nearest.planned + nearest.every:
        return [_overlong(run, nearest, lengths, gauge)], []
    return [], []


def _unplanned(run: Run) -> str:
    plan = run.planned
    if plan.max_steps is None and plan.epochs is None:
        return "no plan or configuration says how many steps or epochs there are to be"
    planned = f"{plan.max_steps:,} steps" if plan.max_steps is not None else f"{plan.epochs:g} epochs"
    return f"{planned} are planned, and the log does not tell how many were done"


def _micro_batches(run: Run, length: Reached) -> str:
    """Steps that count the batches of an update come out at a multiple of the plan."""
    several = run.planned.accumulation
    if length.unit != "steps" or several is None or several == 1 or not length.done:
        return ""
    if abs(length.share / several - 1) > _NEAR:
        return ""
    return f"{several} batches make one update, and the log ends at {several} times the plan: its steps count batches"


def _unfinished(run: Run, length: Reached, gauge: Gauge, now: datetime) -> Finding:
    ending = ending_of(run, length, now)
    early = gauge.reaches(UNFINISHED, length.share)
    severity: Severity = "warning" if early and not ending.excuse else "info"
    ended = f"; {ending.excuse}" if ending.excuse else ""
    return Finding(
        UNFINISHED,
        severity,
        run.name,
        f"the log ends at {_at(length)} of {length.planned:,.6g} planned ({length.share:.0%} done, {length.source})"
        f"{ended}",
        first_step=run.last_step,
        last_step=run.last_step,
        evidence={
            "share_done": length.share,
            "limit": gauge.limits.of(UNFINISHED),
            "planned": length.planned,
            "reached": length.reached,
            "unit": length.unit,
            "source": length.source,
            "record_every": length.every,
            "end_status": ending.status or "none",
            "error": ending.error or None,
            "last_record": None if ending.last is None else ending.last.isoformat(timespec="seconds"),
        },
        causes=_causes(run, ending),
        suggestions=_suggestions(run, ending),
    )


def _at(length: Reached) -> str:
    return f"{length.unit.removesuffix('s')} {length.reached:,.6g}"


def _causes(run: Run, ending: Ending) -> tuple[str, ...]:
    if ending.status in ("failed", "interrupted"):
        what = f": {ending.error}" if ending.error else ""
        return (f"the run says that it {'failed' if ending.status == 'failed' else 'was interrupted'}{what}",)
    if ending.excuse:
        return (ending.excuse,)
    if run.format == "aftertrain":
        return (
            "the process was killed (memory, time limit, pre-emption): the stream has no end record (end_status)",
            "it still runs, and its records are late",
        )
    return (
        "the job was killed or crashed (memory, time limit, pre-emption)",
        "it was stopped by hand, or still runs",
        "cannot tell from this log which; a recorder writes an end record, with the error where there was one",
    )


def _suggestions(run: Run, ending: Ending) -> tuple[str, ...]:
    saved = run.events_of("checkpoint")["step"].max()
    resume = f"resume from the checkpoint of step {saved!s}" if saved is not None else "resume from the last checkpoint"
    look = "look at the scheduler's log and the system's for the last minute of the run"
    purpose = "if it was stopped on purpose, give the length that was meant with --plan"
    return (purpose, resume) if ending.excuse else (look, resume, purpose)


def _overlong(run: Run, length: Reached, lengths: Sequence[Reached], gauge: Gauge) -> Finding:
    far = gauge.reaches(OVERLONG, length.share)
    other = next((one for one in lengths if one is not length and not one.done), None)
    declared = run.plan.get("max_steps" if length.unit == "steps" else "epochs") is not None
    severity: Severity = "warning" if far and declared and length.sure and other is None else "info"
    apart = f"; {other.reached:,.4g} of {other.planned:,.4g} {other.unit} are done" if other else ""
    return Finding(
        OVERLONG,
        severity,
        run.name,
        f"the log goes on to {_at(length)}, {length.share:.3g} times the {length.planned:,.6g} planned "
        f"({length.source}){apart}",
        last_step=run.last_step,
        evidence={
            "share_done": length.share,
            "limit": gauge.limits.of(OVERLONG),
            "planned": length.planned,
            "reached": length.reached,
            "unit": length.unit,
            "source": length.source,
            "accumulation": run.planned.accumulation,
        },
        causes=(
            *((f"steps are counted in another unit than the plan's: {other.unit} are not done",) if other else ()),
            *(("the run was resumed with another length (attempts)",) if run.last_attempt else ()),
            "the log counts batches or samples, the plan updates",
            "the plan is that of another run",
        ),
        suggestions=(
            "look at the learning rate beyond the planned end: a schedule that has ended is 0, or begins again",
            "say the length that was meant in the plan, or with --plan",
        ),
    )
