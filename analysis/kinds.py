"""The kinds of finding: stable names that users put into configuration files, with their family and meaning."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding: its family and what it means in one sentence."""

    family: str
    meaning: str


_TABLE: dict[str, dict[str, str]] = {
    "stream": {
        "truncated-stream": "the log ends inside a record, or parts of it cannot be read",
        "missing-steps": "steps that the log's own rhythm promises are not there",
        "step-regression": "the step counter goes back without a restart",
        "clock-skew": "the wall clock goes back or jumps",
        "rank-missing": "a process of the job left no log, or stopped early",
        "rank-divergence": "processes that should agree report different values",
        "repeated-data": "after a resume the run is fed data again that it was trained on before",
        "source-disagreement": "logs of one run tell different numbers",
        "stall": "the log stands still far longer than its rhythm",
        "hidden-non-finite": "the logged loss looks finite where the loss itself was NaN or infinite",
        "stale-values": "a metric repeats its last evaluation on rows where nothing was evaluated",
        "sampled-series": "a series is a random sample of what was logged, with the rest left out",
        "micro-batch-steps": "steps count micro-batches, of which several make one update",
        "epoch-only": "the log counts epochs and nothing finer",
    },
    "numbers": {
        "non-finite": "a metric is NaN or infinite",
        "outlier": "a value lies outside what its neighbours allow",
        "level-shift": "a metric jumps to another level and stays there",
    },
    "optimisation": {
        "loss-spike": "the loss leaps above its trend",
        "divergence": "the loss climbs away and does not come back",
        "plateau": "the loss stops improving long before the end",
        "oscillation": "the loss swings regularly instead of settling",
        "exploding-gradient": "the gradient norm grows by orders of magnitude",
        "vanishing-gradient": "the gradient norm shrinks to nothing",
        "clipping": "nearly every step is clipped, or the gradient norm was logged after it was",
        "amp-collapse": "the loss scale of mixed precision falls to nothing, or steps are skipped again and again",
        "update-ratio": "steps change the weights far more or far less than usual",
        "lr-schedule": "the learning rate does not follow its plan",
        "dead-units": "units that never respond",
        "frozen-layer": "parameters that should train do not change",
    },
    "generalisation": {
        "overfitting": "the eval loss rises while the train loss falls",
        "train-eval-gap": "train and eval loss lie far apart",
        "train-eval-scale-mismatch": "train and eval loss are not on the same scale",
        "suspiciously-good": "eval is better than it has any right to be",
    },
    "loss accounting": {
        "loss-sum-mismatch": "the components do not add up to the total",
        "loss-display-mismatch": "the displayed loss is not the total",
        "weight-not-applied": "a component's weighted value is not raw x weight",
        "inactive-component": "a component never contributes",
    },
    "curriculum": {
        "curriculum-off-schedule": "observed weights or phases differ from the plan",
        "curriculum-bypass": "a component enters the total although its weight is 0",
    },
    "contracts": {
        "missing-input": "a required input was never seen",
        "missing-output": "a required output was never seen",
        "forbidden-input": "an input reached a stage that must not see it",
        "device-mismatch": "tensors of one batch lie on different devices",
        "disabled-conditioning": "a conditioning input is there but switched off",
    },
    "resources": {
        "memory-growth": "memory grows without end",
        "memory-overflow": "memory ran out, or is about to",
        "throughput-drop": "training became slower and stayed so",
    },
    "GAN": {
        "mode-collapse": "the generator's outputs lose their diversity",
        "discriminator-dominance": "the discriminator wins outright and the generator learns nothing",
        "generator-dominance": "the generator fools the discriminator outright",
    },
    "embeddings": {
        "embedding-collapse": "the embeddings fill few dimensions, or all point one way",
        "low-separation": "same and different labels are hardly told apart",
        "mislabelled-sample": "a sample lies among another label's samples",
    },
    "checkpoints": {
        "checkpoint-corrupt": "a checkpoint is damaged or incomplete",
        "checkpoint-unsafe": "a checkpoint would run code when opened",
        "checkpoint-non-finite": "weights are NaN or infinite",
        "checkpoint-mismatch": "a checkpoint does not fit its run or its neighbour",
        "weight-drift": "weights moved further than they should",
    },
    "samples": {
        "quality-degradation": "generated samples become worse",
        "silent-or-clipped-audio": "an audio sample is silent or clipped",
    },
    "comparison": {
        "regression": "a metric is worse than its baseline",
        "not-significant": "a difference is within the noise",
        "config-drift": "the configuration differs from its baseline",
    },
}

KINDS: dict[str, Kind] = {
    kind: Kind(family, meaning) for family, kinds in _TABLE.items() for kind, meaning in kinds.items()
}
