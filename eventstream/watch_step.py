"""One step of one optimizer, measured around it: gradients before it, or after where a closure computes them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from eventstream.watch_counts import Counts, count_nonfinite
from eventstream.watch_names import Names
from eventstream.watch_norms import Norms, measure_norms
from eventstream.watch_numbers import Numbers, dense
from eventstream.watch_observers import Clipping, Scaling
from eventstream.watch_sample import SAMPLE, Sample
from eventstream.watch_summary import Entry, Part

__all__ = ["Roster", "Step"]

_layout = attrgetter("layout")


class Roster:
    """The trainable parameters of one optimizer, with their places, and what is remembered of their units."""

    def __init__(self, names: Names) -> None:
        self.counts, self.norms = Counts(), Norms()
        self._names = names
        self._identities: tuple[int, ...] = ()
        self.entries: list[Entry] = []
        self.layers: list[str] = []
        #: Key of a weight -> key of the bias of the same units.
        self.biases: dict[int, int] = {}

    def call(self, optimizer: Any) -> list[Any]:
        """The parameters that stand in the optimizer's groups now; groups may be added and layers frozen."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        identities = tuple(map(id, parameters))
        if identities != self._identities:
            self._identities, self.entries = identities, [self._entry(parameter) for parameter in parameters]
            self.layers = [entry.layer for entry in self.entries]
            self.biases = _biases(self.entries, [parameter.ndim for parameter in parameters])
        return parameters

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

        self._parameters = roster.call(optimizer)
        self.part = Part(Numbers(), roster.entries, roster.layers)
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
        keys, gradients = _held(self._parameters)
        scale = getattr(self._optimizer, "grad_scale", None)
        if scale is not None and hasattr(scale, "reshape"):
            # A fused optimizer takes the loss scale out of the gradients itself. A copy: the scaler changes its own.
            numbers.add("grad_scale", [0], scale.clone())
        if self._slow:
            entries, parameters = self.part.entries, self._parameters
            pairs = list(zip(keys, gradients, strict=True))
            units = [key for key, gradient in pairs if entries[key].units and gradient.ndim == parameters[key].ndim]
            self._roster.counts.measure(numbers, pairs, units, self._roster.biases)
        else:
            self._roster.norms.measure(numbers, "grad_norm", keys, gradients)
        self._nonfinite_on_host(keys, gradients)

    def _nonfinite_on_host(self, keys: Sequence[int], gradients: Sequence[Any]) -> None:
        """Count what is not finite where the norm says that there is something to count."""
        import torch

        norms = self.part.numbers.known("grad_norm")
        total = sum(norms.values())
        if total - total == 0:
            counted = list(norms)[:1]  # one stands for all: none has any
            self.part.numbers.add_known("nonfinite", counted, [0.0] * len(counted))
        else:
            found = dict(zip(keys, gradients, strict=True))
            counts = torch.stack([count_nonfinite(found[key]) for key in norms])
            self.part.numbers.add("nonfinite", list(norms), counts)

    def _rates(self) -> None:
        groups = self._optimizer.param_groups
        for place, group in enumerate(groups):
            name, rate = "lr" if len(groups) == 1 else f"lr/{place}", group.get("lr")
            if hasattr(rate, "reshape"):
                self.part.numbers.add(name, [0], rate.detach().clone())
            elif isinstance(rate, (int, float)):
                self.part.plain[name] = float(rate)


def _held(parameters: Sequence[Any]) -> tuple[Sequence[int], Sequence[Any]]:
    """The gradients that there are, as this process holds them, and the places of their parameters."""
    import torch

    keys: Sequence[int] = range(len(parameters))
    gradients = [parameter.grad for parameter in parameters]
    kinds = set(map(type, gradients))
    if type(None) in kinds:
        keys = [key for key, gradient in enumerate(gradients) if gradient is not None]
        gradients = [gradients[key] for key in keys]
    # What is a plain tensor needs no look at each: there are hundreds, at every step.
    if kinds <= {torch.Tensor, type(None)} and {torch.strided}.issuperset(map(_layout, gradients)):
        return keys, gradients
    return keys, [dense(gradient) for gradient in gradients]
