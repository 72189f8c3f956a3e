"""What is measured of gradients and parameters on their own devices: a few vectors a step, nothing read by the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventstream.deferred import HostCopy

__all__ = ["Numbers", "Table", "dense", "grouped"]

#: Statistic -> key of the tensor (its place among the step's) -> number.
Table = dict[str, dict[int, float]]


class Numbers:
    """Numbers by statistic, each with the key of its tensor: those of the host at once, of a device by one copy."""

    def __init__(self) -> None:
        self._parts: dict[Any, list[tuple[str, Sequence[int], Any]]] = {}
        self._read: list[tuple[list[tuple[str, Sequence[int]]], HostCopy]] = []
        self._table: Table = {}

    def add(self, statistic: str, keys: Sequence[int], vector: Any) -> None:
        """Add one number for each key."""
        if vector.device.type == "cpu":
            numbers = vector if vector.is_floating_point() else vector.double()
            self.add_known(statistic, keys, numbers.reshape(-1).tolist())
        else:
            self._parts.setdefault(vector.device, []).append((statistic, keys, vector))

    def add_known(self, statistic: str, keys: Sequence[int], numbers: Sequence[float]) -> None:
        """Add numbers that the host holds already."""
        self._table.setdefault(statistic, {}).update(zip(keys, numbers, strict=True))

    def known(self, statistic: str) -> Mapping[int, float]:
        """What the host can read of a statistic without waiting for a device."""
        return self._table.get(statistic, {})

    def copies(self) -> list[HostCopy]:
        """Start the copies to the host; later numbers go into later copies."""
        import torch

        parts, self._parts = self._parts, {}
        for found in parts.values():
            labels = [(statistic, keys) for statistic, keys, _ in found]
            self._read.append((labels, HostCopy(torch.cat([vector.reshape(-1) for *_, vector in found]))))
        return [copy for _, copy in self._read]

    def table(self) -> Table:
        """The numbers on the host; waits for those that have not arrived."""
        for labels, copy in self._read:
            numbers = iter(copy.numbers())
            for statistic, keys in labels:
                self._table.setdefault(statistic, {}).update(zip(keys, numbers, strict=False))
        self._read.clear()
        return self._table


def dense(tensor: Any) -> Any:
    """What this process holds of a tensor: the local part of a distributed one, the values of a sparse one."""
    import torch

    to_local = getattr(tensor, "to_local", None)
    local = to_local() if callable(to_local) else tensor
    if local.layout is torch.sparse_coo:
        return local.coalesce().values()
    return local if local.layout is torch.strided else local.values()


def grouped(tensors: Sequence[tuple[int, Any]]) -> list[list[tuple[int, Any]]]:
    """The tensors that hold anything, those of one device and type together."""
    groups: dict[tuple[Any, Any], list[tuple[int, Any]]] = {}
    for key, tensor in tensors:
        if tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append((key, tensor))
    return list(groups.values())
