"""`dead-units`: rows of weights that are zero with their bias, that never had a gradient, or that stand still."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.saved import Saved, begins_at_zero, is_buffer, layer_of, numbers
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Tensor

__all__ = ["DeadRows", "dead_units", "dead_units_between", "unchanged_rows"]

#: Tables of which a row is used where its token is: rare ones have no gradient, and the padding row is zero.
_TABLE = re.compile(r"(emb|wte|wpe|lookup|vocab|token|codebook|lut|relative_attention_bias|\bpos)", re.IGNORECASE)
#: Moments, and what a gradient is added up in: exactly 0 where there was none for long, or never one. float16 reaches
#: 0 too soon to say so.
_MOMENTS = ("exp_avg", "exp_avg_sq", "square_avg", "sum", "momentum_buffer", "mu", "nu", "m", "v")
_FINE = ("float32", "bfloat16", "float64")
#: Layers of fewer units have no share worth the name.
_FEWEST = 8
#: As for the shares that a log tells (`analysis.gradient.standing_still`): a warning, and critical.
_MANY, _NEARLY_ALL = 0.375, 0.9
#: Share of zeros among the weights of living units from which on zeros are the rule: a pruned layer.
_PRUNED = 0.2
#: Of a unit that trains this share of its weights changes from one save to the next, or nothing can be told.
_CHANGED = 0.5

_How = Literal["zero", "no gradient", "unchanged"]
_SAID: dict[_How, str] = {
    "zero": "weights and bias are exactly 0",
    "no gradient": "their moments are exactly 0, so that they had no gradient for long, or never one",
    "unchanged": "their weights did not change while those of the others did",
}


@dataclass(frozen=True, slots=True)
class DeadRows:
    """Units of one layer that do nothing: how many of how many, and what shows it. `pruned`: zeros are the rule."""

    parameter: str
    dead: int
    units: int
    how: _How
    pruned: bool = False

    @property
    def share(self) -> float:
        """The share of the layer's units."""
        return self.dead / self.units


def dead_units(saved: Saved, run_name: str, gauge: Gauge) -> list[Finding]:
    """Layers of one save with units whose weights and bias are 0, or whose gradient was 0 at every step so far.

    A row of an embedding is no unit, a tensor that is wholly 0 was never begun (`analysis.weights.untouched`), and of
    a pruned layer, or of the last one, whose rows are classes, it is information.
    """
    return _findings(dead_rows_of(saved), _last_layer(saved), saved, saved, run_name, gauge)


def dead_rows_of(saved: Saved) -> list[DeadRows]:
    """Every layer of a save with dead units, and what shows them; of two signs that which shows more."""
    layers = [row for row in saved.rows("weights") if _has_units(row)]
    dead = {row["parameter"]: one for row in layers if (one := _zero_rows(saved, row)) is not None}
    for row in saved.rows("optimizer"):
        if (
            row["state"] in _MOMENTS
            and row["dtype"] in _FINE
            and _has_units(row)
            and 0 < row["dead_rows"] < row["shape"][0]
        ):
            one = DeadRows(row["parameter"], row["dead_rows"], row["shape"][0], "no gradient")
            if row["parameter"] not in dead or dead[row["parameter"]].share < one.share:
                dead[row["parameter"]] = one
    return list(dead.values())


def _has_units(row: dict[str, Any]) -> bool:
    name = row["parameter"]
    known = row["dead_rows"] is not None and not row["dtype"].startswith("complex")
    # Rows of an adapter add to units that its base keeps alive.
    other = _TABLE.search(name) or is_buffer(name) or begins_at_zero(name)
    return known and row["shape"][0] >= _FEWEST and not other


def _zero_rows(saved: Saved, row: dict[str, Any]) -> DeadRows | None:
    """Rows that are zero together with their bias; None where there are none, or where all is zero."""
    dead, units = row["dead_rows"], row["shape"][0]
    if not dead or dead >= units:
        return None
    weights = saved.weights
    bias = weights.get(f"{layer_of(row['parameter'])}.bias") if row["parameter"].endswith(".weight") else None
    if bias is not None and bias.shape == (units,):
        zero = _nonzero_rows(saved.checkpoint, weights[row["parameter"]]) == 0
        values = np.concatenate(list(numbers(saved.checkpoint, bias)))
        dead = int(np.count_nonzero(zero & (values == 0)))
    in_rows = row["dead_rows"] / units
    pruned = (
        row["zeros"] - in_rows > _PRUNED * (1 - in_rows) or f"{row['parameter'].removesuffix('_orig')}_mask" in weights
    )
    return DeadRows(row["parameter"], dead, units, "zero", pruned) if dead else None


def _nonzero_rows(checkpoint: Checkpoint, tensor: Tensor) -> NDArray[np.int64]:
    """How many elements of each row are not zero."""
    width = max(tensor.elements // tensor.shape[0], 1)
    rows = max((1 << 20) // width, 1)
    counts = [np.count_nonzero(part.reshape(-1, width), axis=1) for part in numbers(checkpoint, tensor, rows * width)]
    return np.concatenate(counts) if counts else np.zeros(0, np.int64)


def unchanged_rows(before: Saved, one: Tensor, after: Saved, two: Tensor) -> tuple[NDArray[np.bool_], float]:
    """Which rows are the same in two saves, and the share of the elements of the other rows that changed."""
    width = max(one.elements // one.shape[0], 1)
    at_once = max((1 << 22) // width, 1)
    a, b = (save.checkpoint.array(tensor) for save, tensor in ((before, one), (after, two)))
    # The stored patterns are compared as they are: that 0 differs from -0 here changes no count that matters.
    parts = [(a[n : n + at_once] != b[n : n + at_once]).reshape(-1, width) for n in range(0, one.shape[0], at_once)]
    changed = np.concatenate([np.count_nonzero(part, axis=1) for part in parts])
    before.checkpoint.release(one)
    after.checkpoint.release(two)
    moved = changed > 0
    return ~moved, float(changed[moved].sum() / max(moved.sum() * width, 1))


def dead_units_between(
    before: Saved, after: Saved, rows: list[dict[str, Any]], run_name: str, gauge: Gauge
) -> list[Finding]:
    """Layers of which whole rows are bit-identical in two saves while most weights of the others changed.

    `rows` are those of the differences. Read again are only tensors of which so many elements did not change as a share
    of units at the limit has. Layers of which the later save tells by itself are left to it.
    """
    told = {one.parameter for one in dead_rows_of(after)}
    one, two = before.weights, after.weights
    layers = {row["parameter"] for row in after.rows("weights") if _has_units(row)} - told
    dead = []
    for row in rows:
        name = row["parameter"]
        least = gauge.limits.of("dead-units", name, layer_of(name))
        if name not in layers or row["status"] != "changed" or 1 - row["share_changed"] < least:
            continue
        still, changed = unchanged_rows(before, one[name], after, two[name])
        if still.any() and changed >= _CHANGED:
            # Rows of zeros are no dead units where zeros are the rule: a pruned layer keeps them.
            zero = int(np.count_nonzero(still & (_nonzero_rows(after.checkpoint, two[name]) == 0)))
            count = int(np.count_nonzero(still))
            dead.append(DeadRows(name, count, len(still), "unchanged", zero > count // 2))
    return _findings(dead, _last_layer(after), before, after, run_name, gauge)


def _last_layer(saved: Saved) -> str:
    """The last matrix of the model, whose rows are classes; none of so few that the last may be any layer."""
    names = [name for name, tensor in saved.weights.items() if len(tensor.shape) >= 2 and not _TABLE.search(name)]
    return names[-1] if len(names) > 2 else ""


def _findings(
    dead: list[DeadRows], last: str, before: Saved, after: Saved, run_name: str, gauge: Gauge
) -> list[Finding]:
    """One finding for the units that died and one for those that were pruned, each about its worst layer."""
    over = [one for one in dead if gauge.reaches("dead-units", one.share, one.parameter, layer_of(one.parameter))]
    # Rows of an output layer have no gradient where their class is neither seen nor believed in.
    over = [one for one in over if one.parameter != last or one.how == "zero"]
    groups = ([one for one in over if not one.pruned], [one for one in over if one.pruned])
    return [_finding(group, before, after, run_name, gauge) for group in groups if group]


def _finding(dead: list[DeadRows], before: Saved, after: Saved, run_name: str, gauge: Gauge) -> Finding:
    worst = max(dead, key=lambda one: one.share)
    layer = layer_of(worst.parameter)
    severity = "info" if worst.pruned else _severity(worst, gauge)
    others = [layer_of(one.parameter) for one in dead if one is not worst]
    also = f"; so are units of {some(others)}" if others else ""
    since = f"from {before.where} to {after.where}" if before is not after else f"in {after.where}"
    said = "are pruned" if worst.pruned else "are dead"
    return Finding(
        "dead-units",
        severity,
        run_name,
        f"{worst.share:.0%} of the units of {layer} {said} {since} ({worst.dead:,} of {worst.units:,}): "
        f"{_SAID[worst.how]}{also}",
        metric=worst.parameter,
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": f"units of {layer}",
            "layer": layer,
            "share": worst.share,
            "limit": gauge.limits.of("dead-units", worst.parameter, layer),
            "dead": worst.dead,
            "units": worst.units,
            "sign": worst.how,
            "layers": len(dead),
            "save": after.name,
        },
        causes=_causes(worst),
        suggestions=KINDS["dead-units"].suggestions,
    )


def _severity(one: DeadRows, gauge: Gauge) -> Severity:
    scale = gauge.limits.scale("dead-units", one.parameter, layer_of(one.parameter))
    many, nearly_all = (min(bar * scale, 0.999) for bar in (_MANY, _NEARLY_ALL))
    return "critical" if one.share >= nearly_all else "warning" if one.share >= many else "info"


def _causes(one: DeadRows) -> tuple[str, ...]:
    if one.pruned:
        return ("the layer was pruned: zeros are the rule in it",)
    numbers_said = f"{one.dead:,} of {one.units:,} rows: {_SAID[one.how]}"
    relu, start, behind = KINDS["dead-units"].causes[:3]
    if one.how == "zero":
        decay = "weight decay took the weights of units without a gradient to 0"
        return (f"{numbers_said}; {decay}", relu, "rows that were never begun: initialised with zeros")
    if one.how == "no gradient":
        return (f"{numbers_said}; {start}", behind)
    return (f"{numbers_said}; {relu}", behind)
