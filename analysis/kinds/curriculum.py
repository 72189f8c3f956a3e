"""Kinds of the family curriculum: planned against observed weights and phases."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "curriculum-off-schedule": Kind("curriculum", "observed weights or phases differ from the plan"),
    "curriculum-bypass": Kind("curriculum", "a component enters the total although its weight is 0"),
}
