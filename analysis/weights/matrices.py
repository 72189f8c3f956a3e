"""Tensors as matrices: which of them are, how kernels of convolutions unfold, and their numbers block by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.weights.values import numbers
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["Unfolding", "blocks", "is_real", "slices", "unfold", "work_of"]

#: Elements of a block, in float64 16 MB: enough for matrix products at full speed, small beside the limit of memory.
_BLOCK = 1 << 21


@dataclass(frozen=True, slots=True)
class Unfolding:
    """A tensor seen as `count` matrices of rows x columns.

    `kernel` says that these are the taps of a convolution's kernel; otherwise there is one matrix, or one an expert.
    """

    rows: int
    columns: int
    count: int
    kernel: bool

    @property
    def side(self) -> int:
        """The smaller side: the number of singular values of each matrix."""
        return min(self.rows, self.columns)


def is_real(tensor: Tensor) -> bool:
    """Whether the elements are real numbers: floats, or integers that a scale turns into numbers."""
    kind = DTYPES[tensor.dtype].kind
    return kind == "float" or (kind == "integer" and tensor.scale is not None)


def unfold(tensor: Tensor) -> Unfolding | None:
    """How `tensor` is seen as matrices; None where it is none (fewer than two axes, or no weights but flags, counts).

    A kernel (out, in, *taps) gives one matrix out x in a tap, as WeightWatcher unfolds it. A tensor of three axes
    whose name speaks of experts holds one matrix an expert.

    >>> unfold(Tensor("conv.weight", "float32", (64, 32, 3, 3), None))
    Unfolding(rows=64, columns=32, count=9, kernel=True)
    >>> unfold(Tensor("mlp.experts.gate_up_proj", "bfloat16", (8, 64, 32), None))
    Unfolding(rows=64, columns=32, count=8, kernel=False)
    >>> unfold(Tensor("bias", "float32", (64,), None)) is None
    True
    """
    complex_numbers = DTYPES[tensor.dtype].kind == "complex"
    if len(tensor.shape) < 2 or not (is_real(tensor) or complex_numbers):
        return None
    if _of_experts(tensor):
        return Unfolding(tensor.shape[1], tensor.shape[2], tensor.shape[0], kernel=False)
    taps = tensor.shape[2:]
    return Unfolding(tensor.shape[0], tensor.shape[1], math.prod(taps), kernel=bool(taps))


def work_of(tensors: Iterable[tuple[str, str, Sequence[int]]]) -> float:
    """About how many multiplications the singular values of these tensors take, given as name, dtype and shape.

    The Gram matrix takes one for each pair of its entries and element beside them; its eigenvalues some four times the
    cube of its side, since half of that work waits for the memory.

    >>> work_of([("fc.weight", "float32", [64, 32]), ("fc.bias", "float32", [64])]) == 32 * 32 * 64 + 4 * 32**3
    True
    """
    seen = (unfold(Tensor(name, dtype, tuple(shape), None)) for name, dtype, shape in tensors)
    return sum(float(one.count) * one.side**2 * (max(one.rows, one.columns) + 4 * one.side) for one in seen if one)


def slices(raw: NDArray[np.generic], tensor: Tensor) -> Iterator[NDArray[np.generic]]:
    """The matrices of `raw` (what `Checkpoint.array` gave for `tensor`), as views of it."""
    if _of_experts(tensor):
        yield from raw
    elif raw.ndim == 2:
        yield raw
    else:
        for tap in np.ndindex(raw.shape[2:]):
            yield raw[(slice(None), slice(None), *tap)]


def blocks(matrix: NDArray[np.generic], tensor: Tensor) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The rows of `matrix` in order: where they stand, and their numbers in float64, some 16 MB at a time."""
    rows = max(_BLOCK // max(matrix.shape[1], 1), 1)
    for start in range(0, matrix.shape[0], rows):
        place = slice(start, min(start + rows, matrix.shape[0]))
        yield place, numbers(matrix[place], tensor)


def _of_experts(tensor: Tensor) -> bool:
    return len(tensor.shape) == 3 and "expert" in tensor.name.lower()
