"""How many elements of the gradients are zero or not finite, and which units have had no gradient for long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eventstream.watch_numbers import SMALL, Numbers, grouped, measure_norms, sums_of_segments, wide_type

__all__ = ["DEAD_AFTER", "Counts", "count_nonfinite"]

#: Observations in a row without any gradient after which a unit counts as dead. One batch proves nothing.
DEAD_AFTER = 5
#: Elements compared at once, which bounds the memory of the comparison.
_COMPARED = 1 << 24

#: Gradients with their keys.
_Keyed = Sequence[tuple[int, Any]]


class Counts:
    """Counts of one optimizer's gradients; for how many observations in a row each unit had none is remembered."""

    def __init__(self) -> None:
        self._quiet: dict[Any, tuple[tuple[Any, ...], Any]] = {}

    def measure(self, numbers: Numbers, gradients: _Keyed, units: Sequence[int], biases: Mapping[int, int]) -> None:
        """The norm of each gradient (`grad_norm`), what is not zero of it (`nonzero`), on devices what is not finite.

        `units` are the keys of weights whose rows are units; of them the dead are counted (`dead`). A unit without
        gradient in its row may still learn by its bias, where only its inputs are dead: `biases` tells the key of it.
        Another set of weights starts the count again: it is then another part of the model that is trained. What is
        not finite is counted by the host where a norm says that there is something, and a device cannot be asked.
        """
        import torch

        rows: dict[int, Any] = {}
        for group in grouped(gradients):
            keys = [key for key, _ in group]
            if group[0][1].device.type == "cpu":
                _measure_on_host(numbers, group, set(units), rows)
            else:
                measure_norms(numbers, "grad_norm", group)
                numbers.add("nonzero", keys, torch.stack([_count(gradient) for _, gradient in group]))
                numbers.add("nonfinite", keys, torch.stack([count_nonfinite(gradient) for _, gradient in group]))
                rows.update({key: _row_norms(gradient) == 0 for key, gradient in group if key in units})
        known, devices = dict(gradients), dict[Any, list[int]]()
        for key in rows:
            devices.setdefault(known[key].device, []).append(key)
        for device, found in devices.items():
            self._units(numbers, device, found, rows, {key: known.get(biases.get(key, -1)) for key in found})

    def _units(
        self, numbers: Numbers, device: Any, keys: Sequence[int], rows: Mapping[int, Any], biases: Mapping[int, Any]
    ) -> None:
        import torch

        quiet = torch.cat([rows[key] for key in keys])
        idle = [torch.ones_like(rows[key]) if biases[key] is None else biases[key] == 0 for key in keys]
        layout = tuple((key, rows[key].shape[0], biases[key] is None) for key in keys)
        known = self._quiet.get(device)
        if known is None or known[0] != layout:
            known = layout, torch.zeros(quiet.shape, device=device) if device.type == "cpu" else quiet * 0.0
            self._quiet[device] = known
        known[1].add_(1.0).mul_(quiet & torch.cat(idle))
        counts = sums_of_segments((known[1] >= DEAD_AFTER).float(), [rows[key].shape[0] for key in keys])
        numbers.add("dead", keys, counts)


def _measure_on_host(numbers: Numbers, group: _Keyed, units: set[int], rows: dict[int, Any]) -> None:
    """Norms and counts of one type's gradients, tensor by tensor, each while it is in the processor's cache."""
    import torch

    nonzero: list[float] = []
    small = [pair for pair in group if pair[1].numel() <= SMALL]
    measure_norms(numbers, "grad_norm", small)
    if small:
        same = _is_zero(torch.cat([gradient.reshape(-1) for _, gradient in small]))
        start = 0
        for key, gradient in small:
            stop = start + gradient.numel()
            nonzero.append(_not_zero(key, gradient.shape, [same[start:stop]], key in units, rows))
            start = stop
    large = [pair for pair in group if pair[1].numel() > SMALL]
    norms: list[Any] = []
    for key, gradient in large:
        norms.append(torch.linalg.vector_norm(gradient, dtype=wide_type(gradient.dtype)))
        pieces = [_is_zero(piece) for piece in _pieces(gradient)]
        nonzero.append(_not_zero(key, gradient.shape, pieces, key in units, rows))
    if large:
        numbers.add("grad_norm", [key for key, _ in large], torch.stack(norms))
    numbers.add("nonzero", [key for key, _ in [*small, *large]], torch.tensor(nonzero, dtype=torch.float64))


def _is_zero(tensor: Any) -> Any:
    """An array of truths. NumPy compares four times as fast as torch, and knows no bfloat16."""
    import torch

    return (tensor == 0).numpy() if tensor.dtype is torch.bfloat16 else tensor.detach().numpy() == 0


def _not_zero(key: int, shape: Any, zeros: Sequence[Any], has_units: bool, rows: dict[int, Any]) -> float:
    """How many elements are not zero, out of what is, piece by piece; and which rows are zero as a whole."""
    import numpy as np
    import torch

    counts, length = [int(np.count_nonzero(piece)) for piece in zeros], math.prod(shape[1:])
    if has_units:
        quiet = [_zero_rows(piece.reshape(-1, length), count) for piece, count in zip(zeros, counts, strict=True)]
        rows[key] = torch.from_numpy(quiet[0] if len(quiet) == 1 else np.concatenate(quiet))
    return float(math.prod(shape) - sum(counts))


def _zero_rows(zeros: Any, count: int) -> Any:
    """Which rows are true throughout, in an array with `count` truths."""
    import numpy as np

    if count < zeros.shape[1]:
        return np.zeros(len(zeros), bool)
    found = zeros[:, 0] & zeros[:, -1]  # few rows begin and end with zero: only they are looked through
    where = np.flatnonzero(found)
    found[where] = zeros[where].all(axis=1)
    return found


def _count(gradient: Any) -> Any:
    import torch

    return torch.stack([torch.count_nonzero(piece) for piece in _pieces(gradient)]).sum()


def count_nonfinite(gradient: Any) -> Any:
    """How many elements are NaN or infinite, as a tensor of no dimension."""
    import torch

    # A finite number less itself is 0, every other one NaN: one comparison for both.
    return torch.stack([torch.count_nonzero(piece - piece) for piece in _pieces(gradient)]).sum()


def _row_norms(gradient: Any) -> Any:
    import torch

    return torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=wide_type(gradient.dtype))


def _pieces(tensor: Any) -> Iterator[Any]:
    if tensor.numel() <= _COMPARED or tensor.ndim == 0:
        yield tensor
    else:
        row = max(1, tensor.numel() // tensor.shape[0])
        yield from tensor.split(max(1, _COMPARED // row))
