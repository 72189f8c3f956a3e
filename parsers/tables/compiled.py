"""Compiled functions: one decorator, which keeps the machine code on disk where a folder can be written."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

__all__ = ["compiled"]


def compiled(function: Callable[..., Any], *, relaxed: Collection[str] = ()) -> Any:
    """`function` compiled by numba when first called, without the interpreter lock.

    `relaxed` are the rules of floating point that its loops may break to be vectorised, by LLVM's names (`reassoc`:
    sums in any order; `contract`: multiply and add in one; `nnan`: no NaN comes in); none by default.

    >>> @compiled
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    import numba

    fast = set(relaxed) or False
    try:
        return numba.njit(cache=True, nogil=True, fastmath=fast)(function)
    except RuntimeError as error:
        # an installation that cannot be written to, and no home folder either: compile anew in every process
        if "cannot cache" not in str(error):
            raise
        return numba.njit(nogil=True, fastmath=fast)(function)
