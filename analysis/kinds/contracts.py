"""Kinds of the family contracts: which inputs and outputs reach which stage."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "missing-input": Kind(
        "contracts",
        "a required input is not there",
        needs="recorded `inputs` events, and a plan or contract that names what a stage requires",
        statistic="whether any recorded event of the stage holds the required key (shell patterns are allowed), and "
        "whether others of the same split lack it",
        severity="critical; a warning where half of the events or fewer lack it",
        causes=(
            "the key is dropped on the way (collate function, unused-column removal, a renamed argument)",
            "the stage records only a part of its tensors",
        ),
        suggestions=(
            "print the keys right before the stage and follow the key back to the data set",
            "check the spelling in the plan against the model's forward signature",
        ),
        reference="the event-stream contract (docs/event-stream.md), section Plan",
    ),
    "missing-output": Kind(
        "contracts",
        "a required output was never seen",
        needs="recorded `outputs` events, and a plan or contract that names what a stage must give",
        statistic="whether any recorded event of the stage holds the required key",
        severity="critical",
        causes=(
            "the key is dropped on the way (a renamed output, a branch that is off in this mode)",
            "the stage records only a part of its tensors",
        ),
        suggestions=(
            "print the keys of what the model returns at that stage",
            "check the spelling in the plan against the model's output",
        ),
        reference="the event-stream contract (docs/event-stream.md), section Plan",
    ),
    "forbidden-input": Kind(
        "contracts",
        "an input reached a stage that must not see it",
        needs="recorded `inputs` events, and a plan or contract that names what a stage must not see",
        statistic="events of the stage that hold the forbidden key, the stage where it came in and the last one "
        "without it",
        severity="critical; info where it was held before and taken out on the way",
        causes=(
            "an earlier stage puts it in, or lets it through (the one that is named)",
            "the whole batch is passed on instead of the keys that the stage needs",
        ),
        suggestions=(
            "pass the stage its own keys by name instead of the whole batch",
            "remove the key where the stage that is named hands on; scores so far may owe to it",
        ),
        reference="S. Kapoor, A. Narayanan, 'Leakage and the reproducibility crisis in machine-learning-based science' "
        "(Patterns, 2023)",
    ),
    "device-mismatch": Kind(
        "contracts",
        "tensors of one batch lie on different devices",
        needs="recorded `inputs` or `outputs` events with the devices of their tensors",
        statistic="events in which the tensors of one stage name more than one device",
        severity="a warning",
        causes=("a tensor made inside the step stays on the CPU", "part of the batch is not moved to the device"),
        suggestions=(
            "move the whole batch with one call right after loading",
            "make new tensors with the device of an input tensor",
        ),
        reference="PyTorch notes, CUDA semantics: operations across devices are not allowed by default",
    ),
    "disabled-conditioning": Kind(
        "contracts",
        "a conditioning input is there but switched off",
        needs="status reports of conditioning inputs (DISABLED, NOT FOUND) in the event stream or a debug log",
        statistic="the share of status reports that call the input disabled or not found; whether another stage held "
        "it",
        severity="info up to half of the reports; a warning above, or where all are from one step to the end, critical "
        "where the plan requires the input",
        causes=(
            "the input is computed but switched off by configuration",
            "an earlier stage does not hand it on, or the flag or module that makes it was not loaded",
        ),
        suggestions=(
            "check the flag that switches it on, and that its encoder is loaded",
            "follow it from where it is made to the stage that reports",
        ),
        reference="the event-stream contract (docs/event-stream.md), `status` of inputs and outputs in section Kinds",
    ),
}
