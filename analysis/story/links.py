"""Which kind of finding can bring about which other, within how many records, and what must agree: the knowledge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from analysis.kinds import KINDS
from eventstream.errors import unknown_name

__all__ = ["LINKS", "Agree", "Link", "When", "links_from"]

When = Literal["after", "during", "around", "ever"]
Agree = Literal["rank", "model", "layer", "same-layer", "metric", "component", "same-component", "direction"]


@dataclass(frozen=True, slots=True)
class Link:
    """A finding of kind `cause` explains one of kind `effect`, because of `why`.

    `when`: `after` counts from the onset of the cause, up to `records` records of the log; `during` from its onset
    until `records` after its last step (for what lasts); `around` near its first or its last step; `ever` asks for
    no time at all (one is the other's cause by definition). `agree` names what must be the same on both sides; what
    one of them does not say agrees with all, save for `same-layer` and `same-component`, which both must name.
    `either`: both are signs of one thing, and the earlier one leads.
    """

    cause: str
    effect: str
    records: int
    why: str
    when: When = "after"
    agree: tuple[Agree, ...] = ("rank", "model")
    either: bool = False

    def __post_init__(self) -> None:
        for kind in (self.cause, self.effect):
            if kind not in KINDS:
                raise ValueError(unknown_name("finding kind", kind, KINDS))


def _each(
    cause: str, effects: Iterable[str], records: int, why: str, when: When = "after", agree: tuple[Agree, ...] = ()
) -> list[Link]:
    return [Link(cause, effect, records, why, when, agree or ("rank", "model")) for effect in effects]


def _alike(kinds: Iterable[str], records: int, why: str, agree: tuple[Agree, ...] = ("rank",)) -> list[Link]:
    return [Link(kind, kind, records, why, agree=agree, either=True) for kind in kinds]


_OF_OPTIMISATION = [
    *_each(
        "lr-schedule",
        (
            "exploding-gradient",
            "loss-spike",
            "level-shift",
            "variance-shift",
            "divergence",
            "non-finite",
            "amp-collapse",
        ),
        30,
        "a step too large leaves the valley that the loss was in",
    ),
    *_each(
        "lr-schedule",
        ("plateau", "oscillation", "vanishing-gradient"),
        10,
        "a learning rate off its plan stalls the loss or makes it swing for as long as it is off",
        "during",
    ),
    Link("lr-schedule", "update-ratio", 0, "the size of a step is the learning rate times the update", "ever"),
    *_each(
        "exploding-gradient",
        ("loss-spike", "level-shift", "variance-shift", "hidden-non-finite", "amp-collapse", "update-ratio"),
        10,
        "the step that a huge gradient makes throws the weights off",
    ),
    *_each(
        "exploding-gradient", ("divergence", "non-finite", "weight-drift"), 30, "growing gradients overflow in the end"
    ),
    Link("exploding-gradient", "divergence", 20, "loss and gradients run away together", "during", either=True),
    Link("exploding-gradient", "clipping", 10, "a norm that grew lies above the limit at every step", "during"),
    *_each(
        "loss-spike", ("divergence", "level-shift", "variance-shift"), 20, "the loss did not come back from its leap"
    ),
    *_each("loss-spike", ("non-finite", "hidden-non-finite"), 30, "a loss that leaps overflows soon, or never"),
    *_each("level-shift", ("divergence", "non-finite", "hidden-non-finite"), 20, "the loss left its level and went on"),
    *_each("variance-shift", ("divergence", "loss-spike", "non-finite"), 20, "the loss became unsteady before it left"),
    *_each(
        "divergence", ("non-finite", "hidden-non-finite", "amp-collapse"), 20, "a loss that climbs overflows", "during"
    ),
    Link("oscillation", "divergence", 20, "swings that grow do not come back", "during"),
    Link("oscillation", "plateau", 10, "a loss that swings across the valley does not sink", "during"),
    Link("vanishing-gradient", "plateau", 20, "without gradient nothing improves", "during"),
    Link(
        "dead-units", "frozen-layer", 5, "units that never respond pass no gradient", "during", ("model", "same-layer")
    ),
    Link("dead-units", "vanishing-gradient", 10, "dead units pass no gradient down", "during", ("model", "layer")),
    Link("vanishing-gradient", "frozen-layer", 10, "no gradient, no change", "during", ("model", "layer")),
    Link("frozen-layer", "update-ratio", 0, "what is frozen has an update of zero", "ever", ("model", "same-layer")),
]
_OF_NUMBERS = [
    *_alike(("non-finite",), 5, "what is not finite spreads from one metric to the next"),
    Link("non-finite", "hidden-non-finite", 5, "the gradient tells what the logged loss hides", "during", either=True),
    Link("non-finite", "amp-collapse", 20, "every overflow halves the loss scale", "during", either=True),
    Link("hidden-non-finite", "amp-collapse", 20, "every overflow halves the loss scale", "during", either=True),
    Link("non-finite", "checkpoint-non-finite", 0, "weights saved after a NaN hold it", "ever", ("rank",)),
    Link("hidden-non-finite", "source-disagreement", 0, "one log hides what the other tells", "ever", ("metric",)),
    *_alike(
        ("loss-spike", "outlier"), 3, "one step shows in every metric that is taken from it", ("rank", "direction")
    ),
    Link("loss-spike", "outlier", 3, "one step shows in every metric", agree=("rank",), either=True),
    Link("level-shift", "outlier", 5, "one event shows in every metric", agree=("rank",), either=True),
    Link("divergence", "outlier", 5, "one event shows in every metric", agree=("rank",), either=True),
    Link("exploding-gradient", "outlier", 5, "one event shows in every metric", agree=("rank",), either=True),
    Link(
        "loss-spike", "level-shift", 5, "one event shows in several metrics", agree=("rank", "direction"), either=True
    ),
    *_alike(("level-shift",), 10, "one event shows in every metric that is taken from it", ("rank", "direction")),
    *_alike(("divergence", "variance-shift", "plateau", "oscillation"), 20, "one event shows in several metrics"),
    *_alike(("exploding-gradient", "vanishing-gradient"), 10, "gradients reach layer after layer", ("rank", "model")),
]
_OF_DATA = [
    Link("step-regression", "repeated-data", 5, "the step went back, and the data with it"),
    *_each("step-regression", ("level-shift", "loss-spike"), 10, "the run went on from another state than it had left"),
    *_each("repeated-data", ("level-shift", "loss-spike", "variance-shift"), 10, "data seen before has another loss"),
    *_each("repeated-data", ("overfitting", "train-eval-gap"), 20, "data seen twice is learned by heart", "during"),
    Link("checkpoint-mismatch", "level-shift", 10, "the run went on from other weights than it had left"),
    Link("checkpoint-mismatch", "weight-drift", 10, "the run went on from other weights than it had left", "around"),
    Link("weight-drift", "level-shift", 10, "weights that leap have another loss", "during"),
    Link("divergence", "weight-drift", 10, "weights run away with the loss", "during"),
    Link("divergence", "checkpoint-non-finite", 30, "weights that run away overflow", "ever", ("rank",)),
    Link("exploding-gradient", "checkpoint-non-finite", 30, "growing gradients overflow in the end", "ever", ("rank",)),
    Link("weight-drift", "rank-divergence", 10, "one copy went another way than the others", "ever", ("metric",)),
    Link("forbidden-input", "suspiciously-good", 0, "who sees the answer scores too well", "ever"),
    Link("missing-input", "disabled-conditioning", 0, "what is not given cannot condition", "ever", ("metric",)),
    Link("overfitting", "train-eval-gap", 0, "eval leaves train behind", "ever", ("metric",)),
    Link("train-eval-scale-mismatch", "train-eval-gap", 0, "two scales lie apart by themselves", "ever", ("metric",)),
    Link("train-eval-scale-mismatch", "suspiciously-good", 0, "two scales are not comparable", "ever", ("metric",)),
    Link("stale-values", "plateau", 0, "repeated values do not fall", "ever", ("metric",)),
    Link("sampled-series", "missing-steps", 0, "a sample leaves steps out", "ever", ("metric",)),
    *_each(
        "micro-batch-steps",
        ("lr-schedule", "curriculum-off-schedule", "unfinished-run", "overlong-run", "checkpoint-mismatch"),
        0,
        "a plan in optimiser steps is held against micro-batches",
        "ever",
    ),
]
_OF_LOSSES = [
    *_alike(
        ("curriculum-bypass", "curriculum-off-schedule", "weight-not-applied"),
        2,
        "one line of code weighs all components",
    ),
    Link("curriculum-off-schedule", "curriculum-bypass", 0, "one weight", "ever", ("same-component",), either=True),
    Link("curriculum-bypass", "loss-sum-mismatch", 0, "what enters unweighted is in the total", "ever", ("component",)),
    Link("weight-not-applied", "loss-sum-mismatch", 0, "a wrong term makes a wrong sum", "ever", ("component",)),
    Link("inactive-component", "loss-sum-mismatch", 0, "a term left out", "ever", ("same-component",)),
    Link("inactive-component", "weight-not-applied", 0, "one term", "ever", ("same-component",), either=True),
    Link("curriculum-off-schedule", "inactive-component", 0, "its weight stays 0", "ever", ("same-component",)),
    Link("loss-sum-mismatch", "loss-display-mismatch", 0, "one of the two totals is wrong", "ever"),
    *_each(
        "curriculum-off-schedule",
        ("loss-sum-mismatch", "weight-not-applied"),
        2,
        "the weight that is logged is not the one that is used",
        "during",
        ("component",),
    ),
    *_each(
        "curriculum-off-schedule", ("level-shift", "loss-spike"), 10, "the weights changed at another step", "around"
    ),
    *_each("curriculum-bypass", ("level-shift", "loss-spike"), 5, "a term came in unweighted", "around"),
]
_OF_PROCESSES = [
    Link("rank-missing", "rank-divergence", 20, "the ranks average over fewer than they should", agree=()),
    *_each(
        "rank-missing", ("stall", "truncated-stream", "unfinished-run"), 20, "the others wait for a rank that is gone"
    ),
    *_alike(("rank-divergence",), 5, "a rank that left the others shows in every metric"),
    Link("rank-divergence", "throughput-drop", 20, "the slowest rank sets the pace", agree=()),
    Link(
        "non-finite", "rank-divergence", 20, "one rank computed what the others did not", agree=("rank",), either=True
    ),
    *_alike(("memory-growth", "memory-overflow", "throughput-drop"), 20, "one process holds what the others lack"),
    *_each("memory-growth", ("throughput-drop", "stall"), 20, "a full memory swaps, or frees and asks again", "during"),
    Link("memory-growth", "memory-overflow", 20, "memory that grows without end runs out", "during"),
    *_each(
        "memory-overflow",
        ("truncated-stream", "unfinished-run", "rank-missing", "stall"),
        20,
        "the system kills a process that asks for more than there is",
        "during",
        ("rank",),
    ),
    Link("stall", "clock-skew", 3, "the clock was set while nothing happened", either=True),
    *_each("clock-skew", ("throughput-drop",), 3, "a clock that was set makes steps look longer"),
    Link("stall", "missing-steps", 3, "what was not written is not there", either=True),
    *_each("stall", ("truncated-stream", "unfinished-run", "rank-missing"), 10, "the job hung and was ended", "during"),
    Link("throughput-drop", "stall", 20, "what slows down stops", "after"),
    Link("truncated-stream", "unfinished-run", 0, "the log ends because the process did", "ever"),
    Link("truncated-stream", "missing-steps", 0, "records that cannot be read leave holes", "ever", ("rank",)),
    *_each("non-finite", ("unfinished-run",), 20, "a run is stopped soon after its loss is gone"),
]
_OF_MODELS = [
    *_each(
        "discriminator-dominance",
        ("mode-collapse",),
        30,
        "a lost game teaches the generator nothing",
        "during",
        ("rank",),
    ),
    *_each(
        "generator-dominance",
        ("mode-collapse",),
        30,
        "one sample that always wins is all that is asked",
        "during",
        ("rank",),
    ),
    Link(
        "discriminator-dominance",
        "vanishing-gradient",
        20,
        "a saturated discriminator has no gradient",
        "during",
        ("rank",),
    ),
    *_alike(
        ("mode-collapse", "discriminator-dominance", "generator-dominance", "player-imbalance"),
        20,
        "one game, several measures",
    ),
    *_each("discriminator-idle", ("mode-collapse",), 0, "nothing asks the generator for variety", "ever", ("rank",)),
    Link("mode-collapse", "quality-degradation", 20, "samples that are all alike", "during", ("rank",)),
    *_each("embedding-collapse", ("low-separation", "mislabelled-sample"), 0, "all vectors point one way", "ever"),
    Link("mislabelled-sample", "low-separation", 0, "wrong labels mix the speakers", "ever"),
]

#: All links. Where several kinds could explain a finding, the nearest in time does.
LINKS: tuple[Link, ...] = (
    *_OF_OPTIMISATION,
    *_OF_NUMBERS,
    *_OF_DATA,
    *_OF_LOSSES,
    *_OF_PROCESSES,
    *_OF_MODELS,
)


def links_from(kind: str) -> tuple[Link, ...]:
    """The links in which findings of `kind` may lead."""
    return tuple(link for link in LINKS if link.cause == kind or (link.either and link.effect == kind))
