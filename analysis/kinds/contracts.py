"""Kinds of the family contracts: which inputs and outputs reach which stage."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "missing-input": Kind("contracts", "a required input was never seen"),
    "missing-output": Kind("contracts", "a required output was never seen"),
    "forbidden-input": Kind("contracts", "an input reached a stage that must not see it"),
    "device-mismatch": Kind("contracts", "tensors of one batch lie on different devices"),
    "disabled-conditioning": Kind("contracts", "a conditioning input is there but switched off"),
}
