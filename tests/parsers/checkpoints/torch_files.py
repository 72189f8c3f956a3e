"""Files of torch for tests, and what torch itself reads from them, to hold against what this package reads."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parsers.checkpoints.checkpoint import Checkpoint

WAYS = ("zip", "legacy", "pickle 2", "pickle 5")


def saved(file: Path, value: Any, way: str = "zip") -> Path:
    """Written by torch, in the format of today or of before 1.6, or by pickle alone."""
    if way.startswith("pickle"):
        file.write_bytes(pickle.dumps(value, protocol=int(way.split()[1])))
    else:
        torch.save(value, file, _use_new_zipfile_serialization=way == "zip")
    return file


def loaded(file: Path, way: str = "zip") -> Any:
    """What torch and pickle themselves make of the file, code and all: for files of the tests only."""
    if way.startswith("pickle"):
        return pickle.loads(file.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(file, weights_only=False)


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """The slow and obvious walk through what torch loaded: every leaf by its dotted path."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list | tuple):
        pairs = list(enumerate(value))
    else:
        return {name: value}
    return {path: leaf for key, inner in pairs for path, leaf in leaves(inner, f"{name}.{key}".strip(".")).items()}


def bits(tensor: torch.Tensor) -> bytes:
    """The elements of a dense tensor, row by row, as bytes."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def held(checkpoint: Checkpoint, name: str) -> bytes:
    """The same of a tensor of a checkpoint."""
    (tensor,) = [tensor for tensor in checkpoint if tensor.name == name]
    return np.ascontiguousarray(checkpoint.array(tensor)).tobytes()


def agrees(checkpoint: Checkpoint, value: Any) -> None:
    """Assert that the checkpoint has the tensors and plain values of what torch loaded, and no others."""
    assert not checkpoint.damage
    there = leaves(value)
    tensors = {name: leaf for name, leaf in there.items() if isinstance(leaf, torch.Tensor)}
    plain = {name: leaf for name, leaf in there.items() if isinstance(leaf, bool | int | float | str) or leaf is None}
    assert [tensor.name for tensor in checkpoint] == list(tensors)
    for tensor in checkpoint:
        expected = tensors[tensor.name]
        assert (tensor.dtype, tensor.shape) == (str(expected.dtype).removeprefix("torch."), tuple(expected.shape))
        assert held(checkpoint, tensor.name) == bits(expected), tensor.name
    assert repr(dict(checkpoint.values)) == repr(plain)  # by text, as NaN is no equal of its own
