"""Weights that loss records lack: those that the curriculum logged at the step, or on which its neighbours agree."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["fill_weights"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

#: Stands for a step that is unknown, after all others.
_NO_STEP = np.iinfo(np.int64).max


def fill_weights(components: pl.DataFrame, declared: pl.DataFrame) -> pl.DataFrame:
    """`components` (sorted by at and component) with the weights and their halves that are null there but stated.

    A weight is what the component's record of that step says (the first of several), else what `declared` says (step,
    component, value, half) for it, else what the last weight before and the first after it are, where these are equal.
    The half of a weight that agrees is that of the one before.

    >>> rows = {"at": [0, 1, 2], "step": [1, 2, 3], "component": ["kd"] * 3, "weight": [0.5, None, 0.5]}
    >>> none = pl.DataFrame(schema={"step": pl.Int64, "component": pl.String, "value": pl.Float64, "half": pl.Float64})
    >>> fill_weights(pl.DataFrame({**rows, "half_weight": [0.0] * 3}), none)["weight"].to_list()
    [0.5, 0.5, 0.5]
    """
    if not components["weight"].null_count():
        return components
    stated = {*declared["component"].unique()}
    if components["weight"].count():
        stated.update(components.filter(pl.col("weight").is_not_null())["component"].unique())
    if not stated:  # as in most logs without weights, of which no name has to be looked at then
        return components
    lacking = stated & set(components.filter(pl.col("weight").is_null())["component"].unique())
    if not lacking:  # no weight was ever stated for them
        return components
    parts = [components.filter(~pl.col("component").is_in(sorted(lacking)))]
    for name in sorted(lacking):
        part = components.filter(pl.col("component") == name)
        parts.append(_filled(part, declared.filter(pl.col("component") == name)))
    return pl.concat(parts).sort("at", "component")


def _filled(part: pl.DataFrame, declared: pl.DataFrame) -> pl.DataFrame:
    own = part.filter(pl.col("weight").is_not_null()).select("step", "weight", "half_weight")
    said = declared.select("step", weight="value", half_weight="half")
    known = pl.concat([own, said]).unique("step", keep="first", maintain_order=True)
    known = known.with_columns(pl.col("step").fill_null(_NO_STEP)).sort("step")
    if known.is_empty():
        return part
    steps, weights, halves = (known[name].to_numpy() for name in ("step", "weight", "half_weight"))
    wanted = part["step"].fill_null(_NO_STEP).to_numpy()
    found, half, there = _looked_up(wanted, steps, weights, halves)
    lacks = pl.col("weight").is_null()
    filled = part.with_columns(_found=pl.Series(found), _half=pl.Series(half), _there=pl.Series(there))
    return filled.with_columns(
        half_weight=pl.when(lacks).then("_half").otherwise("half_weight"),
        weight=pl.when(lacks & pl.col("_there")).then("_found").otherwise("weight"),
    ).drop("_found", "_half", "_there")


def _looked_up(
    wanted: Whole, steps: Whole, weights: Floats, halves: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Weight, half and whether there is one, at each of the wanted steps; `steps` are sorted and each stands once."""
    after = np.searchsorted(steps, wanted)
    exact = (after < len(steps)) & (steps[np.minimum(after, len(steps) - 1)] == wanted)
    before = np.where(exact, after, after - 1)
    first, last = np.maximum(before, 0), np.minimum(after, len(steps) - 1)
    between = (before >= 0) & (after < len(steps))
    equal = (weights[first] == weights[last]) | (np.isnan(weights[first]) & np.isnan(weights[last]))
    return weights[first], np.where(before >= 0, halves[first], 0.0), exact | (between & equal)
