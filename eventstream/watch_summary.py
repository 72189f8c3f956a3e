"""From the numbers of a step to what is recorded of it: the model as a whole, and each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eventstream.watch_numbers import Numbers, Table
from eventstream.watch_observers import Clip

__all__ = ["Entry", "Part", "summary"]

#: Norm of a gradient below which rows of zeros prove nothing: the squares of whole rows may have vanished.
_VANISHED = 1e-12

#: Layer -> sum of something over its parameters.
_Sums = dict[str, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """A parameter of the step: its layer, its size here and that of its sample, and its units (0 for none)."""

    layer: str
    identity: int
    numel: int
    sampled: int
    units: int


@dataclass(slots=True)
class Part:
    """What one optimizer's step gave: entries whose place is the key of their numbers."""

    numbers: Numbers
    entries: Sequence[Entry]
    #: The layer of each entry.
    layers: Sequence[str]
    clips: Sequence[Clip] = ()
    clip_calls: int = 0
    skipped: int | None = None
    plain: dict[str, float] = field(default_factory=dict)


def summary(parts: Sequence[Part], *, per_layer: bool, prefix: str, sharded: bool) -> dict[str, float]:
    """Values by name: first the model's, then each layer's as `statistic/layer`; `shard_statistic` of a shard."""
    tables = [part.numbers.table() for part in parts]
    pairs = list(zip(parts, tables, strict=True))
    before, after = _gradients(pairs)
    told = _Told(f"{prefix}shard_" if sharded else prefix, per_layer)
    told.add("grad_norm", before, None, math.sqrt)
    clip_rate = _clipping(pairs, after, told)
    if clip_rate is not None:
        told.values[f"{prefix}clip_rate"] = clip_rate
    told.add("param_norm", _squares(pairs, "param_norm"), None, math.sqrt)
    moved, was = _squares(pairs, "moved", _sample_share), _squares(pairs, "was", _sample_share)
    told.add("update_ratio", moved, was, math.sqrt)
    told.add("zero_grads", *_zeros(pairs), float)
    told.add("dead_units", *_dead(pairs), float)
    told.add_counts("nonfinite_grads", _nonfinite(pairs))
    values = told.values
    for part, table in pairs:
        values |= {f"{prefix}{name}": value for name, value in _of_step(part, table).items()}
    values |= told.layers
    return values


class _Told:
    """What is told of the model (`values`) and of its layers (`layers`), by full name."""

    def __init__(self, prefix: str, per_layer: bool) -> None:
        self.values: dict[str, float] = {}
        self.layers: dict[str, float] = {}
        self.prefix, self._per_layer = prefix, per_layer

    def add(self, name: str, upper: _Sums, lower: _Sums | None, finish: Callable[[float], float]) -> None:
        """Tell `upper`, or its share of `lower` where that is not zero."""
        whole = 1.0 if lower is None else sum(lower.values())
        if not upper or whole <= 0:
            return
        name = self.prefix + name
        self.values[name] = finish(sum(upper.values()) / whole)
        if not self._per_layer:
            return
        if lower is None:
            self.layers |= {f"{name}/{layer}": finish(amount) for layer, amount in upper.items()}
        else:
            parts = ((layer, amount, lower[layer]) for layer, amount in upper.items())
            self.layers |= {f"{name}/{layer}": finish(amount / share) for layer, amount, share in parts if share > 0}

    def add_counts(self, name: str, counts: _Sums | None) -> None:
        """Tell a count, of layers only where there is something to count."""
        if counts is not None:
            name = self.prefix + name
            self.values[name] = sum(counts.values())
            self.layers |= {f"{name}/{layer}": count for layer, count in counts.items() if count and self._per_layer}


_Pairs = Sequence[tuple[Part, Table]]


def _squares(pairs: _Pairs, statistic: str, weight: Callable[[Entry], float] | None = None) -> _Sums:
    sums: _Sums = {}
    for part, table in pairs:
        layers, entries = part.layers, part.entries
        for key, norm in table.get(statistic, {}).items():
            layer = layers[key]
            square = norm * norm if weight is None else norm * norm * weight(entries[key])
            sums[layer] = sums.get(layer, 0.0) + square
    return sums


def _sample_share(entry: Entry) -> float:
    """What was sampled stands for the whole tensor beside others."""
    return entry.numel / entry.sampled


def _gradients(pairs: _Pairs) -> tuple[_Sums, _Sums]:
    """Squares of the gradients' norms before and after clipping."""
    coefficients = _coefficients(pairs)
    if not coefficients and not any("grad_scale" in table for _, table in pairs):
        plain = _squares(pairs, "grad_norm")
        return plain, plain
    before, after = _Sums(), _Sums()
    for part, table in pairs:
        scale = table.get("grad_scale", {}).get(0, 1.0)
        for key, norm in table.get("grad_norm", {}).items():
            entry = part.entries[key]
            square = norm / scale * (norm / scale)
            after[entry.layer] = after.get(entry.layer, 0.0) + square
            by = coefficients.get(entry.identity, 1.0)
            # A norm that was infinite has multiplied all gradients by zero: what they were is lost, and said to be NaN.
            before[entry.layer] = before.get(entry.layer, 0.0) + (square / (by * by) if by > 0 else math.nan)
    return before, after


def _coefficients(pairs: _Pairs) -> dict[int, float]:
    """What each clipped parameter's gradient was multiplied by, as `clip_grad_norm_` computes it."""
    clips: dict[frozenset[int], float] = {}
    for part, table in pairs:
        norms = table.get("clip_norm", {})
        for place, clip in enumerate(part.clips):
            norm = norms[place]
            clips[clip.parameters] = min(1.0, clip.limit / (norm + 1e-6)) if norm == norm else math.nan
    found: dict[int, float] = {}
    for parameters, coefficient in clips.items():
        for identity in parameters:
            found[identity] = found.get(identity, 1.0) * coefficient
    return found


def _clipping(pairs: _Pairs, after: _Sums, told: _Told) -> float | None:
    """The share of calls that clipped, None without any; the norm after them is told, and one that was infinite."""
    calls = sum(part.clip_calls for part, _ in pairs)
    if not calls:
        return None
    if after:
        told.values[f"{told.prefix}grad_norm_after_clip"] = math.sqrt(sum(after.values()))
    if math.inf in (norm for _, table in pairs for norm in table.get("clip_norm", {}).values()):
        told.values[f"{told.prefix}grad_norm"] = math.inf
    return sum(sum(table.get("clipped", {}).values()) for _, table in pairs) / calls


def _zeros(pairs: _Pairs) -> tuple[_Sums, _Sums]:
    zeros, counted = _Sums(), _Sums()
    for part, table in pairs:
        for key, nonzero in table.get("nonzero", {}).items():
            entry = part.entries[key]
            zeros[entry.layer] = zeros.get(entry.layer, 0.0) + entry.numel - nonzero
            counted[entry.layer] = counted.get(entry.layer, 0.0) + entry.numel
    return zeros, counted


def _dead(pairs: _Pairs) -> tuple[_Sums, _Sums]:
    dead, units = _Sums(), _Sums()
    for part, table in pairs:
        nonzero, norms = table.get("nonzero", {}), table.get("grad_norm", {})
        for key, count in table.get("dead", {}).items():
            entry = part.entries[key]
            if nonzero.get(key) == 0 or norms.get(key, 0.0) > _VANISHED:
                dead[entry.layer] = dead.get(entry.layer, 0.0) + count
                units[entry.layer] = units.get(entry.layer, 0.0) + entry.units
    return dead, units


def _nonfinite(pairs: _Pairs) -> _Sums | None:
    counts = _Sums()
    for part, table in pairs:
        for key, count in table.get("nonfinite", {}).items():
            layer = part.entries[key].layer
            counts[layer] = counts.get(layer, 0.0) + count
    return counts or None


def _of_step(part: Part, table: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    found = dict(part.plain)
    found |= {name: numbers[0] for name, numbers in table.items() if name == "lr" or name.startswith("lr/")}
    if "amp_scale" in table:
        found["amp_scale"] = table["amp_scale"][0]
    if part.skipped is not None:
        found["amp_skipped_count"] = part.skipped + table.get("amp_skipped", {}).get(0, 0.0)
    return found
