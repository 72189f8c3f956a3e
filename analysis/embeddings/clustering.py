"""Do clusters found without labels agree with them? k-means, agglomerative and HDBSCAN against the speakers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.embeddings.sampling import whole_speakers
from analysis.embeddings.vectors import Vectors
from eventstream.errors import unknown_name
from eventstream.optional import need

__all__ = ["CLUSTERING", "METHODS", "cluster", "purity"]

METHODS = ("kmeans", "agglomerative", "hdbscan")

#: One row a method. `noise` counts rows that HDBSCAN leaves out (they form one group in the scores).
CLUSTERING = pl.Schema(
    {
        "method": pl.String,
        "n": pl.Int64,
        "speakers": pl.Int64,
        "clusters": pl.Int64,
        "noise": pl.Int64,
        "ari": pl.Float64,
        "nmi": pl.Float64,
        "purity": pl.Float64,
    }
)


def cluster(v: Vectors, methods: Sequence[str], *, sample: int, seed: int) -> pl.DataFrame:
    """Agreement of each method's clusters with the speakers (`CLUSTERING`); empty for fewer than two speakers.

    On unit vectors: k-means with as many clusters as speakers (4 starts), agglomerative with average linkage on the
    cosine, HDBSCAN with the smallest cluster half of the median speaker (at least 2). Above `sample` rows, whole
    speakers are drawn until it is reached, since two of the methods grow with the square of the rows.
    """
    for method in methods:
        if method not in METHODS:
            raise ValueError(unknown_name("clustering method", method, METHODS))
    part = v.take(whole_speakers(v, sample, seed)) if v.speakers else v
    if part.speakers < 2 or part.labelled <= part.speakers:
        return CLUSTERING.to_frame()
    metrics = need("sklearn.metrics", feature="clustering", extra="embeddings")
    X, truth = part.unit[: part.labelled].astype(np.float64), part.codes
    rows = []
    for method in methods:
        found = _labels(method, X, part, seed)
        rows.append(
            (
                *(method, part.labelled, part.speakers, len(set(found[found >= 0].tolist())), int((found < 0).sum())),
                float(metrics.adjusted_rand_score(truth, found)),
                float(metrics.normalized_mutual_info_score(truth, found)),
                purity(truth, found),
            )
        )
    return pl.DataFrame(rows, schema=CLUSTERING, orient="row")


def purity(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Share of rows that belong to the commonest speaker of their cluster.

    >>> purity(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 6]))
    0.75
    """
    _, cluster_of = np.unique(found, return_inverse=True)
    _, speaker_of = np.unique(truth, return_inverse=True)
    width = int(speaker_of.max()) + 1
    cells, counts = np.unique(cluster_of * width + speaker_of, return_counts=True)
    best = np.zeros(int(cluster_of.max()) + 1, np.int64)
    np.maximum.at(best, cells // width, counts)
    return float(best.sum() / len(truth))


def _labels(method: str, X: NDArray[np.float64], part: Vectors, seed: int) -> NDArray[np.int64]:
    clusters = need("sklearn.cluster", feature="clustering", extra="embeddings")
    model: Any
    if method == "kmeans":
        # never more clusters than there are different points
        model = clusters.KMeans(min(part.speakers, len(np.unique(X, axis=0))), n_init=4, random_state=seed)
    elif method == "agglomerative":
        model = clusters.AgglomerativeClustering(part.speakers, metric="cosine", linkage="average")
    else:
        smallest = max(int(np.median(part.counts)) // 2, 2)
        model = clusters.HDBSCAN(min_cluster_size=smallest, algorithm="brute", copy=True)
    return np.asarray(model.fit_predict(X), np.int64)
