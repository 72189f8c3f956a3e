"""What the findings of other programs may stand for: any kind that a user could read into one counts as found."""

from __future__ import annotations

__all__ = ["LOSSLINT", "TRAINPROOF", "TRAINSPOTTER"]

_BROKEN = ("non-finite", "divergence", "exploding-gradient", "amp-collapse", "hidden-non-finite", "loss-spike")
_STUCK = ("plateau", "frozen-layer", "vanishing-gradient", "dead-units", "lr-schedule", "stale-values")
_SPIKE = ("loss-spike", "outlier", "level-shift", "exploding-gradient", "variance-shift")
_ROSE = ("divergence", "level-shift", "loss-spike", "oscillation", "variance-shift")
_OVERFIT = ("overfitting", "train-eval-gap", "train-eval-scale-mismatch")
_SLOWER = ("throughput-drop", "stall", "clock-skew")

#: By the id of the check (its README, "Checks").
LOSSLINT: dict[str, tuple[str, ...]] = {
    "nan_inf": _BROKEN,
    "step_backtrack": ("step-regression", "repeated-data", "source-disagreement"),
    "loss_spike": _SPIKE,
    "divergence": _ROSE,
    "overfit_onset": _OVERFIT,
    "stagnation": _STUCK,
    "parse": ("truncated-stream",),
}

#: By the id of the rule (its RULES.md); TP-PASS, TP-NOT-CHECKED and measured facts are no findings.
TRAINPROOF: dict[str, tuple[str, ...]] = {
    "TP-NAN": _BROKEN,
    "TP-NAN-GRAD": _BROKEN,
    "TP-ZERO-LOSS": ("hidden-non-finite", "inactive-component", "suspiciously-good"),
    "TP-ZERO-LOSS-ONSET": ("hidden-non-finite", "inactive-component", "suspiciously-good", "non-finite"),
    "TP-FLAT": _STUCK,
    "TP-DIVERGE": _ROSE,
    "TP-DEAD-RUN": (*_STUCK, "divergence", "oscillation"),
    "TP-ZERO-GRAD": ("vanishing-gradient", "frozen-layer", "dead-units"),
    "TP-GRAD-SPIKE": ("exploding-gradient", "loss-spike", "outlier", "divergence", "clipping"),
    "TP-ZERO-LR": ("lr-schedule", "plateau", "frozen-layer"),
    "TP-ZERO-LR-PARTIAL": ("lr-schedule", "plateau", "frozen-layer"),
    "TP-STEP-CLIFF": _SLOWER,
    "TP-LOADER-BOUND": _SLOWER,
    "TP-OVERFIT": _OVERFIT,
}

#: By the title of the finding (one detector may have several).
TRAINSPOTTER: dict[str, tuple[str, ...]] = {
    "Loss spike": _SPIKE,
    "Diverged (non-finite values)": _BROKEN,
    "Diverged (sustained growth)": (*_ROSE, *_OVERFIT),
    "Eval metric too noisy to rank checkpoints": ("oscillation", "variance-shift"),
    "Gradient-norm explosion": ("exploding-gradient", "loss-spike", "outlier", "divergence", "clipping"),
    "Gradient clipping likely saturated": ("clipping",),
    "Suspiciously low loss early (heuristic)": ("suspiciously-good",),
    "No LR warmup detected": ("lr-schedule",),
    "LR increased after its peak": ("lr-schedule",),
    "LR discontinuity": ("lr-schedule",),
    "Overfitting onset": _OVERFIT,
    "Plateau": _STUCK,
    "Throughput regression": _SLOWER,
}
