"""Vectors made ready once: unusable rows counted and left out, the rest of length one and grouped by speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

__all__ = ["Vectors", "prepare"]

_BLOCK = 8192

Labels = Sequence[Any] | NDArray[Any] | pl.Series


@dataclass(frozen=True, eq=False)
class Vectors:
    """Unit vectors in the order of their speakers, those without a label last.

    `unit` (n, d) float32; `starts` (k + 1) bounds the rows of each of the k speakers, so that `starts[-1]` rows are
    labelled; `names` (k) sorted; `row` (n) the position in what was given; `paths` as given or None. `given` rows came
    in, of which `non_finite` held NaN or infinities and `zero` had no length: these have no direction and are left out.
    """

    unit: NDArray[np.float32]
    starts: NDArray[np.int64]
    names: tuple[str, ...]
    row: NDArray[np.int64]
    paths: pl.Series | None
    given: int
    non_finite: int
    zero: int

    @property
    def labelled(self) -> int:
        """Rows that have a label."""
        return int(self.starts[-1])

    @property
    def speakers(self) -> int:
        """Number of speakers (labels)."""
        return len(self.names)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each speaker."""
        return np.diff(self.starts)

    @property
    def codes(self) -> NDArray[np.int64]:
        """Speaker number of each labelled row."""
        return np.repeat(np.arange(self.speakers), self.counts)

    @property
    def same_pairs(self) -> int:
        """Pairs of two rows of one speaker; a row is no pair with itself."""
        counts = self.counts
        return int((counts * (counts - 1) // 2).sum())

    @property
    def different_pairs(self) -> int:
        """Pairs of two rows of two speakers."""
        return self.labelled * (self.labelled - 1) // 2 - self.same_pairs

    @property
    def rejected(self) -> int:
        """Rows left out because they have no direction."""
        return self.non_finite + self.zero

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """The vectors at these ascending positions of `unit`; speakers that lose all rows are gone."""
        labelled = rows[rows < self.labelled]
        counts = np.bincount(self.codes[labelled], minlength=self.speakers)
        kept = np.flatnonzero(counts)
        return Vectors(
            unit=self.unit[rows],
            starts=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
            names=tuple(self.names[i] for i in kept),
            row=self.row[rows],
            paths=None if self.paths is None else self.paths[rows],
            given=len(rows),
            non_finite=0,
            zero=0,
        )


def prepare(vectors: ArrayLike, labels: Labels | None = None, paths: Labels | None = None) -> Vectors:
    """The usable `vectors` (n, d), scaled to length one and grouped by `labels` (None: all unlabelled).

    Lengths are taken in float64 after scaling by the largest entry, so that 1e300 and 1e-300 are as good as 1; the
    result is float32. Labels become strings; None and NaN are no label. Raises `ValueError` on another number of
    dimensions or of labels.

    >>> v = prepare([[3.0, 4.0], [0.0, 0.0], [2.0, 0.0]], ["b", "b", "a"])
    >>> v.unit.round(1).tolist() == np.float32([[1.0, 0.0], [0.6, 0.8]]).tolist(), v.names, v.row.tolist(), v.zero
    (True, ('a', 'b'), [2, 0], 1)
    """
    X = np.asarray(vectors)
    if X.ndim != 2:
        raise ValueError(f"vectors have shape {X.shape}; expected two dimensions, (utterances, dimensions)")
    if X.dtype.kind not in "fiub":
        raise ValueError(f"vectors hold {X.dtype}; expected real numbers")
    names, codes = _encode(labels, len(X))
    path_series = None if paths is None else pl.Series("path", paths, dtype=pl.String, strict=False)
    if path_series is not None and len(path_series) != len(X):
        raise ValueError(f"{len(path_series)} paths for {len(X)} vectors; give one each")
    finite, length = _lengths(X)
    good = np.flatnonzero(finite & (length > 0))
    order = good[np.argsort(codes[good], kind="stable")]
    counts = np.bincount(codes[good], minlength=len(names) + 1)[: len(names)]
    kept = np.flatnonzero(counts)
    return Vectors(
        unit=_unit(X, order),
        starts=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
        names=tuple(names[i] for i in kept),
        row=order,
        paths=None if path_series is None else path_series[order],
        given=len(X),
        non_finite=int((~finite).sum()),
        zero=int((finite & (length == 0)).sum()),
    )


def _encode(labels: Labels | None, n: int) -> tuple[list[str], NDArray[np.int64]]:
    """Sorted names, and for each row its name's number, or the number of names where it has none."""
    if labels is None:
        return [], np.zeros(n, np.int64)
    if len(labels) != n:
        raise ValueError(f"{len(labels)} labels for {n} vectors; give one each (None where unknown)")
    # pandas has NaN for a missing label, which alone is unequal to itself
    text = pl.Series([None if label is None or label != label else str(label) for label in labels], dtype=pl.String)
    names: list[str] = text.drop_nulls().unique().sort().to_list()
    codes = (text.rank("dense").cast(pl.Int64) - 1).fill_null(len(names))
    return names, codes.to_numpy().astype(np.int64)


def _lengths(X: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    if not X.shape[1]:
        return np.ones(len(X), bool), np.zeros(len(X))
    largest = np.maximum(X.max(axis=1), -X.min(axis=1).astype(np.float64)).astype(np.float64)
    return np.isfinite(largest), np.where(np.isfinite(largest), largest, 0.0)


def _unit(X: NDArray[Any], order: NDArray[np.int64]) -> NDArray[np.float32]:
    out = np.empty((len(order), X.shape[1]), np.float32)
    for start in range(0, len(order), _BLOCK):
        block = X[order[start : start + _BLOCK]].astype(np.float64)
        block /= np.abs(block).max(axis=1, keepdims=True)
        block /= np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
        out[start : start + _BLOCK] = block
    return out
