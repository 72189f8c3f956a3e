"""Rows of a matrix that only weight decay moves: all of their weights shrink by one factor, and the others turn."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.weights.saved import Saved
from analysis.weights.values import numbers
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["Decayed", "decayed_rows", "decays", "fades", "is_decay", "noise_of"]

#: Fewer weights have hardly a direction that could change.
_NARROWEST = 4
#: Columns by which rows are chosen; only those chosen are read as a whole.
_COLUMNS = 64
#: Half a unit in the last place, of numbers near the lower end of their power of two. Training rounds to float32.
_HALF_ULP = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
#: Root mean square of the rounding of two saves in half units, for digits spread evenly between two powers of two,
#: and by how much it spreads in rows of few weights: 4 standard errors with room for unequal weights.
_ROUNDED, _SPREAD = math.sqrt(2 / 7), 4.0
#: What the direction of other rows changes at least, in times what rounding explains: a save of 16 bits hides more.
_TURNED, _TURNED_16 = 30.0, 10.0
#: A factor below 1 is told from 1 and from another one by so many standard errors, and lies so far above the noise.
_SIGMAS, _CLEAR = 5.0, 3.0
_DECAY = re.compile(r"param_groups\.\d+\.weight_decay$")


@dataclass(frozen=True, slots=True, eq=False)
class Decayed:
    """Which rows only shrank, by which factor, and by how much (of its norm) the median other row left its line."""

    rows: NDArray[np.bool_]
    factor: float
    turned: float


def decays(saved: Saved) -> bool:
    """Whether weights may decay: not where all groups of the optimizer in the save say that they do not."""
    stated = [value for key, value in saved.checkpoint.values.items() if _DECAY.search(key)]
    return not stated or any(stated)


def decayed_rows(before: Saved, one: Tensor, after: Saved, two: Tensor, steps: int | None) -> Decayed | None:
    """Which rows of a matrix only shrank between two saves, all by the same factor, while the others turned.

    A unit that is dead has no gradient, and decoupled decay (AdamW), or that of SGD, multiplies its weights by
    1 - learning rate x decay at every step: I. Loshchilov, F. Hutter, 'Decoupled Weight Decay Regularization' (ICLR
    2019). `steps` is how often the weights were rounded in between (None: not known, and only the saves are). None
    where no row shrank so, where all did (a layer that is frozen by gradients of 0), where the others moved too little
    to be told apart, and for rows of fewer than four weights.
    """
    width = one.elements // max(one.shape[0], 1)
    known = one.dtype in _HALF_ULP and one.dtype == two.dtype and one.layout == two.layout == "strided"
    if not known or width < _NARROWEST:
        return None
    every = np.ones(one.shape[0], np.bool_)
    factors, off = _lines(before, one, after, two, every, min(width, _COLUMNS))
    rows = _on_a_line(factors, off, noise_of(one.dtype, steps, min(width, _COLUMNS)))
    if width > _COLUMNS and rows.any():
        factors[rows], off[rows] = _lines(before, one, after, two, rows, width)
        rows &= _on_a_line(factors, off, noise_of(one.dtype, steps, width))
    for saved, tensor in ((before, one), (after, two)):
        saved.checkpoint.release(tensor)
    return fades(factors, off, rows, width=width, dtype=one.dtype, steps=steps)


def fades(
    factors: NDArray[np.float64],
    off: NDArray[np.float64],
    rows: NDArray[np.bool_],
    *,
    width: int,
    dtype: str,
    steps: int | None,
) -> Decayed | None:
    """Those of the chosen `rows` that share one factor below 1, judged beside all others; None where there are none.

    `factors` are b.a / a.a of each row, `off` what is left of its change, ||b - factor a|| / ||a||.

    >>> factors, off = np.array([0.97, 0.97, 1.01, 0.99]), np.array([1e-7, 1e-7, 0.2, 0.1])
    >>> fades(factors, off, off < 1e-6, width=32, dtype="float32", steps=300).rows.tolist()
    [True, True, False, False]
    """
    others = ~rows & np.isfinite(off)
    if not rows.any() or not others.any():
        return None
    factor, typical = float(np.median(factors[rows])), float(np.median(off[rows]))
    alike = rows & (np.abs(factors - factor) <= _SIGMAS * _error(typical, width) + _by_training(steps))
    turned = float(np.median(off[others]))
    least = (_TURNED_16 if DTYPES[dtype].bits <= 16 else _TURNED) * noise_of(dtype, steps, width)
    return Decayed(alike, factor, turned) if 1 - factor >= _clear(typical, width, steps) and turned >= least else None


def is_decay(factor: float, off: float, *, elements: int, dtype: str, steps: int | None) -> bool:
    """Whether weights that became `factor` times themselves, and left their line by `off` of their norm, only shrank.

    >>> is_decay(0.97, 1e-7, elements=1024, dtype="float32", steps=300)
    True
    >>> is_decay(0.97, 0.02, elements=1024, dtype="float32", steps=300)
    False
    """
    return off <= noise_of(dtype, steps, elements) and 1 - factor >= _clear(off, elements, steps)


def _clear(off: float, elements: int, steps: int | None) -> float:
    """By how much weights shrink at least where it is no rounding: of their factor, and of training."""
    return max(_SIGMAS * _error(off, elements), _CLEAR * min(off, _by_training(steps)))


def _by_training(steps: int | None) -> float:
    """What so many steps in float32 round at most."""
    return noise_of("float32", steps, 1)


def _error(off: float, elements: int) -> float:
    """Standard error of the factor of so many weights."""
    return off / math.sqrt(elements) + 2.0**-24


def noise_of(dtype: str, steps: int | None, count: int) -> float:
    """What rounding takes `count` weights off their line at most, as a share of their norm: of two saves, of each step.

    0 for types that are not judged.
    """
    if dtype not in _HALF_ULP:
        return 0.0
    of_saves = _ROUNDED * _HALF_ULP[dtype] * (1 + _SPREAD / math.sqrt(count))
    return of_saves + (steps or 0) * _HALF_ULP["float64" if dtype == "float64" else "float32"]


def _on_a_line(factors: NDArray[np.float64], off: NDArray[np.float64], noise: float) -> NDArray[np.bool_]:
    """Rows that lie on the line through their past, nearer to zero; NaN is on none."""
    return (off <= noise) & (factors > 0) & (factors < 1 + noise)


def _lines(
    before: Saved, one: Tensor, after: Saved, two: Tensor, rows: NDArray[np.bool_], columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factor and distance from the line of some rows, by their first columns; NaN for a row of zeros."""
    a, b = (saved.checkpoint.array(tensor) for saved, tensor in ((before, one), (after, two)))
    at_once = max((1 << 22) // max(one.elements // one.shape[0], 1), 1)
    found = []
    for start in range(0, len(rows), at_once):
        place = slice(start, start + at_once)
        here = rows[place]
        if not here.any():
            continue
        parts = (x[place].reshape(len(here), -1)[here, :columns] for x in (a, b))
        x, y = (numbers(part, tensor) for part, tensor in zip(parts, (one, two), strict=True))
        found.append(_line(x, y))
    return np.concatenate([f for f, _ in found]), np.concatenate([o for _, o in found])


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.einsum("ij,ij->i", x, x)
        factors = np.einsum("ij,ij->i", x, y) / size
        left = y - factors[:, None] * x
        return factors, np.sqrt(np.einsum("ij,ij->i", left, left) / size)
