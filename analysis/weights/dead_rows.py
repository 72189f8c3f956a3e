"""Rows of weights that are zero with their bias, that get no gradient, that stand still, or that only decay."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.weights.faded_moments import faded_rows
from analysis.weights.moves import steps_between
from analysis.weights.only_decayed import decayed_rows, decays
from analysis.weights.saved import Saved, begins_at_zero, is_buffer, layer_of, numbers
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Tensor

__all__ = ["TABLE", "DeadRows", "dead_rows_between", "dead_rows_of", "has_units", "unchanged_rows"]

#: Tables of which a row is used where its token is: rare ones have no gradient, and the padding row is zero.
TABLE = re.compile(
    r"(emb|wte|wpe|lookup|vocab|tok|codebook|dictionary|lut|relative_attention_bias|\bpos)", re.IGNORECASE
)
#: Moments, and what a gradient is added up in: exactly 0 where there was none for long, or never one. float16 reaches
#: 0 too soon to say so.
_MOMENTS = ("exp_avg", "exp_avg_sq", "square_avg", "sum", "momentum_buffer", "mu", "nu", "m", "v")
_FINE = ("float32", "bfloat16", "float64")
#: The first moment of Adam, and the second one beside it.
_SECOND = {"exp_avg": "exp_avg_sq", "mu": "nu", "m": "v"}
#: Layers of fewer units have no share worth the name.
_FEWEST = 8
#: Share of zeros among the weights of living units from which on zeros are the rule: a pruned layer.
_PRUNED = 0.2
#: Of a unit that trains this share of its weights changes from one save to the next, or nothing can be told.
_CHANGED = 0.5

_How = Literal["zero", "no gradient", "faded", "unchanged", "decayed"]
_SAID: dict[_How, str] = {
    "zero": "weights and bias are exactly 0",
    "no gradient": "their moments are exactly 0, so that they had no gradient for long, or never one",
    "faded": "their moments have faded: they had no gradient in the last {number:,.0f} steps or more",
    "unchanged": "their weights did not change while those of the others did",
    "decayed": "only weight decay moved them, all by the factor {number:.4g}, while the others learned",
}


@dataclass(frozen=True, slots=True)
class DeadRows:
    """Units of one layer that do nothing: how many of how many, and what shows it. `pruned`: zeros are the rule.

    `number` is the factor by which units shrank that only decay, or the steps since the last gradient of those whose
    moments faded.
    """

    parameter: str
    dead: int
    units: int
    how: _How
    pruned: bool = False
    number: float | None = None

    @property
    def share(self) -> float:
        """The share of the layer's units."""
        return self.dead / self.units

    @property
    def said(self) -> str:
        """What shows it, in words."""
        return _SAID[self.how].format(number=self.number)


def dead_rows_of(saved: Saved) -> list[DeadRows]:
    """Every layer of a save with dead units, and what shows them; of two signs that which shows more."""
    layers = [row for row in saved.rows("weights") if has_units(row)]
    dead = {row["parameter"]: one for row in layers if (one := _zero_rows(saved, row)) is not None}
    for one in (*_without_gradient(saved), *_faded(saved)):
        if one.parameter not in dead or dead[one.parameter].share < one.share:
            dead[one.parameter] = one
    return list(dead.values())


def _without_gradient(saved: Saved) -> list[DeadRows]:
    """Layers with rows whose moments are exactly 0."""
    return [
        DeadRows(row["parameter"], row["dead_rows"], row["shape"][0], "no gradient")
        for row in saved.rows("optimizer")
        if row["state"] in _MOMENTS
        and row["dtype"] in _FINE
        and has_units(row)
        and 0 < row["dead_rows"] < row["shape"][0]
    ]


def _faded(saved: Saved) -> list[DeadRows]:
    """Layers with rows whose moments show that their last gradient lies hundreds of steps back."""
    judged = {row["name"] for row in saved.rows("optimizer") if has_units(row) and row["dtype"] in _FINE}
    states = {
        (tensor.parameter, tensor.state): tensor
        for tensor in saved.checkpoint.of_role("optimizer")
        if tensor.name in judged and tensor.parameter
    }
    dead = []
    for (parameter, state), first in states.items():
        second = states.get((parameter, _SECOND.get(state, "")))
        found = None if second is None else faded_rows(saved, first, second)
        if found is not None:
            count = int(np.count_nonzero(found.rows))
            dead.append(DeadRows(parameter, count, len(found.rows), "faded", number=float(found.steps)))
    return dead


def has_units(row: dict[str, Any]) -> bool:
    """Whether the rows of a tensor (one of the statistics) are units: not those of a table, a buffer, an adapter."""
    name = row["parameter"]
    known = row["dead_rows"] is not None and not row["dtype"].startswith("complex")
    # Rows of an adapter add to units that its base keeps alive.
    return known and row["shape"][0] >= _FEWEST and not (_is_table(name) or is_buffer(name) or begins_at_zero(name))


@lru_cache(maxsize=1 << 16)  # the same names in each of thousands of saves
def _is_table(name: str) -> bool:
    return TABLE.search(name) is not None


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


def dead_rows_between(before: Saved, after: Saved, row: dict[str, Any], least: float) -> DeadRows | None:
    """Units of one matrix that stand still between two saves, or only decay; None where there are none.

    `row` is that of the differences. What stands still is looked for only where a share `least` of the elements did
    not change.
    """
    name = row["parameter"]
    found = _unchanged(before, after, name) if 1 - row["share_changed"] >= least else None
    if found is None and decays(after):
        return _decayed(before, after, name, steps_between(before, after))
    return found


def _unchanged(before: Saved, after: Saved, name: str) -> DeadRows | None:
    one, two = before.weights[name], after.weights[name]
    still, changed = unchanged_rows(before, one, after, two)
    if not still.any() or changed < _CHANGED:
        return None
    # Rows of zeros are no dead units where zeros are the rule: a pruned layer keeps them.
    zero = int(np.count_nonzero(still & (_nonzero_rows(after.checkpoint, two) == 0)))
    count = int(np.count_nonzero(still))
    return DeadRows(name, count, len(still), "unchanged", zero > count // 2)


def _decayed(before: Saved, after: Saved, name: str, steps: int | None) -> DeadRows | None:
    found = decayed_rows(before, before.weights[name], after, after.weights[name], steps)
    if found is None:
        return None
    count = int(np.count_nonzero(found.rows))
    return DeadRows(name, count, len(found.rows), "decayed", number=found.factor)
