"""The scores of all pairs of utterances, counted: block by block, and to the last digit where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.vectors import Vectors

__all__ = ["COARSE", "ScoreCounts", "cells_of", "count_pairs"]

#: A score is a cosine, held to 2^-23 (1.2e-7, the rounding of float32 around 1) ...
STEP = 2.0**-23
#: ... and counted in cells of 1024 such steps (1.2e-4), or one by one in the cells that are refined.
FINE = 1024
COARSE = 2**24 // FINE + 1
#: Up to so many rows the whole matrix is small, and plain numpy counts it faster than a compiler is loaded.
_SMALL = 1500
#: The block of scores held at a time: 64 MB.
_ROWS, _COLUMNS = 2048, 8192

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Non-empty cells of scores, ascending: cell i holds scores in [low_i, high_i), all equal where `exact`."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    same: Counts
    different: Counts
    exact: NDArray[np.bool_]


def cells_of(scores: NDArray[np.float64]) -> Counts:
    """The coarse cell in which each score lies."""
    return np.clip((np.asarray(scores) + 1) / STEP // FINE, 0, COARSE - 1).astype(np.int64)


def count_pairs(v: Vectors, refined: Counts) -> ScoreCounts:
    """Counts of the cosine over every pair of labelled rows, exact in the coarse cells `refined`.

    Scores are float32 dot products, computed in blocks of the upper triangle; memory does not grow with the number
    of pairs. Up to 1,500 rows every cell is exact.
    """
    if v.labelled <= _SMALL:
        return _small(v)
    cells = np.unique(refined)
    place = np.arange(COARSE, dtype=np.uint32)
    place[cells] = COARSE + np.arange(len(cells), dtype=np.uint32) * FINE
    mask = np.zeros(COARSE, np.uint32)
    mask[cells] = FINE - 1
    return _compress(_blockwise(v, place, mask, COARSE + len(cells) * FINE), cells)


def _small(v: Vectors) -> ScoreCounts:
    X, codes = v.unit[: v.labelled], v.codes
    i, j = np.triu_indices(v.labelled, 1)
    score = np.maximum((X @ X.T)[i, j] + np.float32(1), 0)
    steps = (score * np.float32(2**23)).astype(np.int64)
    values, index = np.unique(steps, return_inverse=True)
    every = np.bincount(index, minlength=len(values))
    same = np.bincount(index[codes[i] == codes[j]], minlength=len(values))
    low = values.astype(np.float64) * STEP - 1
    return ScoreCounts(low, low + STEP, same, every - same, np.ones(len(values), bool))


def _blocks(n: int) -> Iterator[tuple[int, int, int, int]]:
    for row in range(0, n, _ROWS):
        for column in range(row, n, _COLUMNS):
            yield row, min(row + _ROWS, n), column, min(column + _COLUMNS, n)


def _blockwise(v: Vectors, place: NDArray[np.uint32], mask: NDArray[np.uint32], size: int) -> Counts:
    from analysis.embeddings.pair_kernels import count_block

    n, X = v.labelled, v.unit
    ends = v.starts[1:][v.codes]
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = np.zeros((2, size), np.int64)
    # 32 bits while counting halve the cache that is needed; a block has far fewer pairs than 2^32
    tally = np.zeros((workers, 2, size), np.uint32)
    buffer = np.empty(min(_ROWS, n) * min(_COLUMNS, n), np.float32)
    with ThreadPoolExecutor(workers) as pool:
        since = 0
        for top, bottom, left, right in _blocks(n):
            scores = buffer[: (bottom - top) * (right - left)].reshape(bottom - top, right - left)
            np.matmul(X[top:bottom], X[left:right].T, out=scores)
            shares = np.linspace(0, bottom - top, workers + 1).astype(int)
            jobs = [
                pool.submit(
                    *(count_block, scores, top, left, ends, (int(shares[w]), int(shares[w + 1])), place, mask),
                    *(tally[w, 0], tally[w, 1]),
                )
                for w in range(workers)
            ]
            for job in jobs:
                job.result()
            since += scores.size
            if since > 2**31:
                total += tally.sum(axis=0, dtype=np.int64)
                tally[:] = 0
                since = 0
    total += tally.sum(axis=0, dtype=np.int64)
    return total


def _compress(total: Counts, cells: Counts) -> ScoreCounts:
    """Coarse cells and the steps of refined ones in order of score, without the empty ones."""
    coarse = np.flatnonzero(total[:, :COARSE].any(axis=0))
    fine = np.flatnonzero(total[:, COARSE:].any(axis=0))
    step = np.concatenate([coarse * FINE, cells[fine // FINE] * FINE + fine % FINE]) if len(fine) else coarse * FINE
    exact = np.concatenate([np.zeros(len(coarse), bool), np.ones(len(fine), bool)])
    where = np.concatenate([coarse, COARSE + fine])
    order = np.argsort(step, kind="stable")
    low = step[order].astype(np.float64) * STEP - 1
    exact, where = exact[order], where[order]
    high = low + np.where(exact, 1.0, float(FINE)) * STEP
    return ScoreCounts(low, high, total[0, where], total[1, where], exact)
