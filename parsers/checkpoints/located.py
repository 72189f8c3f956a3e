"""Tensors of a pickle as tensors of a checkpoint: each held against the bytes that its storage really has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from parsers.checkpoints.checkpoint import Damage
from parsers.checkpoints.inert_objects import PickledTensor
from parsers.checkpoints.shapes import reach, row_major
from parsers.checkpoints.tensors import DTYPES, Storage, Tensor

__all__ = ["MOST_EXPANDED", "located"]

#: Bytes by which a view may be larger than its storage: an expanded tensor repeats what is stored once, and whoever
#: computes with it meets all of it. One that claims far more than this was made to fill a machine.
MOST_EXPANDED = 1 << 30
#: Names that a message shows.
SHOWN = 3


def located(file: Path, tensors: Mapping[str, PickledTensor]) -> tuple[tuple[Tensor, ...], tuple[Damage, ...]]:
    """The tensors whose bytes are all there, and damage for the others, told once for each reason."""
    found: list[Tensor] = []
    missing: dict[tuple[str, bool], list[str]] = {}
    for name, tensor in tensors.items():
        if trouble := _trouble(tensor):
            unsupported = tensor.dtype not in DTYPES or (tensor.storage is not None and tensor.storage.unsupported)
            missing.setdefault((trouble, unsupported), []).append(name)
        else:
            found.append(_tensor(name, tensor, file))
    damage = [Damage(file, _names(names), why, unsupported) for (why, unsupported), names in missing.items()]
    return tuple(found), tuple(damage)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ("tensor " if len(names) == 1 else "tensors ") + ", ".join(name[:120] for name in names[:SHOWN]) + more


def _trouble(tensor: PickledTensor) -> str:
    """Why the values cannot be had; empty where they can."""
    if tensor.dtype not in DTYPES:
        return f"elements of type {tensor.dtype} are not read"
    shape = tensor.shape if tensor.stored is None else (tensor.stored,)
    if tensor.layout == "meta" or math.prod(shape) == 0:
        return ""
    storage = tensor.storage
    if storage is None or storage.place is None:
        return "no storage" if storage is None else storage.trouble or "its storage is not in the file"
    width = DTYPES[tensor.dtype].bits // 8
    held, needed = storage.place.nbytes // width, reach(shape, tensor.strides, tensor.offset)
    if needed > held:
        return storage.trouble or f"reaches to element {needed:,} of storage {storage.key or '?'}, which has {held:,}"
    if math.prod(shape) * width > storage.place.nbytes + MOST_EXPANDED:
        return f"a view of {math.prod(shape):,} elements over {held:,} that are stored"
    return ""


def _tensor(name: str, tensor: PickledTensor, file: Path) -> Tensor:
    shape = tensor.shape if tensor.stored is None else (tensor.stored,)
    place = None if tensor.storage is None else tensor.storage.place
    if place is not None and place.held is not None:
        place = Storage(file, place.start, place.nbytes, held=place.held)
    return Tensor(
        name,
        tensor.dtype,
        tensor.shape,
        place,
        tensor.offset if math.prod(shape) else 0,
        None if row_major(shape, tensor.strides) else tensor.strides,
        layout=tensor.layout,
        stored=tensor.stored,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
    )
