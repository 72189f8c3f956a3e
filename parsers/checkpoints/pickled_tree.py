"""The tensors and plain values of an unpickled tree, by dotted path: walked without recursion and within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from parsers.checkpoints.checkpoint import MOST_VALUES
from parsers.checkpoints.inert_objects import PickledTensor, Record
from parsers.checkpoints.numpy_objects import NumpyArray
from parsers.checkpoints.side_values import LONGEST_TEXT, Value

__all__ = ["Tree", "flattened"]

#: Containers within containers: no checkpoint has more than about ten, and names grow with each.
MOST_DEPTH = 64
#: Places that are visited. A pickle can name one list a million times, in a list that it names a million times.
MOST_PLACES = 1_000_000
#: Scalars that are kept of one list: longer ones are data (orders of samples, vocabularies), not settings.
MOST_OF_LIST = 10_000
#: Characters of one key; texts as keys may be of any length.
LONGEST_KEY = 300
#: Attributes between an object and what it means: a module keeps parameters so, OmegaConf its values.
_TRANSPARENT = frozenset(("_parameters", "_buffers", "_modules", "_local_tensor", "_content", "_val"))
_BOOKKEEPING = frozenset(("_metadata", "_parent", "_flags_cache", "_backward_hooks", "_forward_hooks"))
#: Integers beyond 64 bits (random states) are told as text.
LARGEST_INTEGER = 1 << 63


@dataclass
class Tree:
    """Tensors in the order of the tree, under names of which each is there once; plain values; what was left out."""

    tensors: dict[str, PickledTensor] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, tensor: PickledTensor) -> None:
        """A tensor with the parts that belong to it."""
        self.tensors[self._free(name)] = tensor
        for part, inner in tensor.parts.items():
            self.tensors[self._free(f"{name}.{part}")] = inner

    def _free(self, name: str) -> str:
        free = name
        while free in self.tensors:
            self._counts[name] = self._counts.get(name, 1) + 1
            free = f"{name}#{self._counts[name]}"
        return free


def flattened(root: Any, name: str = "") -> Tree:
    """All tensors and values below `root`, by dotted path; lists count from 0. What is in a cycle is told once.

    >>> flattened({"epoch": 3, "optimizer": {"param_groups": [{"lr": 0.1}]}}).values
    {'epoch': 3, 'optimizer.param_groups.0.lr': 0.1}
    """
    tree, places = Tree(), 0
    stack: list[tuple[str, Any, tuple[int, ...]]] = [(name, root, ())]
    while stack:
        path, value, above = stack.pop()
        places += 1
        if places > MOST_PLACES:
            tree.trouble.append(
                f"more than {MOST_PLACES:,} places in the tree: what is behind {path[:100]} is left out"
            )
            break
        if isinstance(value, NumpyArray):
            value = _of_array(value)
        if isinstance(value, PickledTensor):
            tree.add(path, value)
        elif isinstance(value, str | int | float) or value is None:
            if path and len(tree.values) < MOST_VALUES:
                tree.values[path] = _scalar(value)
        elif id(value) in above:
            continue
        elif len(above) >= MOST_DEPTH:
            tree.trouble.append(f"nested deeper than {MOST_DEPTH} levels: what is below {path[:100]} is left out")
        else:
            inside = [(f"{path}.{key}" if path and key else path or key, inner) for key, inner in _children(value)]
            trail = (*above, id(value))
            stack.extend((key, inner, trail) for key, inner in reversed(inside))
    del tree.trouble[20:]
    return tree


def _of_array(array: NumpyArray) -> Any:
    return array.objects if array.objects is not None else array.tensor() or Record("numpy.ndarray")


def _scalar(value: Value) -> Value:
    if isinstance(value, str):
        return value[:LONGEST_TEXT]
    if isinstance(value, int) and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        return str(value)
    return value


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield _key(key), inner
    elif isinstance(value, list | tuple):
        yield from _of_list(value)
    elif isinstance(value, Record):
        yield from _of_record(value)


def _of_list(value: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    scalars = 0
    for place, inner in enumerate(value):
        scalars += isinstance(inner, str | int | float)
        if scalars <= MOST_OF_LIST or not isinstance(inner, str | int | float):
            yield str(place), inner


def _of_record(record: Record) -> Iterator[tuple[str, Any]]:
    """What an object holds: its attributes and items; one that is made of a single value (an enum) is that value."""
    attributes = record.attributes()
    for key, inner in (*attributes.items(), *record.pairs.items()):
        if key not in _BOOKKEEPING:
            yield ("" if key in _TRANSPARENT else _key(key)), inner
    yield from _of_list(record.items)
    if not (attributes or record.pairs or record.items) and len(record.args) == 1:
        yield "", record.args[0]


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key[:LONGEST_KEY]
    if isinstance(key, bytes):
        return key[:LONGEST_KEY].decode("utf-8", "replace")
    if isinstance(key, tuple):
        return "_".join(_key(part) for part in key if not isinstance(part, tuple))[:LONGEST_KEY]
    return key.name if isinstance(key, Record) else str(key)[:LONGEST_KEY]
