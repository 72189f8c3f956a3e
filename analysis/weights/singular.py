"""Singular values of a matrix read in blocks: all of them by its Gram matrix, or the largest by random probes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.weights.matrices import blocks
from parsers.checkpoints.tensors import Tensor

__all__ = ["Largest", "eigenvalues", "largest_singular_values"]

#: Up to this side the routines are NumPy's, which let other threads run and need the Gram matrix twice.
_SMALL = 1024
#: Probes beyond the values asked for, of Halko, Martinsson and Tropp 2011, section 4.2 (5 to 10 suffice).
_EXTRA = 10
#: Most blocks of the Krylov space, and the relative error at which fewer do.
_MOST_BLOCKS, _ENOUGH = 12, 1e-3


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest singular values, descending; `error` bounds how far from one each of them lies (same unit)."""

    values: NDArray[np.float64]
    error: float
    frobenius: float


def eigenvalues(matrix: NDArray[np.generic], tensor: Tensor) -> NDArray[np.float64]:
    """All squared singular values of `matrix` (raw elements of `tensor`), descending, as many as its smaller side.

    They are the eigenvalues of the Gram matrix of the smaller side, summed over blocks in float64: a third of the work
    of a singular value decomposition. Squares are right to `side * 2.2e-16` of the largest, and those below that are
    rounding and come back as 0: a singular value of a tenth of the largest is right to 1e-12 of it, and one near 0 to
    1.5e-8 * sqrt(side), 4e-7 for a side of 768 (float32 weights are themselves rounded to 6e-8). NaN throughout where
    the matrix is not finite.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    side = tall.shape[1]
    squares = (_small_gram_values if side <= _SMALL else _large_gram_values)(tall, tensor)
    if squares is None:
        return np.full(side, np.nan)
    floor = side * np.finfo(np.float64).eps * max(float(squares[-1]), 0.0)
    return np.where(squares > floor, squares, 0.0)[::-1]


def _small_gram_values(tall: NDArray[np.generic], tensor: Tensor) -> NDArray[np.float64] | None:
    """Eigenvalues of the Gram matrix, ascending, by routines that let other threads run; None where not finite."""
    gram = np.zeros((tall.shape[1], tall.shape[1]))
    for place, block in blocks(tall, tensor):
        with np.errstate(invalid="ignore", over="ignore"):  # the diagonal says what was in it
            product = block.T @ block
            gram = product if place.start == 0 else np.add(gram, product, out=gram)
    if not np.isfinite(gram.diagonal()).all():
        return None
    return np.linalg.eigvalsh(gram).astype(np.float64, copy=False)


def _large_gram_values(tall: NDArray[np.generic], tensor: Tensor) -> NDArray[np.float64] | None:
    """The same with one such matrix in memory and no second: summed up in its place, and overwritten."""
    from scipy.linalg import eigvalsh
    from scipy.linalg.blas import dsyrk

    gram = np.zeros((tall.shape[1], tall.shape[1]), order="F")
    for _, block in blocks(tall, tensor):
        by_columns = block.flags.f_contiguous
        given = block if by_columns else block.T  # what the routine takes without a copy
        gram = dsyrk(1.0, given, beta=1.0, c=gram, trans=int(by_columns), lower=1, overwrite_c=1)
    if not np.isfinite(gram.diagonal()).all():
        return None
    squares: NDArray[np.float64] = eigvalsh(gram, lower=True, overwrite_a=True, check_finite=False, driver="ev")
    return squares


def largest_singular_values(matrix: NDArray[np.generic], tensor: Tensor, k: int, *, seed: int = 0) -> Largest:
    """The `k` largest singular values of `matrix` by a randomised block Krylov method, their error stated.

    Random probes are multiplied by the matrix and its transpose in turn and all products kept (Musco and Musco 2015,
    algorithm 2), which needs fewer passes than the subspace iteration of Halko, Martinsson and Tropp 2011 (algorithm
    4.4) for spectra without gaps. After each pass the residual ||W v - sigma u|| of every value is known: within that
    distance there is a singular value of W, whatever the probes were. It stops where the greatest residual is 0.1 % of
    the largest value, at the latest after 12 blocks (of a flat spectrum it is then about 1 %, and the values themselves
    are nearer than that). That none of the largest was missed is what the probes make all
    but certain. The Frobenius norm is exact. NaN throughout where the matrix is not finite.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    k = min(k, tall.shape[1])
    width = min(k + _EXTRA, tall.shape[1])
    frobenius = math.sqrt(sum(float(np.vdot(block, block)) for _, block in blocks(tall, tensor)))
    if not math.isfinite(frobenius):
        return Largest(np.full(k, np.nan), math.nan, math.nan)
    probes = np.random.default_rng(seed).standard_normal((tall.shape[1], width))
    basis = np.linalg.qr(_times(tall, tensor, probes))[0]
    images = _transposed_times(tall, tensor, basis)
    for _ in range(_MOST_BLOCKS):
        values, error = _ritz(tall, tensor, basis, images, k)
        width = min(width, tall.shape[1] - basis.shape[1])  # of a small matrix the last block completes the basis
        if error <= _ENOUGH * values[0] or not width:
            break
        following = _times(tall, tensor, images[:, -width:])
        for _ in range(2):  # twice is enough to be orthogonal to what is there (Giraud et al. 2005)
            following = np.linalg.qr(following - basis @ (basis.T @ following))[0]
        basis = np.hstack([basis, following])
        images = np.hstack([images, _transposed_times(tall, tensor, following)])
    return Largest(values, error, frobenius)


def _ritz(
    tall: NDArray[np.generic], tensor: Tensor, basis: NDArray[np.float64], images: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], float]:
    """The k largest singular values within the basis, and the greatest of their residuals."""
    right, values, left = np.linalg.svd(images, full_matrices=False)
    residual = _times(tall, tensor, right[:, :k]) - (basis @ left[:k].T) * values[:k]
    return values[:k], float(np.linalg.norm(residual, axis=0).max())


def _times(tall: NDArray[np.generic], tensor: Tensor, X: NDArray[np.float64]) -> NDArray[np.float64]:
    product = np.empty((tall.shape[0], X.shape[1]))
    for place, block in blocks(tall, tensor):
        product[place] = block @ X
    return product


def _transposed_times(tall: NDArray[np.generic], tensor: Tensor, Y: NDArray[np.float64]) -> NDArray[np.float64]:
    product = np.zeros((tall.shape[1], Y.shape[1]))
    for place, block in blocks(tall, tensor):
        product += block.T @ Y[place]
    return product
