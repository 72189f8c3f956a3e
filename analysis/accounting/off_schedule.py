"""Findings about a curriculum that did not run as planned: weights, phases, and the progress that drives them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.accounting.loss_account import span
from analysis.accounting.loss_rows import one_series_each
from analysis.accounting.schedule_shift import Shift, explain_shift
from analysis.accounting.weights import observed_phases
from analysis.findings import Finding, Severity
from analysis.limits import Gauge, Limits
from eventstream.errors import unknown_name
from parsers.plan import Plan
from parsers.run import Run

__all__ = ["Names", "judge_phases", "judge_progress", "judge_schedule", "match_names"]

#: Typical difference, relative to the component's largest weight, from which it is critical, where the limit of the
#: kind (from which on it is a warning) is at its default.
_CRITICAL = 0.1
_CRITICAL_SHARE = 0.25
#: Logged progress may come from a rounded or delayed count: less than this is no wrong denominator.
_PROGRESS = 0.01


@dataclass(frozen=True, slots=True)
class Names:
    """The plan's component names to the log's; names that the log does not know (`missing`), a sentence for each."""

    logged: Mapping[str, str]
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def match_names(plan: Plan, logged: Sequence[str]) -> Names:
    """Components of the plan found among the `logged` ones: the same name, else the same but for a `_loss`.

    >>> plan = Plan(loss_weights={"kd": 0.7, "featur": 0.1})
    >>> names = match_names(plan, ["kd_loss", "feature"])
    >>> dict(names.logged), names.unknown[0]
    ({'kd': 'kd_loss'}, "the plan: unknown component 'featur'; did you mean 'feature'? known: feature, kd_loss")
    """
    short = {name.removesuffix("_loss"): name for name in logged}
    found, missing, unknown = {}, [], []
    for name in plan.components:
        if name in logged:
            found[name] = name
        elif name.removesuffix("_loss") in short:
            found[name] = short[name.removesuffix("_loss")]
        else:
            missing.append(name)
            near = difflib.get_close_matches(name, logged, n=1)
            known = sorted(logged, key=lambda other, near=near: (other not in near, other))  # type: ignore[misc]
            unknown.append(f"the plan: {unknown_name('component', name, known)}")
    return Names(found, tuple(missing), tuple(unknown))


def judge_schedule(
    run: Run, plan: Plan, frame: pl.DataFrame, names: Names, gauge: Gauge | None = None
) -> list[Finding]:
    """One finding per component whose observed weights leave the plan; `frame` has difference and tolerance."""
    gauge = gauge or Gauge()
    off = frame.filter(pl.col("difference").abs() > pl.col("tolerance"))
    for name in frame.filter(pl.col("planned").is_not_null())["component"].unique(maintain_order=True):
        mine, own = pl.col("component") == name, off.filter(pl.col("component") == name)
        gauge.keep("curriculum-off-schedule", _relative(own, frame.filter(mine)), str(name))
    if off.is_empty():
        return []
    planned_name = {logged: name for name, logged in names.logged.items()}
    rows = frame.with_columns(pl.col("component").replace(planned_name), weight="observed")
    shift = explain_shift(plan, rows.filter(pl.col("component").is_in(list(names.logged))), plan.max_steps)
    parts = off.group_by("component", maintain_order=True)
    return [
        _off_schedule(
            run.name,
            part,
            frame.filter((pl.col("component") == name) & pl.col("planned").is_not_null()),
            shift,
            gauge.limits,
        )
        for (name,), part in parts
    ]


def _relative(off: pl.DataFrame, judged: pl.DataFrame) -> float:
    """Typical difference of the records that are off, relative to the largest weight; 0 where none is."""
    judged = judged.filter(pl.col("planned").is_not_null())
    if off.is_empty() or judged.is_empty():
        return 0.0
    scale = max(float(np.abs(judged[c].to_numpy()).max()) for c in ("planned", "observed"))
    return float(np.median(np.abs(off["difference"].to_numpy()))) / scale if scale > 0 else 0.0


def _off_schedule(run: str, off: pl.DataFrame, judged: pl.DataFrame, shift: Shift | None, limits: Limits) -> Finding:
    first = off.sort("step").row(0, named=True)
    component = first["component"]
    size = np.abs(off["difference"].to_numpy())
    relative, limit = _relative(off, judged), limits.of("curriculum-off-schedule", component)
    share = off.height / judged.height
    first_step, last_step = span(off)
    return Finding(
        "curriculum-off-schedule",
        _severity(relative, share, shift, limit, limits.scale("curriculum-off-schedule", component)),
        run,
        f"{component}: weight {first['observed']:.4g} instead of {first['planned']:.4g} from step {first['step']} on,"
        f" {off.height} of {judged.height} records differ, by up to {float(size.max()):.4g}"
        + (f"; {shift.sentence}" if shift else ""),
        metric=component,
        first_step=first_step,
        last_step=last_step,
        evidence={
            "first_observed": float(first["observed"]),
            "first_planned": float(first["planned"]),
            "largest_difference": float(size.max()),
            "relative_difference": relative,
            "limit": limit,
            "records_off": off.height,
            "records_judged": judged.height,
            "phase": first["phase"],
            "explanation": shift.name if shift else "none",
            "number": shift.number if shift and math.isfinite(shift.number) else None,
        },
        causes=(
            *((shift.sentence,) if shift else ()),
            "the schedule in the code is not the one in the plan",
            "the step counter of the schedule was not restored at a resume",
        ),
        suggestions=(
            "drive the curriculum by the optimiser step that is logged",
            "compare the plan's phases with the schedule in the code at the first differing step",
        ),
    )


def _severity(relative: float, share: float, shift: Shift | None, limit: float, scale: float) -> Severity:
    if relative < limit or (shift and shift.name == "shift" and abs(shift.number) <= 1):
        return "info"
    return "critical" if relative >= _CRITICAL * scale and share >= _CRITICAL_SHARE else "warning"


def judge_phases(run: Run, plan: Plan) -> list[Finding]:
    """The finding that logged phases are not the planned ones; none where the two share no name at all."""
    phases = observed_phases(run)
    if phases.is_empty() or not plan.phases:
        return []
    steps = phases["step"].to_numpy()
    position = plan.position(steps)
    if plan.axis == "progress" and not plan.max_steps:
        return []
    names = [phase.name for phase in plan.phases]
    index = np.searchsorted([phase.start for phase in plan.phases], position, side="right") - 1
    rows = phases.with_columns(planned=pl.Series([names[i] if i >= 0 else None for i in index], dtype=pl.String))
    rows = rows.drop_nulls("planned")
    off = rows.filter(pl.col("phase") != pl.col("planned"))
    if off.is_empty() or not set(rows["phase"]) & set(names):
        return []
    # one record at each change is a question of counting from 0 or from 1
    counting = off.height <= len(names) - 1 and off.height * 10 <= rows.height
    first = off.row(0, named=True)
    first_step, last_step = span(off)
    return [
        Finding(
            "curriculum-off-schedule",
            "info" if counting else "warning",
            run.name,
            f"phase {first['phase']!r} instead of {first['planned']!r} from step {first['step']} on,"
            f" in {off.height} of {rows.height} records",
            first_step=first_step,
            last_step=last_step,
            evidence={
                "first_observed": first["phase"],
                "first_planned": first["planned"],
                "records_off": off.height,
                "records_judged": rows.height,
            },
            causes=("the phases begin at other steps than the plan says",),
            suggestions=("compare the plan's phases with the schedule in the code at the first differing step",),
        )
    ]


def judge_progress(run: Run, plan: Plan) -> list[Finding]:
    """The finding that logged progress is not step / max_steps, with the number of steps that it was divided by."""
    rows = one_series_each(run, "curriculum/progress").filter(
        pl.col("step").is_not_null() & pl.col("value").is_finite()
    )
    rows = rows.filter((pl.col("value") > 0) & (pl.col("value") < 1) & (pl.col("step") > 0))
    if rows.height < 3 or not plan.max_steps:
        return []
    steps, progress = rows["step"].to_numpy().astype(float), rows["value"].to_numpy()
    implied = steps / progress
    used = float(np.median(implied))
    spread = float(np.median(np.abs(implied - used))) / used
    if abs(used / plan.max_steps - 1) < max(_PROGRESS, 5 * spread):
        return []
    first_step, last_step = span(rows)
    return [
        Finding(
            "curriculum-off-schedule",
            "warning",
            run.name,
            f"progress is the step divided by about {used:.6g}, the plan has max_steps {plan.max_steps}",
            metric="curriculum/progress",
            first_step=first_step,
            last_step=last_step,
            evidence={"implied_steps": used, "planned_steps": plan.max_steps, "records": rows.height},
            causes=(
                "progress counts all epochs, or micro-batches, where the plan counts optimiser steps",
                "the length of the training was changed and the schedule kept the former one",
            ),
            suggestions=("compute progress from the same number of steps as the plan",),
        )
    ]
