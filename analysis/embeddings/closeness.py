"""How near every utterance lies to its own speaker and to the nearest other one: silhouette and centroids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.similarity import speaker_sums
from analysis.embeddings.vectors import Vectors

__all__ = ["Closeness", "closeness", "davies_bouldin"]

#: Entries of one block of rows x speakers: 16 MB, near the cache, and large enough for BLAS.
_CELLS = 2_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Closeness:
    """One entry per labelled row. Mean cosines: `own` to the other rows of its speaker, `other` to `nearest`.

    `own_centroid` is the cosine to the direction of its speaker without itself, `other_centroid` to that of
    `nearest_centroid`. `silhouette` is Rousseeuw's, in cosine distance. A speaker's only row has `own` and
    `own_centroid` NaN and silhouette 0; with one speaker the others are NaN and `nearest` -1.
    """

    own: Floats
    other: Floats
    nearest: NDArray[np.int64]
    own_centroid: Floats
    other_centroid: Floats
    nearest_centroid: NDArray[np.int64]
    silhouette: Floats


def closeness(v: Vectors, sums: Floats | None = None) -> Closeness:
    """Distances of each labelled row to all speakers in O(n k d), without an n x n matrix; float64.

    The mean cosine of x to a speaker with vector sum S and m rows is x.S / m, to its own speaker
    (x.S - x.x) / (m - 1): so the cosine silhouette (Rousseeuw 1987, J. Comput. Appl. Math. 20) is exact.

    >>> from analysis.embeddings.vectors import prepare
    >>> c = closeness(prepare([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], list("aabb")))
    >>> c.silhouette.tolist(), c.nearest.tolist()
    ([1.0, 1.0, 1.0, 1.0], [1, 1, 0, 0])
    """
    S = speaker_sums(v) if sums is None else sums
    n, k, codes = v.labelled, v.speakers, v.codes
    out = Closeness(
        *(np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1)),
        *(np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1), np.zeros(n)),
    )
    counts, squares = v.counts.astype(np.float64), np.einsum("ij,ij->i", S, S)
    # speakers whose vectors cancel out have a mean, but no direction
    lengths = np.where(squares > (1e-6 * counts) ** 2, np.sqrt(squares), np.inf)
    rows = max(_CELLS // max(k, 1), 64)
    for start in range(0, n, rows):
        at = slice(start, min(start + rows, n))
        X = v.unit[at].astype(np.float64)
        products = X @ S.T
        _own(out, at, products, np.einsum("ij,ij->i", X, X), codes[at], counts, squares)
        if k > 1:
            _others(out, at, products, codes[at], counts, lengths)
    return out


def _own(
    out: Closeness,
    at: slice,
    products: Floats,
    self_product: Floats,
    own: NDArray[np.int64],
    counts: Floats,
    squares: Floats,
) -> None:
    mine = products[np.arange(len(own)), own]
    own_sum = mine - self_product
    others = counts[own] - 1
    # |S - x| from what is at hand: |S|^2 - 2 x.S + x.x
    length = np.sqrt(np.maximum(squares[own] - 2 * mine + self_product, 0.0))
    out.own[at] = np.where(others > 0, own_sum / np.maximum(others, 1), np.nan)
    directed = (others > 0) & (length > 1e-6 * counts[own])
    out.own_centroid[at] = np.where(directed, own_sum / np.where(directed, length, 1.0), np.nan)


def _others(
    out: Closeness, at: slice, products: Floats, own: NDArray[np.int64], counts: Floats, lengths: Floats
) -> None:
    products[np.arange(len(own)), own] = -np.inf
    out.other_centroid[at], out.nearest_centroid[at] = _largest(products / lengths)
    products /= counts
    out.other[at], out.nearest[at] = _largest(products)
    a, b = 1 - out.own[at], 1 - out.other[at]
    # float32 rounding leaves distances of about 1e-8 between equal vectors: that is none
    worst = np.maximum(a, b)
    judged = (counts[own] > 1) & (worst > 1e-7)
    out.silhouette[at] = np.where(judged, (b - a) / np.where(judged, worst, 1.0), 0.0)


def _largest(table: Floats) -> tuple[Floats, NDArray[np.int64]]:
    best = table.argmax(axis=1)
    return table[np.arange(len(table)), best], best


def davies_bouldin(v: Vectors, sums: Floats | None = None) -> float:
    """Davies-Bouldin index of the labelled unit vectors in Euclidean distance (smaller is better).

    Mean over speakers of the worst (spread + spread') / distance of centroids (Davies and Bouldin 1979, IEEE PAMI 1);
    centroids that coincide are left out, as scikit-learn does. NaN for fewer than two speakers.
    """
    S = speaker_sums(v) if sums is None else sums
    if v.speakers < 2:
        return float("nan")
    counts = v.counts.astype(np.float64)
    centres, codes = S / counts[:, None], v.codes
    distance = np.empty(v.labelled)
    for start in range(0, v.labelled, 8192):
        at = slice(start, start + 8192)
        offset = v.unit[start : min(start + 8192, v.labelled)] - centres[codes[at]]
        distance[at] = np.sqrt(np.einsum("ij,ij->i", offset, offset))
    spread = np.add.reduceat(distance, v.starts[:-1]) / counts
    return float(_worst_ratios(centres, spread).mean())


def _worst_ratios(centres: Floats, spread: Floats) -> Floats:
    k = len(centres)
    squares = np.einsum("ij,ij->i", centres, centres)
    worst = np.zeros(k)
    rows = max(_CELLS // k, 1)
    for start in range(0, k, rows):
        at = slice(start, min(start + rows, k))
        gap = squares[at, None] + squares[None, :] - 2 * centres[at] @ centres.T
        # closer than the rounding of this difference is at one place
        apart = np.where(gap > 1e-12, np.sqrt(np.maximum(gap, 1e-12)), np.inf)
        apart[np.arange(at.stop - start), np.arange(start, at.stop)] = np.inf
        worst[at] = ((spread[at, None] + spread[None, :]) / apart).max(axis=1)
    return worst
