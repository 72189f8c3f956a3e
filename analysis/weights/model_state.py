"""A model's state made of checkpoints, as a loss function takes it: torch tensors by the names of the model's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.weights.common import weights_of
from analysis.weights.values import numbers
from eventstream.errors import InputError
from eventstream.optional import need
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["Loss", "Numbers", "as_tensor", "fitting", "floats", "loss_at", "model_tensors", "numbers_of", "whole"]

Loss = Callable[[dict[str, Any]], Any]
Numbers = NDArray[np.float64]


def model_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of the model's state by their names in the model; quantised and sparse ones are refused.

    Raises `InputError` naming a tensor that no state between two saves can be made of, and where there is none at all.
    """
    found = weights_of(checkpoint)
    if not found:
        raise InputError(f"{checkpoint.path} holds no weights of a model")
    for tensor in found.values():
        if tensor.layout != "strided" or tensor.scale is not None or tensor.dtype.startswith("q"):
            what = "quantised" if tensor.layout == "strided" else tensor.layout
            raise InputError(
                f"tensor {tensor.name!r} of {checkpoint.path} is {what}: no loss can be asked between saves"
            )
    return found


def fitting(one: Checkpoint, other: Checkpoint) -> None:
    """Nothing, where both hold one model; `InputError` naming what differs where they do not."""
    a, b = model_tensors(one), model_tensors(other)
    for name in [*a, *b]:
        if name not in a or name not in b:
            lacking = one if name not in a else other
            raise InputError(f"{lacking.path} has no {name!r}: {one.path} and {other.path} are not one model")
        if a[name].shape != b[name].shape:
            raise InputError(
                f"{name!r} is {list(a[name].shape)} in {one.path} and {list(b[name].shape)} in {other.path}: "
                "they are not one model"
            )


def floats(tensor: Tensor) -> bool:
    """Whether a tensor can be moved; counts, flags and complex numbers stay as they are stored."""
    return DTYPES[tensor.dtype].kind == "float"


def as_tensor(checkpoint: Checkpoint, tensor: Tensor, moved: Numbers | None = None) -> Any:
    """A new torch tensor of the stored type: the stored values, or the numbers `moved` rounded to that type."""
    torch = need("torch", feature="a loss of the weights", extra="checkpoints")
    if moved is not None:
        # a mapped array is read-only, which torch warns of
        return torch.from_numpy(np.require(moved, requirements=["C", "W"])).to(getattr(torch, tensor.dtype))
    raw = np.array(checkpoint.array(tensor))  # a copy: the loss may write to it, and the file is mapped read-only
    stored = torch.from_numpy(raw)
    if tensor.dtype == "complex32":
        return torch.view_as_complex(stored)
    return stored.view(getattr(torch, tensor.dtype))


def numbers_of(checkpoint: Checkpoint, tensor: Tensor) -> Numbers:
    """The tensor's values in double precision."""
    return numbers(checkpoint.array(tensor), tensor)


def loss_at(loss: Loss, state: Mapping[str, Any], place: str) -> float:
    """What `loss` says of a state, as a number; what it raises passes through with a note that names the place."""
    try:
        said = loss(dict(state))
    except Exception as error:
        error.add_note(f"raised by loss(state_dict) at {place}")
        raise
    # a loss that was not detached would make float() warn that its gradient is lost, which is meant here
    plain = said.detach() if hasattr(said, "detach") else said
    try:
        return float(_number(plain))
    except (TypeError, ValueError) as error:
        what = f"a tensor of shape {list(said.shape)}" if hasattr(said, "shape") else f"{said!r:.80}"
        raise TypeError(f"loss(state_dict) returned {what} at {place}; it must return a number") from error


def _number(said: Any) -> Any:
    """What may stand for a number: no text, though Python would read it as one."""
    if isinstance(said, str | bytes):
        raise TypeError("text is no number")
    return said


def whole(name: str, value: object, *, least: int) -> None:
    """Nothing, where an option is a whole number of at least `least`; `ValueError` where it is not."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")
