"""Kinds of the family curriculum: planned against observed weights and phases."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "curriculum-off-schedule": Kind(
        "curriculum",
        "observed weights or phases differ from the plan",
        needs="a plan with weights or phases, and logged weights or phases of the same names",
        statistic="the typical difference between observed and planned weight beyond printed precision, as a share "
        "of the "
        "component's largest weight; phases by name; progress against step / max_steps",
        severity="info, also for one record at a change; a warning from the limit on, for phases and for progress; "
        "critical from ten times the limit (10 %) in a quarter of the records",
        limit=Limit(
            "relative_difference",
            0.01,
            "share of the component's largest weight",
            "a definition: a weight that follows its plan within 1 % trains the same model",
        ),
        causes=(
            "the schedule is shifted, counts epochs or micro-batches, or was given another number of steps",
            "the schedule in the code is not the one in the plan",
            "the step counter of the schedule was not restored at a resume",
        ),
        suggestions=(
            "drive the curriculum by the optimiser step that is logged",
            "compare the plan's phases with the schedule in the code at the first differing step",
        ),
        reference="the event-stream contract (docs/event-stream.md), section Plan",
    ),
    "curriculum-bypass": Kind(
        "curriculum",
        "a component enters the total although its weight is 0",
        needs="weights (logged or planned), and contributions or a total loss",
        statistic="what is printed as entering while the weight is 0, beyond printed precision; what is left of the "
        "totals, "
        "explained by raw values of such components (least squares, with a 95 % interval of the effective weight)",
        severity="a warning; critical from 1 % of the total",
        causes=(
            "a fixed factor is applied where the curriculum weight belongs",
            "the component is added inside a module (router, auxiliary head) that does not know the curriculum",
        ),
        suggestions=(
            "multiply the component by its curriculum weight at the place where the total is summed",
            "log the weight at the moment of summing, not where the schedule is computed",
            "or declare the effective weight in the plan if the component is meant to be active",
        ),
        reference="the event-stream contract (docs/event-stream.md), section Plan and record `losses`",
    ),
}
