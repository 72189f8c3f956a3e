"""Kinds of the family numbers: values that do not fit their series."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "non-finite": Kind("numbers", "a metric is NaN or infinite"),
    "outlier": Kind("numbers", "a value lies outside what its neighbours allow"),
    "level-shift": Kind("numbers", "a metric jumps to another level and stays there"),
    "variance-shift": Kind("numbers", "a metric becomes much noisier, or much quieter, and stays so"),
}
