"""Kinds of the family resources: memory and speed."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "memory-growth": Kind("resources", "memory grows without end"),
    "memory-overflow": Kind("resources", "memory ran out, or is about to"),
    "throughput-drop": Kind("resources", "training became slower and stayed so"),
}
