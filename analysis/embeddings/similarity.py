"""Mean cosine of same and of different speakers, with spread, in O(n d): from the sum of each speaker's vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.vectors import Vectors

__all__ = ["Similarity", "mean_similarities", "mean_similarity", "similarity", "speaker_sums"]

_BLOCK = 8192

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Similarity:
    """Mean and standard deviation (population) of the cosine over all pairs of each sort; NaN where there is none."""

    same_mean: float
    same_std: float
    different_mean: float
    different_std: float

    @property
    def separation(self) -> float:
        """How much nearer the same speaker is: `same_mean - different_mean`."""
        return self.same_mean - self.different_mean

    @property
    def d_prime(self) -> float:
        """Distance of the two means in units of the root mean of the two variances."""
        spread = math.sqrt((self.same_std**2 + self.different_std**2) / 2)
        return self.separation / spread if spread > 0 else math.nan


def speaker_sums(v: Vectors) -> Floats:
    """Sum of the unit vectors of each speaker (k, d), in float64."""
    if not v.speakers:
        return np.zeros((0, v.unit.shape[1]))
    return np.add.reduceat(v.unit[: v.labelled], v.starts[:-1], axis=0, dtype=np.float64)


def similarity(v: Vectors, sums: Floats | None = None) -> Similarity:
    """Means and standard deviations over all pairs of labelled rows; nothing of size n x n is made.

    With S the sum of a speaker's m unit vectors, the cosines of its pairs add up to (|S|^2 - m) / 2, and those of all
    pairs likewise from the sum of all: O(n d). Their squares add up to the squared Frobenius norm of X'X: O(n d^2). A
    row is no pair with itself. All sums in float64.

    >>> from analysis.embeddings.vectors import prepare
    >>> s = similarity(prepare([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], list("aabb")))
    >>> s.same_mean, s.different_mean, s.separation
    (1.0, 0.0, 1.0)
    """
    S = speaker_sums(v) if sums is None else sums
    X = v.unit[: v.labelled]
    own = np.einsum("ij,ij->i", X, X, dtype=np.float64)
    same_mean, different_mean = mean_similarities(v, S)
    all_squares = (_frobenius(X) - float(own @ own)) / 2
    same_squares = _same_frobenius(v, own) / 2
    return Similarity(
        same_mean,
        _spread(same_mean, same_squares, v.same_pairs),
        different_mean,
        _spread(different_mean, all_squares - same_squares, v.different_pairs),
    )


def mean_similarities(v: Vectors, sums: Floats | None = None) -> tuple[float, float]:
    """Mean cosine over all pairs of the same and of different speakers, O(n d); NaN where there is no such pair."""
    S = speaker_sums(v) if sums is None else sums
    X = v.unit[: v.labelled]
    own = float(np.einsum("ij,ij->", X, X, dtype=np.float64))
    total = S.sum(axis=0)
    same = (float(np.vdot(S, S)) - own) / 2
    different = (float(total @ total) - float(np.vdot(S, S))) / 2
    return (
        same / v.same_pairs if v.same_pairs else math.nan,
        different / v.different_pairs if v.different_pairs else math.nan,
    )


def mean_similarity(v: Vectors) -> float:
    """Mean cosine over all pairs of rows, labelled or not; NaN for fewer than two."""
    n = len(v.unit)
    if n < 2:
        return math.nan
    total = v.unit.sum(axis=0, dtype=np.float64)
    own = float(np.einsum("ij,ij->", v.unit, v.unit, dtype=np.float64))
    return (float(total @ total) - own) / (n * (n - 1))


def _spread(mean: float, squares: float, pairs: int) -> float:
    return math.sqrt(max(squares / pairs - mean * mean, 0.0)) if pairs else math.nan


def _frobenius(X: NDArray[np.float32]) -> float:
    gram = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK].astype(np.float64)
        gram += block.T @ block
    return float(np.einsum("ij,ij->", gram, gram))


def _same_frobenius(v: Vectors, own: Floats) -> float:
    """Squared cosines of all ordered pairs of one speaker; through the smaller of the two Gram matrices."""
    total = 0.0
    for start, stop in zip(v.starts[:-1], v.starts[1:], strict=True):
        if stop - start < 2:
            continue
        block = v.unit[start:stop].astype(np.float64)
        gram = block @ block.T if len(block) <= block.shape[1] else block.T @ block
        total += float(np.vdot(gram, gram)) - float(np.vdot(own[start:stop], own[start:stop]))
    return total
