"""What is measured of gradients and parameters on their own devices: a few vectors a step, nothing read by the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eventstream.deferred import HostCopy

__all__ = [
    "SAMPLE",
    "SMALL",
    "Numbers",
    "Sample",
    "Table",
    "dense",
    "grouped",
    "measure_norms",
    "sums_of_segments",
    "wide_type",
]

#: Elements of one tensor that the update ratio looks at: all of small tensors, an even sample of large ones, so that
#: the old weights held for the time of one step take little memory. The ratio's error is then about two in a hundred.
SAMPLE = 2048
#: Neighbours that are sampled together: two cache lines of 32-bit floats.
_RUN = 32
#: Below this size a tensor of the host is measured together with others: a call costs more than its numbers.
SMALL = 2048
#: Statistic -> key of the tensor (its place among the step's) -> number.
Table = dict[str, dict[int, float]]


class Numbers:
    """Vectors of numbers by statistic, each number with the key of its tensor; one copy a device takes them over."""

    def __init__(self) -> None:
        self._parts: dict[Any, list[tuple[str, Sequence[int], Any]]] = {}
        self._read: list[tuple[list[tuple[str, Sequence[int]]], HostCopy]] = []

    def add(self, statistic: str, keys: Sequence[int], vector: Any) -> None:
        """Add one number for each key."""
        self._parts.setdefault(vector.device, []).append((statistic, keys, vector))

    def on_host(self, statistic: str) -> tuple[list[int], bool]:
        """Keys of a statistic's numbers that the host can read without waiting for a device; whether all are finite."""
        found: list[int] = []
        finite = True
        for device, parts in self._parts.items():
            if device.type == "cpu":
                for name, keys, vector in parts:
                    if name == statistic:
                        found += keys
                        finite = finite and all(map(math.isfinite, vector.reshape(-1).tolist()))
        return found, finite

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
        table: Table = {}
        for labels, copy in self._read:
            numbers = iter(copy.numbers())
            for statistic, keys in labels:
                table.setdefault(statistic, {}).update(zip(keys, numbers, strict=False))
        return table


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


def wide_type(dtype: Any) -> Any:
    """The type to sum squares in: half precision overflows at 65,504."""
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else None


def measure_norms(numbers: Numbers, statistic: str, tensors: Sequence[tuple[int, Any]]) -> None:
    """The 2-norm of each tensor, in one fused pass for each device and type."""
    import torch

    for group in grouped(tensors):
        small = [pair for pair in group if pair[1].device.type == "cpu" and pair[1].numel() <= SMALL]
        if len(small) > 1 and not small[0][1].is_complex():
            group = [pair for pair in group if pair[1].numel() > SMALL]
            flat = torch.cat([tensor.reshape(-1) for _, tensor in small]).double()
            squares = sums_of_segments(flat.square_(), [tensor.numel() for _, tensor in small])
            numbers.add(statistic, [key for key, _ in small], squares.sqrt_())
        if group:
            found = torch._foreach_norm([tensor for _, tensor in group], 2.0, dtype=wide_type(group[0][1].dtype))
            numbers.add(statistic, [key for key, _ in group], torch.stack(found))


def sums_of_segments(vector: Any, lengths: Sequence[int]) -> Any:
    """The sum of each segment of a vector without negative numbers."""
    import torch

    if vector.device.type == "cpu":
        return torch.segment_reduce(vector, "sum", lengths=torch.tensor(lengths), unsafe=True)
    # A vector of lengths would have to be sent to the device, which waits; the 1-norm is the sum.
    return torch.stack(torch._foreach_norm(vector.split(list(lengths)), 1.0))


class Sample:
    """Parameters before the step, so that `measure` after it can tell how far they moved."""

    def __init__(self, numbers: Numbers, tensors: Sequence[tuple[int, Any]], most: int = SAMPLE) -> None:
        self._numbers, self._most = numbers, most
        #: Keys, tensors and what was sampled of them; large and small tensors of one type apart.
        self._groups: list[tuple[list[int], list[Any], Any]] = []
        for group in grouped(tensors):
            for large in (True, False):
                found = [(key, tensor) for key, tensor in group if (tensor.numel() > most) is large]
                if found:
                    old = self._taken([tensor for _, tensor in found])
                    self._groups.append(([key for key, _ in found], [tensor for _, tensor in found], old))
                    self._tell("was", *self._groups[-1])

    def measure(self) -> None:
        """Add the norm of what each parameter moved (`moved`), beside that of what it was (`was`)."""
        for keys, tensors, old in self._groups:
            self._tell("moved", keys, tensors, self._taken(tensors).sub_(old))

    def _taken(self, tensors: Sequence[Any]) -> Any:
        """The sample of all of them in one new vector, in single precision at least."""
        import torch

        parts = [_runs(t, self._most) if t.numel() > self._most else t.reshape(-1) for t in tensors]
        taken = torch.cat(parts).reshape(-1)
        wide = wide_type(taken.dtype)
        return taken if wide is None else taken.to(wide)

    def _tell(self, statistic: str, keys: Sequence[int], tensors: Sequence[Any], vector: Any) -> None:
        import torch

        runs = self._most // _RUN * _RUN
        lengths = [runs if tensor.numel() > self._most else tensor.numel() for tensor in tensors]
        if len(set(lengths)) == 1:
            norms = torch.linalg.vector_norm(vector.reshape(len(lengths), -1), dim=1)
            self._numbers.add(statistic, keys, norms)
        else:
            measure_norms(self._numbers, statistic, list(zip(keys, vector.split(lengths), strict=True)))


def _runs(tensor: Any, most: int) -> Any:
    """Runs of neighbours at even distances, (runs, 32): a view where the memory has no gaps."""
    import torch

    flat = tensor.detach()
    if not (flat.is_contiguous() or (flat.ndim == 4 and flat.is_contiguous(memory_format=torch.channels_last))):
        flat = flat.reshape(-1)
    runs = most // _RUN
    # An odd distance, so that the runs walk through all columns of a matrix whose width is a power of two.
    distance = max(1, ((flat.numel() - _RUN) // (runs - 1) - 1) | 1)
    return flat.as_strided((runs, _RUN), (distance, 1))
