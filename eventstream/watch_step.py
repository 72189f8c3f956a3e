"""One step of one optimizer, measured around it: gradients before it, or after where a closure computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventstream.watch_counts import Counts, count_nonfinite
from eventstream.watch_names import Names
from eventstream.watch_numbers import SAMPLE, Numbers, Sample, dense, measure_norms
from eventstream.watch_observers import Clipping, Scaling
from eventstream.watch_summary import Entry, Part

__all__ = ["Roster", "Step"]


class Roster:
    """The trainable parameters of one optimizer, with their places, and what is remembered of their units."""

    def __init__(self, names: Names) -> None:
        self.counts = Counts()
        self._names = names
        self._identities: tuple[int, ...] = ()
        self._entries: list[Entry] = []
        #: Key of a weight -> key of the bias of the same units.
        self.biases: dict[int, int] = {}

    def call(self, optimizer: Any) -> tuple[list[Any], list[Entry]]:
        """The parameters that stand in the optimizer's groups now; groups may be added and layers frozen."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        identities = tuple(map(id, parameters))
        if identities != self._identities:
            self._identities, self._entries = identities, [self._entry(parameter) for parameter in parameters]
            self.biases = _biases(self._entries, [parameter.ndim for parameter in parameters])
        return parameters, self._entries

    def _entry(self, parameter: Any) -> Entry:
        place = self._names.place(parameter)
        to_local = getattr(parameter, "to_local", None)
        local = to_local() if callable(to_local) else parameter
        size, units = local.numel(), local.shape[0] if place.units else 0
        return Entry(place.layer, id(parameter), size, max(1, min(size, SAMPLE)), units)


def _biases(entries: Sequence[Entry], dimensions: Sequence[int]) -> dict[int, int]:
    """The bias of each weight, where a layer has one vector as long as its one matrix has rows."""
    layers: dict[str, list[int]] = {}
    for key, entry in enumerate(entries):
        layers.setdefault(entry.layer, []).append(key)
    found: dict[int, int] = {}
    for keys in layers.values():
        weights = [key for key in keys if entries[key].units]
        if len(weights) == 1:
            length = entries[weights[0]].units
            vectors = [key for key in keys if dimensions[key] == 1 and entries[key].numel == length]
            if len(vectors) == 1:
                found[weights[0]] = vectors[0]
    return found


class Step:
    """Measures one step: made before it, told when it is over. `slow` adds what costs passes over all parameters."""

    def __init__(self, optimizer: Any, roster: Roster, *, slow: bool, closure: bool) -> None:
        import torch

        self._parameters, entries = roster.call(optimizer)
        self.part = Part(Numbers(), entries)
        self._optimizer, self._roster = optimizer, roster
        self._slow, self._closure = slow, closure
        self._sample: Sample | None = None
        with torch.no_grad():
            if not closure:
                self._gradients()
            if slow:
                weights = [(key, dense(parameter)) for key, parameter in enumerate(self._parameters)]
                measure_norms(self.part.numbers, "param_norm", weights)
                self._sample = Sample(self.part.numbers, weights)
        self._rates()

    def after(self, clipping: Clipping, scaling: Scaling) -> None:
        """Measure what the step changed."""
        import torch

        with torch.no_grad():
            if self._closure:
                self._gradients()
            if self._sample is not None:
                self._sample.measure()
                self._sample = None
        self._parameters = []
        self.part.clip_calls, self.part.clips = clipping.tell(self.part.numbers)
        self.part.skipped = scaling.tell(self.part.numbers)

    def _gradients(self) -> None:
        numbers = self.part.numbers
        held = [(key, p, dense(p.grad)) for key, p in enumerate(self._parameters) if p.grad is not None]
        gradients = [(key, gradient) for key, _, gradient in held]
        scale = getattr(self._optimizer, "grad_scale", None)
        if scale is not None and hasattr(scale, "reshape"):
            # A fused optimizer takes the loss scale out of the gradients itself.
            numbers.add("grad_scale", [0], scale)
        if self._slow:
            entries = self.part.entries
            units = [key for key, p, g in held if entries[key].units and g.ndim == p.ndim]
            self._roster.counts.measure(numbers, gradients, units, self._roster.biases)
        else:
            measure_norms(numbers, "grad_norm", gradients)
        self._nonfinite_on_host(gradients)

    def _nonfinite_on_host(self, gradients: Sequence[tuple[int, Any]]) -> None:
        """Count what is not finite where the norm says that there is something to count."""
        import torch

        keys, finite = self.part.numbers.on_host("grad_norm")
        if finite:
            counts = torch.zeros(len(keys))
        else:
            known = dict(gradients)
            counts = torch.stack([count_nonfinite(known[key]) for key in keys])
        self.part.numbers.add("nonfinite", keys, counts)

    def _rates(self) -> None:
        groups = self._optimizer.param_groups
        for place, group in enumerate(groups):
            name, rate = "lr" if len(groups) == 1 else f"lr/{place}", group.get("lr")
            if hasattr(rate, "reshape"):
                self.part.numbers.add(name, [0], rate.detach().clone())
            elif isinstance(rate, (int, float)):
                self.part.plain[name] = float(rate)
