"""Kinds of the family loss accounting: whether the loss is what it claims."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "loss-sum-mismatch": Kind("loss accounting", "the components do not add up to the total"),
    "loss-display-mismatch": Kind("loss accounting", "the displayed loss is not the total"),
    "weight-not-applied": Kind("loss accounting", "a component's weighted value is not raw x weight"),
    "inactive-component": Kind("loss accounting", "a component never contributes"),
}
