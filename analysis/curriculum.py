"""The curriculum as it ran: planned against observed weights and phases, and components that bypass their weight."""

from __future__ import annotations

import itertools
import re
import textwrap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.accounting.bypass import bypass_finding, find_bypasses
from analysis.accounting.effective_weights import EffectiveWeight
from analysis.accounting.loss_account import account
from analysis.accounting.loss_table import LossTable, loss_table
from analysis.accounting.off_schedule import Names, judge_phases, judge_progress, judge_schedule, match_names
from analysis.accounting.plain_losses import plain_losses
from analysis.accounting.precision import FLOAT32
from analysis.accounting.schedule import infer_schedule
from analysis.accounting.weights import observed_weights
from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import SEVERITIES, Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from eventstream.errors import PlanError
from parsers.plan import Plan, is_other
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FRAME", "Curriculum", "curriculum"]

#: Columns of `Curriculum.frame`.
FRAME = pl.Schema(
    {
        "step": pl.Int64,
        "component": pl.String,
        "planned": pl.Float64,
        "observed": pl.Float64,
        "difference": pl.Float64,
        "phase": pl.String,
    }
)
#: Columns of `Curriculum.schedule`.
SCHEDULE = pl.Schema(
    {
        "component": pl.String,
        "start": pl.Float64,
        "end": pl.Float64,
        "shape": pl.String,
        "first_weight": pl.Float64,
        "last_weight": pl.Float64,
    }
)
#: What of a plan that was not understood concerns weights.
_ABOUT = re.compile(r"curriculum|phases|weight|lambda", re.IGNORECASE)


@dataclass(frozen=True, eq=False, repr=False)
class Curriculum(Result):
    """Weights of the loss components over the steps: planned, observed, and in effect.

    `frame` has one row per step and component whose weight was logged: step, component, planned (null where the plan
    says nothing), observed, difference (observed - planned), phase (the plan's, else the one logged, else empty).
    `schedule` is the schedule inferred from the observed weights: component, start and end (steps), shape (constant,
    linear, cosine, free), first_weight, last_weight. `bypasses` are the components that enter with weight 0.
    """

    schedule: pl.DataFrame = field(default_factory=lambda: SCHEDULE.to_frame())
    bypasses: tuple[EffectiveWeight, ...] = ()

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Observed weights as lines over the planned ones as wide grey steps; options go to the observed lines.

        Components that enter with weight 0 are marked with crosses, their effective weight in the legend.
        """
        drawn = axes(ax)
        effective = {b.component: f" (weight 0, enters with {b.weight:#.3g})" for b in self.bypasses}
        looks = itertools.cycle(itertools.product(("-", "--", ":", "-."), COLOURS.values()))
        with style():
            known = self.frame.drop_nulls("step").sort("component", "step", maintain_order=True)
            for (name,), part in known.group_by("component", maintain_order=True):
                dash, colour = next(looks)
                steps = part["step"].to_numpy()
                planned = part["planned"].fill_null(float("nan")).to_numpy()
                draw_series(drawn, steps, planned, color="0.6", lw=4, alpha=0.5, drawstyle="steps-post")
                marks = {"marker": "x", "ms": 6, "markevery": 0.06} if name in effective else {}
                marks = marks or ({"marker": "o", "ms": 4} if part.height < 3 else {})
                look = {"label": f"{name}{effective.get(str(name), '')}", "color": colour, "ls": dash, **marks}
                draw_series(drawn, steps, part["observed"].to_numpy(), **{**look, **options})
            worst = (
                self.findings[0].message if self.findings else "weights are as planned" if self._planned else "weights"
            )
            title = textwrap.shorten(f"{self.run}: {worst}", 105, placeholder=" ...")
            drawn.set_title(title, parse_math=False, fontsize=10)
            drawn.set_xlabel("step")
            drawn.set_ylabel("weight in the loss")
            if known.height:
                for text in drawn.legend().get_texts():
                    text.set_parse_math(False)  # names are data
        return drawn

    @property
    def _planned(self) -> bool:
        return self.frame["planned"].count() > 0


def curriculum(run: Run, *, limits: Limits = DEFAULT_LIMITS) -> Curriculum:
    """Whether the curriculum ran as planned, and whether the loss obeyed it.

    Observed weights are those of the loss records (`losses/{c}/weight`), else `curriculum/weight/{c}`; they are held
    against `run.planned` within their printed precision (a weight that only a setting such as `lambda_adv` tells,
    where the observed one is constant). Finding `curriculum-off-schedule` names the first step that
    differs, by how much, and a shift, another unit (epochs, micro-batches) or a wrong number of steps where that
    explains it. Finding `curriculum-bypass`: a component enters the total although its weight (logged, else planned)
    is 0; the effective weight is estimated with its 95 % interval, and more than 1 % of the total is critical.

    Without a plan the schedule is only inferred (`Curriculum.schedule`). A plan that cannot be read, components that
    the log never shows, and a run without weights are said in `not_applicable`; nothing of it raises. Steps logged
    repeatedly are compared each; NaN weights are not compared.

    >>> from parsers.finish import finish
    >>> tags = ["losses/kd/raw", "losses/kd/weight", "losses/kd/contribution", "losses/total"]
    >>> rows = pl.DataFrame({"step": [1] * 4, "value": [8.0, 0.0, 0.5, 5.0], "tag": tags})
    >>> result = curriculum(finish("demo", "demo", "jsonl", rows))
    >>> result.findings[0].kind, result.bypasses[0].weight, result.not_applicable[0].reason
    ('curriculum-bypass', 0.0625, 'no plan')
    """
    gauge = Gauge(limits)
    observed = observed_weights(run)
    plan, problem = _plan(run, observed)
    names = match_names(plan, observed["component"].unique().to_list())
    frame = _compared(plan, observed, names)
    table = loss_table(run)
    if table.components.is_empty():
        table = plain_losses(run, plan).table or table
    bypasses = _bypasses(table, plan, names)
    findings = [bypass_finding(run.name, found) for found in bypasses]
    if not problem and frame["planned"].count():
        findings += judge_schedule(run, plan, frame, names, gauge)
        findings += judge_phases(run, plan)
        findings += judge_progress(run, plan)
        findings += _unmatched(run, plan, frame, names)
    return Curriculum(
        run.name,
        frame.select(FRAME.names()),
        findings=tuple(sorted(findings, key=lambda f: -SEVERITIES.index(f.severity))),
        not_applicable=tuple(_not_judged(plan, problem, frame, names, table)),
        measures=gauge.measures,
        schedule=_inferred(observed),
        bypasses=tuple(bypasses),
    )


def _plan(run: Run, observed: pl.DataFrame) -> tuple[Plan, str]:
    plan = run.planned
    # the weight in a setting of its own is where a ramp ends as often as it is constant: a ramp is not held against it
    ramps = [name for name in plan.hints if not _is_constant(observed, name)]
    about = tuple(told for told in plan.not_understood if told.startswith("plan.") or _ABOUT.search(told))
    plan = replace(plan.without(ramps), not_understood=about)
    try:
        Plan.from_mapping({key: value for key, value in run.plan.items() if not is_other(key, value)})
    except PlanError as error:
        return plan, f"the plan cannot be used: {error}"
    if plan.components:
        return plan, ""
    return plan, "the plan states no weights" if run.plan else "no plan"


def _is_constant(observed: pl.DataFrame, component: str) -> bool:
    return observed.filter(pl.col("component") == component)["observed"].drop_nulls().n_unique() == 1


def _compared(plan: Plan, observed: pl.DataFrame, names: Names) -> pl.DataFrame:
    """The frame, with `tolerance` and `epoch` besides."""
    steps = observed["step"].drop_nulls().unique().sort()
    planned = plan.planned_weights(steps.to_numpy()).select(
        "step", pl.col("component").replace(names.logged), planned="weight", planned_phase="phase"
    )
    rows = observed.join(planned, on=["step", "component"], how="left", maintain_order="left")
    return rows.with_columns(
        difference=pl.col("observed") - pl.col("planned"),
        phase=pl.coalesce("planned_phase", "phase").fill_null(""),
        tolerance=pl.col("half") + 8 * FLOAT32 * pl.max_horizontal(pl.col("observed").abs(), 1.0),
    )


def _bypasses(table: LossTable, plan: Plan, names: Names) -> list[EffectiveWeight]:
    rows, totals = account(table, aggregation=plan.aggregation)
    if plan.components:
        steps = rows["step"].drop_nulls().unique().to_numpy()
        logged = match_names(plan, rows["component"].unique().to_list()).logged
        planned = plan.planned_weights(steps).select("step", pl.col("component").replace(logged), planned="weight")
        rows = rows.join(planned, on=["step", "component"], how="left", maintain_order="left")
        rows = rows.with_columns(weight=pl.coalesce("weight", "planned"))
    return find_bypasses(rows, totals)


def _inferred(observed: pl.DataFrame) -> pl.DataFrame:
    found = []
    for (name,), part in observed.drop_nulls(["step", "observed"]).group_by("component", maintain_order=True):
        part = part.unique("step", keep="last").sort("step")
        weights = part["observed"].to_numpy()
        half = part["half"].max()
        error = max(half if isinstance(half, float) else 0.0, 1e-6 * max(float(abs(weights).max()), 1e-30))
        pieces = infer_schedule(part["step"].to_numpy().astype(float), weights, error)
        found += [(str(name), s.start, s.end, s.shape, s.first, s.last) for s in pieces]
    return pl.DataFrame(found, schema=SCHEDULE, orient="row")


def _not_judged(plan: Plan, problem: str, frame: pl.DataFrame, names: Names, table: LossTable) -> list[NotApplicable]:
    kind = "curriculum-off-schedule"
    said = []
    if problem or frame["planned"].count() == 0:
        reason = problem or ("no weights are logged" if frame.is_empty() else "the plan and the log share no weights")
        said.append(NotApplicable(kind, "; ".join([reason, *_notes(plan, names, problem)])))
    rows = table.components
    if rows["weight"].count() == 0 and not plan.components:
        said.append(NotApplicable("curriculum-bypass", "no weights of loss components are logged or planned"))
    elif rows["contribution"].count() + rows["weighted"].count() + table.totals["total"].count() == 0:
        said.append(NotApplicable("curriculum-bypass", "neither contributions nor a total loss are logged"))
    return said


def _notes(plan: Plan, names: Names, problem: str) -> list[str]:
    """What of the plan could not be held against the log."""
    unread = [f"not understood: {text}" for text in plan.not_understood]
    return unread if problem else [*names.unknown, *unread]


def _unmatched(run: Run, plan: Plan, frame: pl.DataFrame, names: Names) -> list[Finding]:
    """Info about parts of the plan that were left out, where the others were judged."""
    if frame["planned"].count() == 0:
        return []
    missing = [(name, text) for name, text in zip(names.missing, names.unknown, strict=True)]
    notes = [(None, text) for text in plan.not_understood]
    return [
        Finding(
            "curriculum-off-schedule",
            "info",
            run.name,
            f"not held against the log: {text}",
            metric=name,
            evidence={"planned_components": len(plan.components), "logged_components": len(names.logged)},
            causes=("the plan and the code name the component differently", "the component is never logged"),
        )
        for name, text in [*missing, *notes]
    ]
