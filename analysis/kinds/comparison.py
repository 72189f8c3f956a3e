"""Kinds of the family comparison: a run against others."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "regression": Kind("comparison", "a metric is worse than its baseline"),
    "not-significant": Kind("comparison", "a difference is within the noise"),
    "config-drift": Kind("comparison", "the configuration differs from its baseline"),
}
