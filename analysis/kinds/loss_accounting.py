"""Kinds of the family loss accounting: whether the loss is what it claims."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "loss-sum-mismatch": Kind(
        "loss accounting",
        "the components do not add up to the total",
        needs="a total loss and all its components in one record",
        statistic="the difference between total and sum (or the mean that the plan declares) beyond printed "
        "precision and "
        "float32 arithmetic; its typical size as a share of the total; whether a mean, a factor, a component left out "
        "or counted twice, a hidden component or a constant explains it",
        severity="info; a warning from the limit on, and for a component left out or counted twice; critical from "
        "fifty "
        "times the limit (5 %) in half of the records",
        limit=Limit(
            "relative_difference",
            1e-3,
            "share of the total",
            "a definition: smaller ones are averages over other batches; what is beyond printing is told all the same",
        ),
        causes=(
            "a term that is not logged is part of the total",
            "total and components come from different batches, ranks or moments",
            "a component is left out, counted twice, or scaled",
        ),
        suggestions=(
            "log every term at the place where the total is summed",
            "declare the aggregation (sum or mean) in the plan",
            "look for regularisation terms that are added to the total and not logged",
        ),
        reference="the event-stream contract (docs/event-stream.md), record `losses` in section Kinds",
    ),
    "loss-display-mismatch": Kind(
        "loss accounting",
        "the displayed loss is not the total",
        needs="a displayed loss beside the total, as `Recorder.losses` records both",
        statistic="their typical difference as a share of the total, beyond printed precision, and whether scaling, "
        "a delay "
        "of one record, a running mean or smoothing explains it",
        severity="info where it is explained or small; a warning from the limit on",
        limit=Limit(
            "relative_difference",
            1e-3,
            "share of the total",
            "a definition: below it the third digit of what people watch is the same",
        ),
        causes=(
            "the progress bar shows an average, or the loss of another step",
            "a term is added to the one and not to the other",
        ),
        suggestions=(
            "display the value that is passed to backward()",
            "label the displayed value when it is smoothed or scaled",
        ),
        reference="the event-stream contract (docs/event-stream.md), record `losses` in section Kinds",
    ),
    "weight-not-applied": Kind(
        "loss accounting",
        "a component's weighted value is not raw x weight",
        needs="a component's raw value, weight, and weighted value or contribution in one record",
        statistic="the typical relative difference between what enters and raw x weight, beyond printed precision; one "
        "factor common to all components is another convention",
        severity="info, also where only the records at a change of weight are off; a warning from the limit on; "
        "critical "
        "from twenty times the limit (10 %) in half of the records",
        limit=Limit(
            "relative_difference",
            0.005,
            "share of raw x weight",
            "a definition: half a per cent is less than any weight that somebody would set differently",
        ),
        causes=(
            "another weight is applied to the component than the logged one",
            "the weight is logged one step before or after it is applied",
            "the logged raw value is averaged differently from the weighted one",
        ),
        suggestions=(
            "compare the weight at the place where the component is multiplied with the one that is logged",
            "log raw, weight and weighted value at the same moment",
        ),
        reference="the event-stream contract (docs/event-stream.md), record `losses` in section Kinds",
    ),
    "inactive-component": Kind(
        "loss accounting",
        "a component never contributes",
        needs="components with a weight, a weighted value or a contribution",
        statistic="whether everything that a component adds to the total is exactly 0",
        severity="a warning where its weight, or the plan's, is above 0 in three records or more; else info",
        causes=("its loss is exactly 0: inputs missing, masked out, or detached",),
        suggestions=("check that the component is computed and added",),
        reference="the event-stream contract (docs/event-stream.md), record `losses` in section Kinds",
    ),
}
