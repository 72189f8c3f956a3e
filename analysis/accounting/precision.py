"""How exact logged numbers are: printed decimals and the arithmetic behind them, inferred from the values together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOAT32", "arithmetic_eps", "half_unit", "printed_decimals"]

#: Spacing of float32 numbers next to 1: losses are summed in it unless the values show something coarser.
FLOAT32 = float(np.finfo(np.float32).eps)
#: More decimals than these are not told from binary fractions: float32 carries about seven significant digits.
_MOST_DECIMALS = 7
#: Fewer distinct values than these can be short decimals by chance.
_LEAST_DISTINCT = 3
_LEAST_FOR_ARITHMETIC = 16
#: So many values are looked at before all are.
_FIRST = 1024


def printed_decimals(values: NDArray[np.float64]) -> int | None:
    """Number of decimals to which all of `values` were rounded, or None when they were not (or too few to tell).

    Looks at the values together, since a single 0.7 says nothing: fewer than three distinct values other than zero
    give None, and so do values that need more than seven decimals. NaN and infinities are left out.

    >>> printed_decimals(np.array([15.5068, 14.84, 0.5234])), printed_decimals(np.array([1 / 3, 0.5, 0.25]))
    (4, None)
    """
    known = np.abs(values[np.isfinite(values) & (values != 0)])
    few = np.unique(known[:_FIRST])
    if len(few) < _LEAST_DISTINCT and len(np.unique(known)) < _LEAST_DISTINCT:
        return None
    # most logs are not rounded, which their first values tell
    possible = (decimals for decimals in range(_MOST_DECIMALS + 1) if _rounded(few, decimals))
    return next((decimals for decimals in possible if _rounded(known, decimals)), None)


def _rounded(known: NDArray[np.float64], decimals: int) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows was not printed with decimals
        scaled = known * 10.0**decimals
        # decimals that were added or scaled in double precision carry its noise, far below a place of float32
        return bool(np.all(np.abs(scaled - np.rint(scaled)) <= 1e-12 * scaled))


def half_unit(decimals: int | None) -> float:
    """Greatest error of a number printed with `decimals`: half a unit in the last place; 0 where nothing was rounded.

    >>> half_unit(4), half_unit(None)
    (5e-05, 0.0)
    """
    return 0.0 if decimals is None else 0.5 * 10.0**-decimals


def arithmetic_eps(values: NDArray[np.float64]) -> float:
    """Machine epsilon of the coarsest arithmetic that all of `values` fit in: bfloat16, float16, else float32.

    Coarse formats are believed only of sixteen distinct values of which a fifth use the format's last bit, so that
    round numbers such as 0.5 and 1.0 are not taken for bfloat16.

    >>> arithmetic_eps(np.array([1.0, 0.5, 0.1])) == FLOAT32
    True
    """
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is told so below
        single = np.unique(values[np.isfinite(values)]).astype(np.float32)
    if len(single) < _LEAST_FOR_ARITHMETIC or not np.all(np.isin(values[np.isfinite(values)], single)):
        return FLOAT32
    bits = single.view(np.uint32)
    for dropped, eps in ((16, 2.0**-7), (13, 2.0**-10)):
        if np.all(bits & ((1 << dropped) - 1) == 0) and np.mean((bits >> dropped) & 1) >= 0.2:
            return eps
    return FLOAT32
