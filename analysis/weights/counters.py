"""Counters of steps: whether those of one save agree, and whether they go on from save to save."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from analysis.findings import Finding, Severity
from analysis.kinds import KINDS
from analysis.weights.saved import Saved
from analysis.weights.schedules import Schedule, haste_of, schedule_of

__all__ = ["Counts", "counters_across", "counters_within", "counts_of", "weighed_together"]

_EPOCH = re.compile(r"(^|\.)(epoch|current_epoch)$")
#: A counter may be read before or after it is raised; a scaler skips some steps (1 in 2,000 in health).
_BY_ONE, _SKIPPED = 2, 0.02
#: Whole factors that are known: batches of one update, optimizers, processes that step a scheduler each.
_FACTORS = 64
#: Smaller counts are a whole part of anything.
_COUNTED = 16
_RESTORE = (
    "load the state of the optimizer and of the scheduler with the weights when resuming",
    "save optimizer.state_dict() of the optimizer whose step() is called",
)
_COMPARE = (
    "see what each of the two counts: batches, updates, processes or epochs; as long as it stays so, nothing is wrong",
    "make schedules, intervals and names of saves of the same count",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a save counts: steps of the training, of the optimizer, of the schedule; None for what it does not hold."""

    step: int | None
    optimizer: float | None
    schedule: float | None
    epoch: float | None


def counts_of(saved: Saved) -> Counts:
    """The counters of one save, whatever its format calls them."""
    values = saved.checkpoint.values
    stepped = [row["maximum"] for row in saved.rows("optimizer") if row["state"] == "step" and row["elements"] == 1]
    stepped += [v for key, v in values.items() if _number(v) and re.search(r"\bstate\.[^.]+\.step$", key)]
    schedule = schedule_of(values)
    epochs = [v for key, v in values.items() if _number(v) and _EPOCH.search(key)]
    return Counts(
        saved.checkpoint.step,
        max((float(n) for n in stepped if n is not None), default=None),
        None if schedule is None else schedule.stands,
        float(epochs[0]) if epochs else saved.checkpoint.epoch,  # type: ignore[arg-type]
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def counters_within(saved: Saved, run_name: str) -> list[Finding]:
    """Where the optimizer or the schedule of a save stands at another step than the save: `checkpoint-mismatch`.

    Whole factors are information: updates of several batches, several optimizers, a schedule that counts epochs; but
    for a schedule that runs ahead of its optimizer without a reason (`analysis.weights.schedules`). A step in the name
    that differs from the one inside is judged across a series (`weighed_together`), or here alone.
    """
    counts = counts_of(saved)
    found = []
    if counts.step and counts.optimizer is not None:
        found += _apart(saved, run_name, "optimizer", counts.optimizer, counts)
    schedule = schedule_of(saved.checkpoint.values)
    if counts.step and schedule is not None:
        found += _schedule_apart(saved, run_name, schedule, counts)
    if saved.step is not None and saved.checkpoint.step is not None:
        found += _named_otherwise(saved, run_name, saved.checkpoint.step, saved.step)
    return found


def _is_near(one: float, other: float | None) -> bool:
    return other is not None and abs(one - other) <= max(_BY_ONE, _SKIPPED * max(abs(one), abs(other)))


def _factor(one: float, other: float) -> int | None:
    """The whole factor, from 2 to 64, by which two counters differ; None where there is none."""
    low, high = sorted((one, other))
    if low < _COUNTED:
        return None
    factor = round(high / low)
    # The last group of batches may be incomplete.
    return factor if 2 <= factor <= _FACTORS and abs(high - factor * low) <= max(factor, 0.005 * high) else None


def _schedule_apart(saved: Saved, run_name: str, schedule: Schedule, counts: Counts) -> list[Finding]:
    """A schedule that follows neither the steps nor the optimizer nor the epochs.

    It is held against the optimizer, whose steps it is made for, where the save tells of them.
    """
    what, stands, step = "learning-rate schedule", schedule.stands, float(counts.step or 0)
    if any(_is_near(stands, other) for other in (step, counts.optimizer, counts.epoch)):
        return []
    base = counts.optimizer or step
    factor = (_factor(stands, base) or _exact_factor(stands, base)) if stands > base else None
    if factor is None:
        return _apart(saved, run_name, what, stands, counts)
    haste = haste_of(saved, schedule, base, factor, counted=counts.optimizer is not None)
    of = "optimizer" if counts.optimizer else "save"
    said = f"{saved.where}: its {what} stands at step {stands:,.0f} and the {of} at {base:,.0f}: {haste.said}"
    found = _finding(saved, run_name, haste.severity, said, what, stands, base, factor)
    evidence = {**found.evidence, "schedule_ends": schedule.ends}
    return [replace(found, evidence=evidence, causes=haste.causes, suggestions=haste.suggestions)]


def _exact_factor(high: float, low: float) -> int | None:
    """A whole factor of counts too small to tell it by and large."""
    return int(high // low) if low >= 2 and high % low == 0 and 2 <= high // low <= _FACTORS else None


def _apart(saved: Saved, run_name: str, what: str, value: float, counts: Counts) -> list[Finding]:
    step = float(counts.step or 0)
    if _is_near(value, step):
        return []
    factor = _factor(value, step)
    # ReduceLROnPlateau counts evaluations, other schedules epochs: a count far below the steps says nothing wrong.
    mild = factor is not None or (what != "optimizer" and value < step)
    severity: Severity = "info" if mild else "warning"
    by = f", {factor} times {'less' if value < step else 'more'}" if factor else ""
    said = f"{saved.where}: its {what} stands at step {value:,.0f} and the save at {step:,.0f}{by}"
    return [_finding(saved, run_name, severity, said, what, value, step, factor)]


def _named_otherwise(saved: Saved, run_name: str, inside: float, named: float) -> list[Finding]:
    if abs(inside - named) <= 1:
        return []
    factor = _factor(inside, named)
    age = "older" if inside < named else "newer"
    by = f" (a factor of {factor}: another unit)" if factor else ""
    said = (
        f"{saved.name} holds the weights of step {inside:,.0f} and its name says {named:,.0f}: {age} than its name{by}"
    )
    return [_finding(saved, run_name, "info" if factor else "warning", said, "name", named, inside, factor)]


def _finding(
    saved: Saved,
    run_name: str,
    severity: Severity,
    said: str,
    what: str,
    value: float,
    step: float,
    factor: int | None,
) -> Finding:
    kind = KINDS["checkpoint-mismatch"]
    return Finding(
        "checkpoint-mismatch",
        severity,
        run_name,
        said,
        first_step=saved.at,
        last_step=saved.at,
        evidence={
            "what": f"{what} at another step",
            "save": saved.name,
            "counter": what,
            "counted": value,
            "saved_step": step,
            "factor": factor,
        },
        causes=_causes(what, value, step, factor),
        suggestions=kind.suggestions if what == "name" else _COMPARE if factor else _RESTORE,
    )


def _causes(what: str, value: float, step: float, factor: int | None) -> tuple[str, ...]:
    """Ranked by what the numbers say: a whole factor is another unit, a count below the step a state begun anew."""
    if what == "name":
        return KINDS["checkpoint-mismatch"].causes[:3]
    unit = f"one counts {factor} of what the other counts: batches of an update, optimizers, processes or epochs"
    anew = f"the {what} was begun anew {step - value:,.0f} steps after the weights: its state was not restored"
    other = f"the state of the {what} is of another save or another run"
    if factor:
        return (unit, anew if value < step else other)
    if what != "optimizer" and value < step:
        return ("it counts epochs or evaluations, and no steps", anew, other)
    return (anew, other) if value < step else (other, unit.replace("None of", "several of"))


def counters_across(saves: Sequence[Saved], run_name: str) -> list[Finding]:
    """Counters that stand still or go back while the steps of the saves go on: `checkpoint-mismatch`, a warning.

    A schedule may stand (it counts epochs, or evaluations); what goes back was begun anew.
    """
    counted = [(saved, counts_of(saved)) for saved in saves if saved.at is not None]
    # A save without the counter (its optimizer was just made) is no end: the next is held against the one before.
    optimizers = [(saved, counts.optimizer) for saved, counts in counted if counts.optimizer is not None]
    schedules = [(saved, counts.schedule) for saved, counts in counted if counts.schedule is not None]
    found = []
    for (before, one), (after, two) in pairwise(optimizers):
        gone = (after.at or 0) - (before.at or 0)
        # A counter that is read after it is raised, or a save made once more at the end, is a step or two apart.
        if gone > 0 and (two < one or (two == one and gone > _BY_ONE)):
            found.append(_stuck(before, after, run_name, "optimizer", one, two, gone))
    for (before, one), (after, two) in pairwise(schedules):
        gone = (after.at or 0) - (before.at or 0)
        if gone > 0 and two < one:
            found.append(_stuck(before, after, run_name, "learning-rate schedule", one, two, gone))
    return found


def weighed_together(findings: Sequence[Finding], saves: Sequence[Saved]) -> list[Finding]:
    """The findings of single saves and of what lies between them, as the whole series has it.

    A counter that stands behind its saves is told once, by the save at which it went back. A name that tells another
    step than its save is no other unit, whatever the factor, where other names of the series tell theirs.
    """
    back = {one.evidence.get("counter") for one in findings if str(one.evidence.get("what")).endswith("goes back")}
    true = any(
        saved.step is not None
        and saved.checkpoint.step is not None
        and saved.step >= _COUNTED
        and abs(saved.step - saved.checkpoint.step) <= 1
        for saved in saves
    )
    kept = [
        one
        for one in findings
        if one.evidence.get("what") != f"{one.evidence.get('counter')} at another step"
        or one.evidence["counter"] not in back
    ]
    return [_misnamed(one) if true and one.evidence.get("what") == "name at another step" else one for one in kept]


def _misnamed(one: Finding) -> Finding:
    if one.severity != "info":
        return one
    said = one.message.split(" (a factor of ")[0] + "; other names of the series tell the step of their save"
    return replace(one, severity="warning", message=said, evidence={**one.evidence, "factor": None})


def _stuck(before: Saved, after: Saved, run_name: str, what: str, first: float, then: float, gone: int) -> Finding:
    back = then < first
    how = f"goes back from step {first:,.0f} to {then:,.0f}" if back else f"stands at step {first:,.0f}"
    anew = f"the {what} was begun anew between the saves: its state was not restored at a resume"
    still = f"the {what} is not stepped, or its state is saved from another object than the one that is stepped"
    return Finding(
        "checkpoint-mismatch",
        "warning",
        run_name,
        f"the {what} {how} while the saves go on {gone:,} step{'' if gone == 1 else 's'}, "
        f"from {before.where} to {after.where}",
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": f"{what} {'goes back' if back else 'stands'}",
            "save": after.name,
            "counter": what,
            "counted": then,
            "counted_before": first,
            "steps_between": gone,
        },
        causes=(anew, still) if back else (still, anew),
        suggestions=_RESTORE,
    )
