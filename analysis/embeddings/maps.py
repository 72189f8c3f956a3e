"""Two-dimensional views of a stated, seeded sample of every speaker: PCA, UMAP and t-SNE."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.embeddings.sampling import some_of_each
from analysis.embeddings.vectors import Vectors
from eventstream.errors import unknown_name
from eventstream.optional import need

__all__ = ["MAP", "MAPS", "embedding_map"]

MAPS = ("pca", "umap", "tsne")
_FEWEST = 5
#: Below so many rows UMAP takes exact neighbours, from all distances.
_EXACT = 4096

#: One row a point: its place, its label, its path, and its row in what was given.
MAP = pl.Schema({"x": pl.Float64, "y": pl.Float64, "label": pl.String, "path": pl.String, "row": pl.Int64})


def embedding_map(v: Vectors, kind: str, *, sample: int, seed: int) -> pl.DataFrame:
    """The points of a map (`MAP`), of about `sample` rows with the same share of every speaker.

    `pca` shows the two directions of largest spread and keeps distances; `umap` (McInnes et al. 2018) and `tsne` (van
    der Maaten and Hinton 2008) keep neighbours, so that distances between groups mean little. Fewer than five rows
    have no map: the frame is empty.
    """
    if kind not in MAPS:
        raise ValueError(unknown_name("map", kind, MAPS))
    rows = some_of_each(v, sample, seed)
    if len(rows) < _FEWEST:
        return MAP.to_frame()
    part = v.take(rows)
    places = {"pca": _pca, "umap": _umap, "tsne": _tsne}[kind](part.unit.astype(np.float64), seed)
    labels = [part.names[s] for s in part.codes] + [None] * (len(rows) - part.labelled)
    return pl.DataFrame(
        {
            "x": places[:, 0],
            "y": places[:, 1],
            "label": pl.Series(labels, dtype=pl.String),
            "path": pl.Series(part.paths if part.paths is not None else [None] * len(rows), dtype=pl.String),
            "row": part.row,
        },
        schema=MAP,
    )


def _pca(X: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    centred = X - X.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    # the sign of a direction is arbitrary: make its largest entry positive, so that a map is the same everywhere
    top = directions[:, ::-1][:, :2]
    top = top * np.sign(top[np.abs(top).argmax(axis=0), np.arange(top.shape[1])])
    places = centred @ top
    return places if places.shape[1] == 2 else np.column_stack([places, np.zeros(len(places))])


def _umap(X: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # on import it tells that TensorFlow is missing, which only its parametric variant would need
        warnings.simplefilter("ignore", ImportWarning)
        umap = need("umap", feature="UMAP", extra="embeddings")
    neighbours = min(15, len(X) - 2)
    known = _neighbours(X, neighbours) if len(X) < _EXACT else (None, None, None)
    with warnings.catch_warnings():
        # without an index it cannot place other points later, which nobody asks of a map
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        model = umap.UMAP(
            n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1, init="pca", precomputed_knn=known
        )
        return np.asarray(model.fit_transform(X), np.float64)


def _neighbours(X: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest of each row and their distances, as UMAP finds them, but sorted by NumPy.

    UMAP compiles a loop for this in every process, which takes a third of the time of a map.
    """
    metrics = need("sklearn.metrics", feature="UMAP", extra="embeddings")
    measure = need("umap.distances", feature="UMAP", extra="embeddings").cosine  # rounds as UMAP does
    distances = metrics.pairwise_distances(X.astype(np.float32), metric=measure)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return nearest, np.take_along_axis(distances, nearest, axis=1)


def _tsne(X: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    manifold = need("sklearn.manifold", feature="t-SNE", extra="embeddings")
    model = manifold.TSNE(perplexity=min(30.0, (len(X) - 1) / 3), metric="cosine", init="random", random_state=seed)
    return np.asarray(model.fit_transform(X), np.float64)
