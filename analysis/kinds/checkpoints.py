"""Kinds of the family checkpoints: what the files of weights say."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "checkpoint-corrupt": Kind("checkpoints", "a checkpoint is damaged or incomplete"),
    "checkpoint-unsafe": Kind("checkpoints", "a checkpoint would run code when opened"),
    "checkpoint-non-finite": Kind("checkpoints", "weights are NaN or infinite"),
    "checkpoint-mismatch": Kind("checkpoints", "a checkpoint does not fit its run or its neighbour"),
    "weight-drift": Kind("checkpoints", "weights moved further than they should"),
}
