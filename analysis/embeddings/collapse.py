"""Collapse: do the vectors still fill their space, or do they all point one way or lie in a few dimensions?"""

from __future__ import annotations

import numpy as np

from analysis.embeddings.vectors import Vectors

__all__ = ["effective_rank", "expected_rank", "rank_floor"]

_BLOCK = 8192


def effective_rank(v: Vectors) -> float:
    """Number of dimensions that the unit vectors fill around their mean: exp of the entropy of the singular values.

    Roy and Vetterli 2007 (EUSIPCO), on the centred vectors; between 1 and min(n - 1, d). 0 where all vectors are the
    same, or there are fewer than two. O(n d^2), float64.

    >>> from analysis.embeddings.vectors import prepare
    >>> round(effective_rank(prepare([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])), 6)
    2.0
    """
    n, d = v.unit.shape
    if n < 2:
        return 0.0
    mean = v.unit.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((d, d))
    for start in range(0, n, _BLOCK):
        block = v.unit[start : start + _BLOCK] - mean
        scatter += block.T @ block
    powers = np.maximum(np.linalg.eigvalsh(scatter), 0.0)
    # unit vectors are known to float32: less spread than its rounding leaves is none
    if powers.sum() < n * 1e-13:
        return 0.0
    singular = np.sqrt(powers[powers > powers[-1] * 1e-12])
    share = singular / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def expected_rank(v: Vectors) -> int:
    """Dimensions that could be filled: tight speakers span no more than one less than their number."""
    return min(int(v.unit.shape[1]), len(v.unit) - 1, *([v.speakers - 1] if v.speakers > 1 else []))


def rank_floor(v: Vectors) -> float:
    """Effective rank below which the vectors have collapsed: 5 % of what could be filled, 2 % without labels.

    Without labels the number of speakers, which bounds the rank, is unknown, hence the lower bar. At least 2; 0 (no
    verdict) where fewer than eight dimensions could be filled.
    """
    could = expected_rank(v)
    return max(2.0, (0.05 if v.speakers else 0.02) * could) if could >= 8 else 0.0
