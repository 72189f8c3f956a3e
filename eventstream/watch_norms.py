"""The 2-norm of each of many tensors, in one fused pass for each device and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from eventstream.watch_numbers import Numbers

__all__ = ["SMALL", "Norms", "measure_norms", "wide_type"]

#: Below this size a tensor of the host is measured together with others: a call costs more than its numbers.
SMALL = 2048

_kind = attrgetter("device", "dtype")


@dataclass(frozen=True, slots=True)
class _Group:
    """Places of tensors of one device and type: small ones of the host, laid end to end, and all others."""

    small: Sequence[int]
    starts: Any
    others: Sequence[int]
    dtype: Any


class Norms:
    """Norms of the tensors of one optimizer, step after step: sorted anew only where their kinds change.

    In a model of a hundred layers the sorting costs more than the arithmetic of the small tensors.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._kinds: list[Any] = []
        self._groups: list[_Group] = []

    def measure(self, numbers: Numbers, statistic: str, keys: Sequence[int], tensors: Sequence[Any]) -> None:
        """Add the 2-norm of each tensor that holds anything, under the key at its place."""
        import torch

        sizes, kinds = list(map(torch.Tensor.numel, tensors)), list(map(_kind, tensors))
        if sizes != self._sizes or kinds != self._kinds:
            self._sizes, self._kinds, self._groups = sizes, kinds, _sorted_out(sizes, kinds)
        for group in self._groups:
            if group.small:
                norms = _norms_of_small([tensors[place] for place in group.small], group.starts)
                numbers.add_known(statistic, [keys[place] for place in group.small], norms)
            if group.others:
                found = torch._foreach_norm([tensors[place] for place in group.others], 2.0, dtype=group.dtype)
                numbers.add(statistic, [keys[place] for place in group.others], torch.stack(found))


def measure_norms(numbers: Numbers, statistic: str, tensors: Sequence[tuple[int, Any]]) -> None:
    """The norms of tensors that are measured rarely, each with its key."""
    Norms().measure(numbers, statistic, [key for key, _ in tensors], [tensor for _, tensor in tensors])


def wide_type(dtype: Any) -> Any:
    """The type to sum squares in: half precision overflows at 65,504."""
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else None


def _sorted_out(sizes: Sequence[int], kinds: Sequence[Any]) -> list[_Group]:
    import numpy as np

    places: dict[Any, list[int]] = {}
    for place, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        if size:
            places.setdefault(kind, []).append(place)
    groups = []
    for (device, dtype), found in places.items():
        joined = device.type == "cpu" and not dtype.is_complex
        small = [place for place in found if joined and sizes[place] <= SMALL]
        if len(small) < 2:
            small = []
        starts = np.cumsum([0, *(sizes[place] for place in small[:-1])])
        known = set(small)
        groups.append(_Group(small, starts, [place for place in found if place not in known], wide_type(dtype)))
    return groups


def _norms_of_small(tensors: Sequence[Any], starts: Any) -> list[float]:
    import numpy as np
    import torch

    flat = torch.cat([tensor if tensor.ndim == 1 else tensor.reshape(-1) for tensor in tensors])
    squares = flat.double().square_().numpy()
    with np.errstate(over="ignore"):  # of gradients in double precision: the norm is infinite, and is told as that
        norms: list[float] = np.sqrt(np.add.reduceat(squares, starts)).tolist()
    return norms
