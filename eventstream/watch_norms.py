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

_device, _dtype = attrgetter("device"), attrgetter("dtype")


@dataclass(frozen=True, slots=True)
class _Group:
    """Places of tensors of one device and type: small ones of the host, laid end to end, and all others."""

    small: Sequence[int]
    starts: Any
    others: Sequence[int]
    on_host: bool
    dtype: Any


class Norms:
    """Norms of the tensors of one optimizer, step after step: sorted anew only where their kinds change.

    In a model of a hundred layers the sorting costs more than the arithmetic of the small tensors.
    """

    def __init__(self) -> None:
        self._seen: tuple[list[int], list[Any], list[Any]] | None = None
        self._groups: list[_Group] = []

    def measure(self, numbers: Numbers, statistic: str, keys: Sequence[int], tensors: Sequence[Any]) -> None:
        """Add the 2-norm of each tensor that holds anything, under the key at its place."""
        import torch

        # Three lists and not one of tuples: they are made at every step, and a step has hundreds of tensors.
        seen = list(map(torch.Tensor.numel, tensors)), list(map(_device, tensors)), list(map(_dtype, tensors))
        if seen != self._seen:
            self._seen, self._groups = seen, _sorted_out(*seen)
        for group in self._groups:
            if group.small:
                norms = _norms_of_small([tensors[place] for place in group.small], group.starts)
                numbers.add_known(statistic, [keys[place] for place in group.small], norms)
            if group.others:
                found = torch._foreach_norm([tensors[place] for place in group.others], 2.0, dtype=group.dtype)
                others = [keys[place] for place in group.others]
                if group.on_host:
                    numbers.add_known(statistic, others, list(map(torch.Tensor.item, found)))
                else:
                    numbers.add(statistic, others, torch.stack(found))


def measure_norms(numbers: Numbers, statistic: str, tensors: Sequence[tuple[int, Any]]) -> None:
    """The norms of tensors that are measured rarely, each with its key."""
    Norms().measure(numbers, statistic, [key for key, _ in tensors], [tensor for _, tensor in tensors])


def wide_type(dtype: Any) -> Any:
    """The type to sum squares in: half precision overflows at 65,504."""
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else None


def _sorted_out(sizes: Sequence[int], devices: Sequence[Any], dtypes: Sequence[Any]) -> list[_Group]:
    import numpy as np

    places: dict[Any, list[int]] = {}
    for place, (size, *kind) in enumerate(zip(sizes, devices, dtypes, strict=True)):
        if size:
            places.setdefault(tuple(kind), []).append(place)
    groups = []
    for (device, dtype), found in places.items():
        on_host = device.type == "cpu"
        small = [place for place in found if on_host and not dtype.is_complex and sizes[place] <= SMALL]
        if len(small) < 2:
            small = []
        starts = np.cumsum([0, *(sizes[place] for place in small[:-1])])
        others = sorted(set(found).difference(small))
        groups.append(_Group(small, starts, others, on_host, wide_type(dtype)))
    return groups


def _norms_of_small(tensors: Sequence[Any], starts: Any) -> list[float]:
    import numpy as np
    import torch

    flat = torch.cat([tensor if tensor.ndim == 1 else tensor.reshape(-1) for tensor in tensors])
    squares = flat.double().square_().numpy()
    with np.errstate(over="ignore"):  # of gradients in double precision: the norm is infinite, and is told as that
        norms: list[float] = np.sqrt(np.add.reduceat(squares, starts)).tolist()
    return norms
