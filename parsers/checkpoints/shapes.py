"""Sizes and strides as files claim them, held against what a tensor can have."""

from __future__ import annotations

import math
from typing import Any

from parsers.checkpoints.inert_objects import MisuseError

__all__ = ["number_of", "reach", "row_major", "size_of"]

#: Elements, offsets and strides that torch can count (64 bits with a sign), with room for bytes.
MOST_ELEMENTS = 1 << 58
#: torch's own bound on dimensions, and NumPy's.
MOST_DIMENSIONS = 64


def number_of(value: Any) -> int:
    """A count of elements, which is no truth, not negative and not beyond 64 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST_ELEMENTS:
        raise MisuseError("a count that is no number of elements")
    return value


def size_of(value: Any) -> tuple[int, ...]:
    """A shape, or strides.

    >>> size_of([3, 4])
    (3, 4)
    """
    if not isinstance(value, tuple | list) or len(value) > MOST_DIMENSIONS:
        raise MisuseError("a shape that is no list of at most 64 numbers")
    shape = tuple(number_of(length) for length in value)
    if math.prod(length for length in shape if length) >= MOST_ELEMENTS:
        raise MisuseError("a shape of more elements than any tensor has")
    return shape


def row_major(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    """Whether elements lie one after the other, the last dimension fastest.

    >>> row_major((2, 1, 3), (3, 99, 1)), row_major((2, 3), (1, 2))
    (True, False)
    """
    if strides is None or 0 in shape:
        return True
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != step:
            return False
        step *= length
    return True


def reach(shape: tuple[int, ...], strides: tuple[int, ...] | None, offset: int) -> int:
    """Elements that a storage must have for this view.

    >>> reach((2, 3), (10, 1), 4)
    17
    """
    if 0 in shape:
        return 0
    if strides is None:
        return offset + math.prod(shape)
    return offset + 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
