"""Where each parameter stands in its model: the layer that it belongs to, and whether its rows are units."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Names", "Place", "clean_name", "is_sharded"]

#: Parts of a module's name that only say how it is wrapped: torch.compile, FSDP, activation checkpointing.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
#: Parameters of the optimizer that are none of the model's.
OUTSIDE = "outside_model"


@dataclass(frozen=True, slots=True)
class Place:
    """The layer of a parameter, and whether each row of its first dimension feeds one output unit."""

    layer: str
    units: bool


def clean_name(name: str) -> str:
    """The name of a module as its author wrote it: without what DDP, FSDP and torch.compile put in front or between.

    >>> clean_name("module._orig_mod.blocks.0._fsdp_wrapped_module.mlp"), clean_name("head.module")
    ('blocks.0.mlp', 'head.module')
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while parts and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


class Names:
    """Places of a model's parameters by identity; a parameter met later is looked for in the model again.

    A layer is a module that owns parameters, and its name is the module's; a parameter of the model itself is a layer
    by its own name. Tied parameters belong to the module that comes first.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: dict[int, tuple[weakref.ref[Any], Place]] = {}
        self._refresh()

    def place(self, parameter: Any) -> Place:
        """Where `parameter` stands; the layer `outside_model` for one that is not the model's."""
        found = self._known.get(id(parameter))
        if found is None or found[0]() is not parameter:
            self._refresh()
            found = self._known.get(id(parameter))
        if found is None or found[0]() is not parameter:
            found = weakref.ref(parameter), Place(OUTSIDE, False)
            self._known[id(parameter)] = found
        return found[1]

    def holds(self, parameter: Any) -> bool:
        """Whether the model owns `parameter`."""
        return self.place(parameter).layer != OUTSIDE

    def _refresh(self) -> None:
        known: dict[int, tuple[weakref.ref[Any], Place]] = {}
        for parameter, place in _walk(self._model):
            known.setdefault(id(parameter), (weakref.ref(parameter), place))
        self._known = known


def _walk(model: Any) -> Iterator[tuple[Any, Place]]:
    from torch import nn

    for path, module in model.named_modules():
        # Rows of an embedding are words, most of which no batch holds; those of a transposed convolution are inputs.
        rows_are_units = not isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and not getattr(
            module, "transposed", False
        )
        for name, parameter in module.named_parameters(recurse=False):
            yield parameter, Place(clean_name(path) or name, rows_are_units and parameter.ndim > 1)


def is_sharded(model: Any) -> bool:
    """Whether this process holds only a part of the parameters (FSDP of either generation, tensor parallel).

    >>> import torch
    >>> is_sharded(torch.nn.Linear(2, 2))
    False
    """
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        return True
    placements = (getattr(parameter, "placements", None) or () for parameter in model.parameters())
    return any(callable(p := getattr(part, "is_shard", None)) and p() for parts in placements for part in parts)
