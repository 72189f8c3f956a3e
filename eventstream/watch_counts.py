"""How many elements of the gradients are zero or not finite, and which units have had no gradient for long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eventstream.watch_norms import SMALL, measure_norms, wide_type
from eventstream.watch_numbers import Numbers, grouped

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

        wanted, beside = set(units), set(biases.values())
        for group in grouped(gradients):
            keys, device = [key for key, _ in group], group[0][1].device
            if device.type == "cpu":
                quiet = _measure_on_host(numbers, group, wanted, beside)
            else:
                measure_norms(numbers, "grad_norm", group)
                numbers.add("nonzero", keys, torch.stack([_count(gradient) for _, gradient in group]))
                numbers.add("nonfinite", keys, torch.stack([count_nonfinite(gradient) for _, gradient in group]))
                quiet = {key: _row_norms(gradient) == 0 for key, gradient in group if key in wanted}
                quiet |= {key: gradient.reshape(-1) == 0 for key, gradient in group if key in beside}
            found = [key for key in keys if key in wanted]
            if found:
                self._units(numbers, (device, group[0][1].dtype), found, quiet, biases)

    def _units(
        self, numbers: Numbers, place: Any, keys: Sequence[int], quiet: Mapping[int, Any], biases: Mapping[int, int]
    ) -> None:
        rows = [quiet[key] for key in keys]
        # A unit without a bias, or whose bias has no gradient here, is judged by its row alone.
        pairs = [
            row if (bias := quiet.get(biases.get(key, -1))) is None else row & bias
            for key, row in zip(keys, rows, strict=True)
        ]
        now, lengths = _joined(pairs), [len(row) for row in rows]
        layout = tuple(zip(keys, lengths, strict=True))
        known = self._quiet.get(place)
        if known is None or known[0] != layout:
            known = self._quiet[place] = layout, now * 0.0
        known[1].add_(1.0).mul_(now)
        numbers.add("dead", keys, _sums_of_segments((known[1] >= DEAD_AFTER).float(), lengths))


def _sums_of_segments(vector: Any, lengths: Sequence[int]) -> Any:
    """The sum of each segment of a vector without negative numbers."""
    import torch

    if vector.device.type == "cpu":
        return torch.segment_reduce(vector, "sum", lengths=torch.tensor(lengths), unsafe=True)
    # A vector of lengths would have to be sent to the device, which waits; the 1-norm is the sum.
    return torch.stack(torch._foreach_norm(vector.split(list(lengths)), 1.0))


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays or tensors of truths as one tensor."""
    import numpy as np
    import torch

    return torch.from_numpy(np.concatenate(parts)) if isinstance(parts[0], np.ndarray) else torch.cat(list(parts))


def _measure_on_host(numbers: Numbers, group: _Keyed, units: set[int], biases: set[int]) -> dict[int, Any]:
    """Norms and counts of one type's gradients, tensor by tensor, each while it is in the processor's cache.

    Gives which rows of the weights among `units`, and which elements of the `biases`, are zero.
    """
    import torch

    found: list[tuple[int, float]] = []
    quiet: dict[int, Any] = {}

    def take(key: int, shape: Any, zeros: Sequence[Any]) -> None:
        nonzero, rows = _not_zero(shape, zeros, rows=key in units)
        found.append((key, nonzero))
        if key in units:
            quiet[key] = rows
        elif key in biases and len(zeros) == 1:
            quiet[key] = zeros[0]

    small = [pair for pair in group if pair[1].numel() <= SMALL]
    measure_norms(numbers, "grad_norm", small)
    if small:
        same, start = _is_zero(torch.cat([gradient.reshape(-1) for _, gradient in small])), 0
        for key, gradient in small:
            take(key, gradient.shape, [same[start : start + gradient.numel()]])
            start += gradient.numel()
    large = [pair for pair in group if pair[1].numel() > SMALL]
    norms: list[Any] = []
    for key, gradient in large:
        norms.append(torch.linalg.vector_norm(gradient, dtype=wide_type(gradient.dtype)))
        take(key, gradient.shape, [_is_zero(piece) for piece in _pieces(gradient)])
    if large:
        numbers.add("grad_norm", [key for key, _ in large], torch.stack(norms))
    numbers.add_known("nonzero", [key for key, _ in found], [count for _, count in found])
    return quiet


def _is_zero(tensor: Any) -> Any:
    """An array of truths. NumPy compares four times as fast as torch, and knows no bfloat16."""
    import torch

    return (tensor == 0).numpy() if tensor.dtype is torch.bfloat16 else tensor.detach().numpy() == 0


def _not_zero(shape: Any, zeros: Sequence[Any], *, rows: bool) -> tuple[float, Any]:
    """How many elements are not zero, out of what is, piece by piece; with `rows`, which are zero as a whole."""
    import numpy as np

    counts, quiet = [int(np.count_nonzero(piece)) for piece in zeros], None
    if rows:
        length = math.prod(shape[1:])
        parts = [_zero_rows(piece.reshape(-1, length), count) for piece, count in zip(zeros, counts, strict=True)]
        quiet = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return float(math.prod(shape) - sum(counts)), quiet


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
