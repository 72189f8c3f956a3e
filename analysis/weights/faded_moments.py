"""Rows of an optimizer's moments that have faded: their last gradient lies hundreds of steps back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.weights.saved import Saved
from analysis.weights.values import numbers
from parsers.checkpoints.tensors import Tensor

__all__ = ["Faded", "faded_rows"]

#: Steps without any gradient from which on a row counts: 200 batches in a row did not reach it.
_IDLE = 200
#: Columns by which rows are chosen; only those chosen are read as a whole.
_COLUMNS = 64
#: A first moment over the root of the second one, in health: 1e-3 for gradients that come and go.
_LIVELY = 1e-3
#: Below this float32 has stopped to fade.
_FLOOR = 1e-30
_BETA = re.compile(r"param_groups\.\d+\.(?:betas\.0|b1|beta1)$")
_USUAL = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Faded:
    """Which rows had no gradient lately, and for how many steps at least."""

    rows: NDArray[np.bool_]
    steps: int


def faded_rows(saved: Saved, first: Tensor, second: Tensor) -> Faded | None:
    """Rows of which no gradient came for 200 steps or more while one came to others of the same matrix.

    Adam's first moment falls by beta1 at every step without a gradient, its second one hardly: what is left of
    |m| / sqrt(v) counts the steps (D. Kingma, J. Ba, 'Adam', ICLR 2015, algorithm 1). It never reaches 0: the smallest
    float32 is rounded to itself. A row of which both are exactly 0 never had a gradient and counts too.
    None where no row has faded, or all have. `first` and `second` are moments of one shape.
    """
    if first.shape != second.shape or len(first.shape) < 2 or not first.elements:
        return None
    beta = _beta(saved)
    least = max(beta**_IDLE, _FLOOR)
    every = np.ones(first.shape[0], np.bool_)
    ratio = _ratios(saved, first, second, every, min(first.elements // first.shape[0], _COLUMNS))
    rows = ratio <= least
    if not rows.any() or not (ratio >= _LIVELY).any():
        return None
    ratio[rows] = _ratios(saved, first, second, rows, first.elements // first.shape[0])
    rows = ratio <= least
    for tensor in (first, second):
        saved.checkpoint.release(tensor)
    highest = max(float(ratio[rows].max(initial=0.0)), _FLOOR)
    return Faded(rows, int(math.log(highest) / math.log(beta))) if rows.any() else None


def _beta(saved: Saved) -> float:
    """Decay of the first moment, the slowest where groups differ; Adam's usual one where the save does not say."""
    stated = [value for key, value in saved.checkpoint.values.items() if _BETA.search(key)]
    known = [float(value) for value in stated if isinstance(value, float) and 0 < value < 1]
    return max(known, default=_USUAL)


def _ratios(saved: Saved, first: Tensor, second: Tensor, rows: NDArray[np.bool_], columns: int) -> NDArray[np.float64]:
    """The largest |m| / sqrt(v) of some rows, by their first columns; 0 where m is 0, NaN where one is NaN."""
    m, v = (saved.checkpoint.array(tensor) for tensor in (first, second))
    at_once = max((1 << 22) // max(first.elements // first.shape[0], 1), 1)
    found = []
    for start in range(0, len(rows), at_once):
        place = slice(start, start + at_once)
        here = rows[place]
        parts = (x[place].reshape(len(here), -1)[here, :columns] for x in (m, v))
        x, y = (numbers(part, tensor) for part, tensor in zip(parts, (first, second), strict=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(x == 0, 0.0, np.abs(x) / np.sqrt(y))
        found.append(ratio.max(axis=1, initial=0.0))
    return np.concatenate(found)
