"""Kinds of the family embeddings: how well embeddings tell labels apart."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "embedding-collapse": Kind("embeddings", "the embeddings fill few dimensions, or all point one way"),
    "low-separation": Kind("embeddings", "same and different labels are hardly told apart"),
    "mislabelled-sample": Kind("embeddings", "a sample lies among another label's samples"),
}
