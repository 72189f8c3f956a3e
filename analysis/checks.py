"""The checks that `diagnose` runs: one entry each, naming the analysis and the kinds it judges."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from analysis.kinds import KINDS
from analysis.limits import DEFAULT_LIMITS, Limits
from analysis.result import Result
from parsers.run import Run

__all__ = ["CHECKS", "Check"]


@dataclass(frozen=True, slots=True)
class Check:
    """One analysis in the diagnosis: `module.function(run) -> Result`, imported when it runs, and the kinds it judges.

    For each of `kinds` the result holds findings, or says `not_applicable`, or has looked and found nothing. `also`
    are kinds of another check that this one judges too, by other evidence: such a kind is unjudged where both say so.
    An analysis of which some kind has a limit takes `limits` as well.
    """

    name: str
    module: str
    kinds: tuple[str, ...]
    also: tuple[str, ...] = ()

    def __call__(self, run: Run, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The result for `run`."""
        function: Callable[..., Result] = getattr(importlib.import_module(self.module), self.name)
        if any(KINDS[kind].limit is not None for kind in self.kinds):
            return function(run, limits=limits)
        return function(run)


CHECKS: tuple[Check, ...] = (
    Check("stream", "analysis.stream", ("truncated-stream", "missing-steps", "step-regression", "clock-skew", "stall")),
    Check("plan", "analysis.plan", ("unfinished-run", "overlong-run", "checkpoint-mismatch")),
    Check("sources", "analysis.sources", ("source-disagreement",)),
    Check("ranks", "analysis.ranks", ("rank-missing", "rank-divergence")),
    Check("repeated_data", "analysis.repeated_data", ("repeated-data",)),
    Check(
        "hidden_facts",
        "analysis.hidden_facts",
        ("hidden-non-finite", "stale-values", "sampled-series", "micro-batch-steps", "epoch-only"),
    ),
    Check("anomalies", "analysis.anomalies", ("non-finite", "outlier", "level-shift", "loss-spike", "divergence")),
    Check("convergence", "analysis.convergence", ("plateau", "oscillation", "variance-shift")),
    Check(
        "gradients",
        "analysis.gradients",
        (
            "exploding-gradient",
            "vanishing-gradient",
            "dead-units",
            "frozen-layer",
            "clipping",
            "amp-collapse",
            "update-ratio",
        ),
    ),
    Check("learning_rate", "analysis.learning_rate", ("lr-schedule",)),
    Check(
        "train_eval_gap",
        "analysis.train_eval_gap",
        ("overfitting", "train-eval-gap", "train-eval-scale-mismatch", "suspiciously-good"),
    ),
    Check(
        "losses",
        "analysis.losses",
        ("loss-sum-mismatch", "loss-display-mismatch", "weight-not-applied", "inactive-component"),
    ),
    Check("curriculum", "analysis.curriculum", ("curriculum-off-schedule", "curriculum-bypass")),
    Check(
        "contracts",
        "analysis.contracts",
        ("missing-input", "missing-output", "forbidden-input", "device-mismatch", "disabled-conditioning"),
    ),
    Check("resources", "analysis.resources", ("memory-growth", "memory-overflow", "throughput-drop")),
    Check(
        "gan",
        "analysis.gan",
        (
            "mode-collapse",
            "discriminator-dominance",
            "generator-dominance",
            "discriminator-idle",
            "player-imbalance",
            "adversarial-phase",
            "discriminator-overfitting",
        ),
    ),
    Check(
        "speaker_embeddings",
        "analysis.speaker_embeddings",
        ("embedding-collapse", "low-separation", "mislabelled-sample"),
    ),
    Check(
        "checkpoints",
        "analysis.checkpoints",
        ("checkpoint-corrupt", "checkpoint-unsafe", "checkpoint-non-finite", "weight-drift"),
        also=("checkpoint-mismatch", "dead-units", "frozen-layer", "rank-divergence"),
    ),
)
