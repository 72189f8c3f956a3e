"""Compiled functions: one decorator, which keeps the machine code on disk where a folder can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled by numba when first called, without the interpreter lock.

    >>> @compiled
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as error:
        # an installation that cannot be written to, and no home folder either: compile anew in every process
        if "cannot cache" not in str(error):
            raise
        return numba.njit(nogil=True)(function)
