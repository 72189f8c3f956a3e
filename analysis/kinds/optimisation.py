"""Kinds of the family optimisation: how the loss falls, and what gradients, learning rate and weights do."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "loss-spike": Kind("optimisation", "the loss leaps above its trend"),
    "divergence": Kind("optimisation", "the loss climbs away and does not come back"),
    "plateau": Kind("optimisation", "the loss stops improving long before the end"),
    "oscillation": Kind("optimisation", "the loss swings regularly instead of settling"),
    "exploding-gradient": Kind("optimisation", "the gradient norm grows by orders of magnitude"),
    "vanishing-gradient": Kind("optimisation", "the gradient norm shrinks to nothing"),
    "clipping": Kind("optimisation", "nearly every step is clipped, or the gradient norm was logged after it was"),
    "amp-collapse": Kind(
        "optimisation", "the loss scale of mixed precision falls to nothing, or steps are skipped again and again"
    ),
    "update-ratio": Kind("optimisation", "steps change the weights far more or far less than usual"),
    "lr-schedule": Kind("optimisation", "the learning rate does not follow its plan"),
    "dead-units": Kind("optimisation", "units that never respond"),
    "frozen-layer": Kind("optimisation", "parameters that should train do not change"),
}
