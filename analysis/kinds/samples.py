"""Kinds of the family samples: generated samples."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "quality-degradation": Kind("samples", "generated samples become worse"),
    "silent-or-clipped-audio": Kind("samples", "an audio sample is silent or clipped"),
}
