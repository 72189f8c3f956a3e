"""The numbers of a `.npy` file from its bytes: bounded by what is there, also where it is cut; pickles stay closed."""

from __future__ import annotations

import ast
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAGIC", "UnreadableArrayError", "array_of", "header_of"]

MAGIC = b"\x93NUMPY"
#: Longest header that is read: a table of some hundred columns.
_LONGEST = 1 << 16
#: Kinds of numbers: truth values, integers with and without sign, floats.
_NUMBERS = "biuf"


class UnreadableArrayError(ValueError):
    """Bytes that hold no array of numbers; the message says why."""


def header_of(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Type, shape, whether columns come first, and where the numbers begin, from the first bytes of a `.npy`.

    The header is read as literals, and nothing in it is evaluated. Raises `UnreadableArrayError` on damage, on Python
    objects, and on types that are no numbers. Source: NumPy, `numpy.lib.format`, versions 1.0 to 3.0.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.arange(3.0))
    >>> header_of(file.getvalue())
    (dtype('float64'), (3,), False, 128)
    """
    if not data.startswith(MAGIC) or len(data) < 12:
        raise UnreadableArrayError("not a whole header of NumPy's format")
    wide = data[6] >= 2
    length, begin = struct.unpack_from("<I" if wide else "<H", data, 8)[0], 12 if wide else 10
    if length > _LONGEST or begin + length > len(data):
        raise UnreadableArrayError(f"the header says that it has {length:,} bytes; that many are not here or not read")
    text = data[begin : begin + length].decode("utf-8" if data[6] >= 3 else "latin-1", "replace")
    held = _literals(text)
    shape, order, descr = held.get("shape"), held.get("fortran_order"), held.get("descr")
    sides = shape if isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) else None
    if sides is None or not isinstance(order, bool) or not isinstance(descr, str | list):
        raise UnreadableArrayError("the header is damaged")
    return _type(descr), sides, order, begin + length


def _literals(text: str) -> dict[str, Any]:
    """The dictionary of literals of the header: read as such, so that no name or call in it means anything."""
    try:
        held = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {}
    return held if isinstance(held, dict) else {}


def _type(descr: str | list[Any]) -> np.dtype[Any]:
    fields = [("", descr)] if isinstance(descr, str) else descr
    if not all(isinstance(field, tuple) and len(field) == 2 and isinstance(field[0], str) for field in fields):
        raise UnreadableArrayError("the header names no type of numbers")
    kinds = [str(kind).lstrip("<>|=") for _, kind in fields]
    if any(kind.startswith("O") for kind in kinds):
        raise UnreadableArrayError("it holds Python objects (a pickle), which can run code when opened; it was not")
    if not kinds or any(not isinstance(kind, str) for _, kind in fields):
        raise UnreadableArrayError("the header names no type of numbers")
    try:
        found: np.dtype[Any] = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise UnreadableArrayError("the header names no type of numbers") from error
    parts = [found] if found.names is None else [found[name] for name in found.names]
    if any(part.kind not in _NUMBERS or not part.itemsize for part in parts):
        raise UnreadableArrayError(f"it holds {found}, and no numbers")
    return found


def array_of(data: bytes) -> tuple[npt.NDArray[Any], str]:
    """The array in `data`, and what is missing of it (empty where all is there); of a cut file whole rows are kept.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.arange(3.0))
    >>> array_of(file.getvalue()[:-1])
    (array([0., 1.]), 'the file is cut: 2 of 3 numbers are there')
    """
    dtype, shape, columns_first, begin = header_of(data)
    count, there = math.prod(shape), (len(data) - begin) // dtype.itemsize
    if there >= count:
        flat = np.frombuffer(data, dtype, count, begin)
        return flat.reshape(shape, order="F" if columns_first else "C"), ""
    said = f"the file is cut: {there:,} of {count:,} numbers are there"
    if columns_first and len(shape) > 1:
        raise UnreadableArrayError(f"{said}, and their order does not tell which")
    row = math.prod(shape[1:])
    rows = there // row if row else 0
    return np.frombuffer(data, dtype, rows * row, begin).reshape((rows, *shape[1:])), said
