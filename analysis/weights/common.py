"""What several saves have in common: the parameters of one shape, read side by side in blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.weights.matrices import is_real
from analysis.weights.values import numbers
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Tensor

__all__ = ["Common", "common_parameters", "parts", "weights_of"]

#: Statistics that a forward pass writes and no optimizer moves.
_BUFFER = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")
#: Numbers of a block of all saves: 32 MB in float64.
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Common:
    """A parameter that all saves have, with one shape: its tensor in each of them."""

    parameter: str
    tensors: tuple[Tensor, ...]

    @property
    def elements(self) -> int:
        """Elements of one of the tensors."""
        return self.tensors[0].elements


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of the model's own state by their parameter; names that occur twice keep the checkpoint's name."""
    weights = checkpoint.of_role("weights")
    times = Counter(tensor.parameter or tensor.name for tensor in weights)
    return {
        tensor.parameter if tensor.parameter and times[tensor.parameter] == 1 else tensor.name: tensor
        for tensor in weights
    }


def common_parameters(checkpoints: Sequence[Checkpoint]) -> tuple[tuple[Common, ...], tuple[tuple[str, str], ...]]:
    """The parameters that all `checkpoints` have with one shape, in the order of the first; what was left out and why.

    Left out are running statistics and counts, what is no real number or not stored densely, what a save lacks, and
    what changed its shape.
    """
    states = [weights_of(checkpoint) for checkpoint in checkpoints]
    found: list[Common] = []
    left_out: list[tuple[str, str]] = []
    for name in dict.fromkeys(name for state in states for name in state):
        reason = _why_not(name, states)
        if reason:
            left_out.append((name, reason))
        else:
            found.append(Common(name, tuple(state[name] for state in states)))
    return tuple(found), tuple(left_out)


def _why_not(name: str, states: Sequence[dict[str, Tensor]]) -> str | None:
    held = [state[name] for state in states if name in state]
    if _BUFFER.search(name):
        return "a running statistic, no parameter"
    if not all(is_real(tensor) for tensor in held):
        return f"{held[0].dtype}: no real numbers"
    if any(tensor.layout != "strided" for tensor in held):
        return "not stored densely"
    if len(held) < len(states):
        return f"in {len(held)} of {len(states)} saves"
    shapes = list(dict.fromkeys(tensor.shape for tensor in held))
    if len(shapes) > 1:
        return f"its shape changes from {shapes[0]} to {shapes[1]}"
    return None if held[0].elements else "no elements"


def parts(checkpoints: Sequence[Checkpoint], common: Common) -> Iterator[NDArray[np.float64]]:
    """The numbers of one parameter in all saves, save x element, some 32 MB at a time; pages are given back."""
    pairs = list(zip(checkpoints, common.tensors, strict=True))
    arrays = [checkpoint.array(tensor).reshape(-1) for checkpoint, tensor in pairs]
    width = max(_BLOCK // len(pairs), 1)
    for start in range(0, common.elements, width):
        block = np.empty((len(pairs), min(width, common.elements - start)))
        for row, (array, tensor) in enumerate(zip(arrays, common.tensors, strict=True)):
            block[row] = numbers(array[start : start + width], tensor)
        yield block
        for checkpoint, tensor in pairs:
            checkpoint.release(tensor)
