"""Kinds of the family generalisation: train against eval."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "overfitting": Kind("generalisation", "the eval loss rises while the train loss falls"),
    "train-eval-gap": Kind("generalisation", "train and eval loss lie far apart"),
    "train-eval-scale-mismatch": Kind("generalisation", "train and eval loss are not on the same scale"),
    "suspiciously-good": Kind("generalisation", "eval is better than it has any right to be"),
}
