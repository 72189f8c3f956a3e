"""How far a step moved the parameters, from a sample of them that is taken before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventstream.watch_norms import measure_norms, wide_type
from eventstream.watch_numbers import Numbers, grouped

__all__ = ["SAMPLE", "Sample"]

#: Elements of one tensor that the update ratio looks at: all of small tensors, an even sample of large ones, so that
#: the old weights held for the time of one step take little memory. The ratio's error is then about two in a hundred.
SAMPLE = 2048
#: Neighbours that are sampled together: two cache lines of 32-bit floats.
_RUN = 32


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
