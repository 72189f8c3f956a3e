"""What the learning rate did: the schedule observed, the schedule planned, where they part, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import NotApplicable
from analysis.limits import DEFAULT_LIMITS, Limits, Measure
from analysis.result import Result
from analysis.schedule.compared import Compared, compare
from analysis.schedule.explanations import explain
from analysis.schedule.face import Loss, faults_of
from analysis.schedule.observed import Observed, recognise
from analysis.schedule.rate_findings import KIND, Judged, findings_of
from analysis.schedule.rates import Rate, rates_of, surroundings_of
from eventstream.errors import PlanError
from parsers.lr_schedule import Schedule, schedule_of
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LearningRate", "learning_rate"]

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "split": pl.String,
    "metric": pl.String,
    "group": pl.String,
    "records": pl.Int64,
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "observed": pl.String,
    "peak": pl.Float64,
    "warmup_steps": pl.Int64,
    "total_steps": pl.Int64,
    "min": pl.Float64,
    "milestones": pl.List(pl.Int64),
    "gamma": pl.Float64,
    "restarts": pl.Int64,
    "held_steps": pl.Int64,
    "planned": pl.String,
    "planned_peak": pl.Float64,
    "planned_warmup_steps": pl.Int64,
    "planned_total_steps": pl.Int64,
    "planned_min": pl.Float64,
    "deviation": pl.Float64,
    "deviating_share": pl.Float64,
    "first_difference_step": pl.Int64,
    "explanation": pl.String,
    "note": pl.String,
}
_FRAME = pl.Schema(_COLUMNS)
#: Beyond this matplotlib's own arithmetic on the limits of an axis would overflow, as `analysis.figures` has it.
_DRAWN = 1e150


@dataclass(frozen=True, eq=False, repr=False)
class LearningRate(Result):
    """What the learning rate did. `frame` has a row a series: split, metric, group (number of the group of parameters,
    empty where the log names none), records, first_step, last_step;

    as observed: observed (the schedule: `linear`, `cosine`, ..., `zero`, `irregular`, `unknown`), peak, warmup_steps,
    total_steps (where the decay ends), min, milestones (steps of drops or restarts), gamma, restarts, held_steps (for
    how many steps the rate is held, where it changes in stairs);

    as planned (null without a plan): planned, planned_peak, planned_warmup_steps, planned_total_steps, planned_min;

    compared: deviation (the largest distance outside the plan that two neighbouring records reach, in planned peaks),
    deviating_share (of the records), first_difference_step, explanation (a key of
    `analysis.schedule.words.EXPLANATIONS`, or a fault on its face), note (why something was not compared).

    `judged` holds the same with the numbers behind it.
    """

    judged: tuple[Judged, ...]

    def plot(self, ax: Axes | None = None, *, metric: str | None = None, **options: Any) -> Axes:
        """The observed rate over steps, the planned one beside it, what lies between them shaded.

        `metric` chooses a series (default: the first that a finding speaks of, else the first); another name raises
        `ValueError` with the known ones. `options` go to the line of the observed rate.
        """
        names = [one.rate.name for one in self.judged]
        wanted = metric if metric is not None else next((f.metric for f in self.findings), None)
        chosen = [one for one in self.judged if wanted in (None, one.rate.metric, one.rate.name)]
        if metric is not None and not chosen:
            raise ValueError(
                f"metric is {metric!r}; it must be one of {', '.join(names) or 'none: no rate was logged'}"
            )
        drawn = axes(ax)
        with style():
            if self.judged:
                _draw(drawn, (chosen or list(self.judged))[0], options)
        drawn.set_xlabel("step")
        drawn.set_ylabel("learning rate")
        said = _said(self, (chosen or list(self.judged))[:1])
        drawn.set_title(f"{self.run}: {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn


def _said(result: LearningRate, shown: list[Judged]) -> str:
    """What a title says: the explanation of the series that is shown, else the finding, else that there is none."""
    told = next((one.explanation for one in shown if one.explanation is not None and result.findings), None)
    if told is not None:
        return told.sentence
    return next((f.message for f in result.findings), _nothing(result.judged))


def _nothing(judged: tuple[Judged, ...]) -> str:
    if not judged:
        return "no learning rate was logged"
    planned = any(one.compared is not None for one in judged)
    return "the learning rate follows its plan" if planned else f"{judged[0].observed.kind} learning rate, no plan"


def _draw(ax: Axes, one: Judged, options: dict[str, Any]) -> None:
    rate, compared = one.rate, one.compared
    line = {"color": COLOURS["blue"], "label": f"{rate.name[:50]}, observed", **options}
    draw_series(ax, rate.steps, rate.values, **line)
    if compared is not None:
        draw_series(ax, rate.steps, compared.planned, color=COLOURS["orange"], ls="--", label="planned")
        rows = np.unique(np.linspace(0, len(rate.steps) - 1, min(len(rate.steps), 2000)).astype(int))
        outside = compared.apart[rows] >= 0.01
        ax.fill_between(
            rate.steps[rows],
            np.clip(rate.values[rows], -_DRAWN, _DRAWN),
            np.clip(compared.planned[rows], -_DRAWN, _DRAWN),
            where=outside.tolist(),
            color=COLOURS["vermilion"],
            alpha=0.25,
            lw=0,
            label="deviation",
        )
    for fault in one.faults:
        ax.axvspan(rate.steps[fault.first], rate.steps[fault.last], color=COLOURS["vermilion"], alpha=0.12, lw=0)
    ax.legend()


@np.errstate(all="ignore")  # rates near the largest or the least float overflow in ratios; that is no news
def learning_rate(run: Run, *, limits: Limits = DEFAULT_LIMITS) -> LearningRate:
    """What every learning rate did, whether it follows its plan, and what happened where it does not.

    The schedule of the plan (`plan.lr`: see `parsers.lr_schedule.schedule_of`) is computed at every logged step, and
    a rate counts as planned within one step of it (counts from 0 and from 1, rates written before and after the
    scheduler is stepped) and within what was printed of it. From `limits` on (kind `lr-schedule`, default a tenth of
    the planned peak, reached by two neighbouring records) the plan is changed by one number at a time, and the simplest
    change that gives the observed rates is the explanation: stepped twice, or once an epoch, no warm-up, another peak,
    another end, not restored on a resume, and so on; `cannot-tell` where none does.

    Without a plan the observed schedule is recognised and only what is wrong on its face is a finding: a rate of 0 (or
    of less than 1e-20) nearly all along or for the last tenth of the run, negative rates, rates that repeat the
    beginning after a resume, and a cosine that climbs again beyond its end (a warning where the loss rises with it).

    `lr-schedule` is critical for a rate of 0 all along, for 10 times the planned peak, and for negative rates; else a
    warning; info where one group of parameters departs and another follows the plan, where nothing explains the
    difference and nobody declared the plan (it was read from a configuration), and where a frozen group has a rate of
    0. Groups of parameters whose rates differ from the plan by one factor while another group follows it (layer-wise
    rates) are no finding. A run without a learning rate, or with fewer than 2 values, is not judged. Repeated and
    unsorted steps are sorted, and NaN left out.

    >>> from parsers.finish import finish
    >>> twice = [3e-4 * max(0.0, 1 - 2 * i / 100) for i in range(100)]
    >>> rows = pl.DataFrame({"tag": ["lr"] * 100, "step": list(range(100)), "value": twice})
    >>> plan = {"lr": {"schedule": "linear", "peak": 3e-4, "total_steps": 100}}
    >>> found = learning_rate(finish("r", "r", "jsonl", rows, plan=plan)).findings[0]
    >>> found.evidence["explanation"], found.first_step
    ('stepped-too-often', 2)
    """
    rates = rates_of(run)
    if not any(len(rate.values) + rate.non_finite >= 2 for rate in rates):
        reason = "no learning rate was logged" if not rates else "fewer than 2 values of the learning rate were logged"
        frame = pl.DataFrame([_row(_unplanned(rate)) for rate in rates], schema=_FRAME, orient="row")
        return LearningRate(run.name, frame, not_applicable=(NotApplicable(KIND, reason),), judged=())
    schedule, note, declared = _planned(run)
    judged = tuple(_judged(run, rate, rates, schedule, note, limits) for rate in rates)
    return LearningRate(
        run=run.name,
        frame=pl.DataFrame([_row(one) for one in judged], schema=_FRAME, orient="row"),
        findings=tuple(findings_of(run, judged, limits, declared=declared)),
        measures=tuple(Measure(KIND, one.deviation, one.rate.metric) for one in judged if one.deviation is not None),
        judged=judged,
    )


def _planned(run: Run) -> tuple[Schedule | None, str, bool]:
    """The schedule of the run's plan, what was not understood of it, and whether somebody declared it."""
    try:
        plan = run.planned
    except PlanError as error:
        return None, str(error), False
    if not plan.lr:
        return None, "the plan does not speak of the learning rate", False
    given = dict(plan.lr)
    if given.get("unit") == "epoch" and plan.steps_per_epoch:
        given.setdefault("steps_per_epoch", plan.steps_per_epoch)
    schedule, odd = schedule_of(given, plan.max_steps)
    said = plan.sources.get("lr.schedule", "")
    by_hand = any(said.startswith(f"{source}:") for source in set(run.plan_sources.values()))
    return schedule, "; ".join(odd), by_hand or isinstance(run.plan.get("lr"), Mapping)


def _unplanned(rate: Rate, note: str = "") -> Judged:
    return Judged(rate, recognise(rate), note=note)


def _judged(
    run: Run, rate: Rate, rates: tuple[Rate, ...], schedule: Schedule | None, note: str, limits: Limits
) -> Judged:
    others = [one for one in rates if one is not rate]
    fitting, why = _on_axis(schedule, rate)
    note = "; ".join(part for part in (note, why) if part)
    if fitting is None or len(rate.values) < 2:
        faults = tuple(faults_of(rate, _loss_of(run), others, planned=False))
        return replace(_unplanned(rate, note), faults=faults)
    compared = compare(rate, fitting)
    faults = tuple(faults_of(rate, _loss_of(run), others, planned=True))
    explanation = None
    if compared.worst >= limits.of(KIND, rate.metric) and not any(fault.name == "zero" for fault in faults):
        explanation = explain(rate, fitting, compared, surroundings_of(run))
    return Judged(rate, recognise(rate), compared, explanation, faults, note)


def _on_axis(schedule: Schedule | None, rate: Rate) -> tuple[Schedule | None, str]:
    """The schedule on the axis on which the rate was logged; None with the reason where they cannot be compared."""
    if schedule is not None and schedule.peak <= 0:
        return None, "the planned peak is 0, of which nothing can be a share"
    if schedule is None or rate.axis == "step":
        return schedule, ""
    if rate.axis == "epoch" and schedule.tick > 1:
        return replace(schedule, tick=1.0), ""
    counted = "neither steps nor epochs" if rate.axis == "record" else "epochs"
    return None, f"the log counts {counted} beside this rate, and the plan counts steps"


def _loss_of(run: Run) -> Loss | None:
    chosen = run.roles["train_loss"]
    if chosen.metric is None:
        return None
    rows = run.series(chosen.metric, split=chosen.split).filter(pl.col("step").is_not_null()).sort("step")
    rows = rows.filter(pl.col("rank") == pl.col("rank").min(), pl.col("value").is_not_null())
    if rows.is_empty():
        return None
    return Loss(rows["step"].cast(pl.Float64).to_numpy(), rows["value"].to_numpy())


def _row(one: Judged) -> dict[str, Any]:
    rate, seen, compared = one.rate, one.observed, one.compared
    row: dict[str, Any] = {
        "split": rate.split,
        "metric": rate.metric,
        "group": rate.group,
        "records": len(rate.values),
        "first_step": rate.step_at(0) if len(rate.values) else None,
        "last_step": rate.step_at(-1) if len(rate.values) else None,
        **_seen(seen),
        "explanation": one.explanation.name if one.explanation else next((f.name for f in one.faults), None),
        "note": one.note or None,
    }
    if compared is not None:
        row |= _planned_row(one, compared)
    return {name: row.get(name) for name in _FRAME}


def _seen(seen: Observed) -> dict[str, Any]:
    return {
        "observed": seen.kind,
        "peak": seen.peak,
        "warmup_steps": _whole(seen.warmup),
        "total_steps": _whole(seen.total),
        "min": seen.minimum,
        "milestones": [round(mark) for mark in seen.milestones],
        "gamma": seen.gamma,
        "restarts": seen.restarts,
        "held_steps": _whole(seen.stairs),
    }


def _planned_row(one: Judged, compared: Compared) -> dict[str, Any]:
    plan = compared.schedule
    return {
        "planned": plan.name,
        "planned_peak": plan.peak,
        "planned_warmup_steps": _whole(plan.warmup * plan.tick),
        "planned_total_steps": _whole(plan.end),
        "planned_min": plan.minimum,
        "deviation": compared.worst,
        "deviating_share": compared.share,
        "first_difference_step": None if compared.first is None else one.rate.step_at(compared.first),
    }


def _whole(number: float | None) -> int | None:
    return None if number is None or not np.isfinite(number) or abs(number) > 2**62 else round(number)
