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
    clips: Sequence[Clip] = ()
    clip_calls: int = 0
    skipped: int | None = None
    plain: dict[str, float] = field(default_factory=dict)


def summary(parts: Sequence[Part], *, per_layer: bool, prefix: str, sharded: bool) -> dict[str, float]:
    """Values by name: first the model's, then each layer's as `statistic/layer`; `shard_statistic` of a shard."""
    tables = [part.numbers.table() for part in parts]
    pairs = list(zip(parts, tables, strict=True))
    before, after = _gradients(pairs)
    moved, was = _squares(pairs, "moved", _sample_share), _squares(pairs, "was", _sample_share)
    zeros, counted = _zeros(pairs)
    dead, units = _dead(pairs)
    values: dict[str, float] = {}
    layers: dict[str, float] = {}

    def tell(name: str, upper: _Sums, lower: _Sums | None, finish: Callable[[float], float]) -> None:
        if upper and (lower is None or sum(lower.values()) > 0):
            values[name] = finish(sum(upper.values()) / (1.0 if lower is None else sum(lower.values())))
            for layer, amount in upper.items() if per_layer else ():
                share = 1.0 if lower is None else lower[layer]
                if share > 0:
                    layers[f"{name}/{layer}"] = finish(amount / share)

    tell("grad_norm", before, None, math.sqrt)
    values |= _clipping(pairs, after)
    tell("param_norm", _squares(pairs, "param_norm"), None, math.sqrt)
    tell("update_ratio", moved, was, math.sqrt)
    tell("zero_grads", zeros, counted, float)
    tell("dead_units", dead, units, float)
    nonfinite = _nonfinite(pairs)
    if nonfinite is not None:
        values["nonfinite_grads"] = sum(nonfinite.values())
        layers |= {f"nonfinite_grads/{layer}": count for layer, count in nonfinite.items() if count and per_layer}
    told = {f"shard_{name}" if sharded and name != "clip_rate" else name: value for name, value in values.items()}
    for part, table in pairs:
        told |= _of_step(part, table)
    told |= {f"shard_{name}" if sharded else name: value for name, value in layers.items()}
    return {f"{prefix}{name}": value for name, value in told.items()}


_Pairs = Sequence[tuple[Part, Table]]


def _squares(pairs: _Pairs, statistic: str, weight: Callable[[Entry], float] | None = None) -> _Sums:
    sums: _Sums = {}
    for part, table in pairs:
        for key, norm in table.get(statistic, {}).items():
            entry = part.entries[key]
            square = norm * norm * (1.0 if weight is None else weight(entry))
            sums[entry.layer] = sums.get(entry.layer, 0.0) + square
    return sums


def _sample_share(entry: Entry) -> float:
    """What was sampled stands for the whole tensor beside others."""
    return entry.numel / entry.sampled


def _gradients(pairs: _Pairs) -> tuple[_Sums, _Sums]:
    """Squares of the gradients' norms before and after clipping."""
    coefficients = _coefficients(pairs)
    before, after = _Sums(), _Sums()
    for part, table in pairs:
        scale = table.get("grad_scale", {}).get(0, 1.0)
        for key, norm in table.get("grad_norm", {}).items():
            entry = part.entries[key]
            square = norm / scale * (norm / scale)
            after[entry.layer] = after.get(entry.layer, 0.0) + square
            by = coefficients.get(entry.identity, 1.0) if coefficients else 1.0
            # A norm that was infinite has multiplied all gradients by zero: what they were is lost, and said to be NaN.
            before[entry.layer] = before.get(entry.layer, 0.0) + (square / (by * by) if by > 0 else math.nan)
    return before, after


def _coefficients(pairs: _Pairs) -> dict[int, float]:
    """What each clipped parameter's gradient was multiplied by, as `clip_grad_norm_` computes it."""
    clips: dict[frozenset[int], float] = {}
    for part, table in pairs:
        for clip, norm in zip(part.clips, table.get("clip_norm", {}).values(), strict=True):
            clips[clip.parameters] = min(1.0, clip.limit / (norm + 1e-6)) if norm == norm else math.nan
    found: dict[int, float] = {}
    for parameters, coefficient in clips.items():
        for identity in parameters:
            found[identity] = found.get(identity, 1.0) * coefficient
    return found


def _clipping(pairs: _Pairs, after: _Sums) -> dict[str, float]:
    calls = sum(part.clip_calls for part, _ in pairs)
    if not calls:
        return {}
    found = {"clip_rate": sum(sum(table.get("clipped", {}).values()) for _, table in pairs) / calls}
    if after:
        found["grad_norm_after_clip"] = math.sqrt(sum(after.values()))
    if math.inf in (norm for _, table in pairs for norm in table.get("clip_norm", {}).values()):
        found["grad_norm"] = math.inf
    return found


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
