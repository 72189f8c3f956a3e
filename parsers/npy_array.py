"""The numbers of a `.npy` file from its bytes: bounded by what is there, also where it is cut; pickles stay closed."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAGIC", "UnreadableArrayError", "array_of", "header_of"]

MAGIC = b"\x93NUMPY"
#: Longest header that is read: a table of some hundred columns.
_LONGEST = 1 << 16
_DESCR = re.compile(r"'descr':\s*'([<>|=]?[a-zA-Z]\d{0,3})'")
_FIELDS = re.compile(r"'descr':\s*\[(.*?)\],\s*'fortran_order'", re.DOTALL)
_FIELD = re.compile(r"\(\s*'((?:[^'\\]|\\.){1,300})',\s*'([<>|=]?[a-zA-Z]\d{0,3})'\s*\)")
_ORDER = re.compile(r"'fortran_order':\s*(True|False)")
_SHAPE = re.compile(r"'shape':\s*\(([\d, ]{0,200})\)")


class UnreadableArrayError(ValueError):
    """Bytes that hold no array of numbers; the message says why."""


def header_of(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Type, shape, whether columns come first, and where the numbers begin, from the first bytes of a `.npy`.

    Nothing in the header is evaluated. Raises `UnreadableArrayError` on damage, on Python objects, and on types that
    are no numbers. Source: NumPy, `numpy.lib.format`, versions 1.0 to 3.0.

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
    order, shape = _ORDER.search(text), _SHAPE.search(text)
    if order is None or shape is None:
        raise UnreadableArrayError("the header is damaged")
    sides = tuple(int(side) for side in shape[1].split(",") if side.strip())
    return _type(text), sides, order[1] == "True", begin + length


def _type(text: str) -> np.dtype[Any]:
    fields = _FIELDS.search(text)
    one = _DESCR.search(text)
    names = _FIELD.findall(fields[1]) if fields else []
    kinds = [kind for _, kind in names] if fields else [one[1]] if one else []
    if any(kind.lstrip("<>|=")[0] == "O" for kind in kinds):
        raise UnreadableArrayError("it holds Python objects (a pickle), which can run code when opened; it was not")
    try:
        found: np.dtype[Any] = np.dtype(names if fields else kinds[0])
    except (TypeError, ValueError, IndexError) as error:
        raise UnreadableArrayError("the header names no type of numbers") from error
    parts = [found] if found.names is None else [found[name] for name in found.names]
    if not parts or any(part.kind not in "fiub" or not part.itemsize for part in parts):
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
