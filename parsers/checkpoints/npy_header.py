"""The header of a .npy array: its type, order and shape, read as a literal and never evaluated."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass

__all__ = ["LONGEST", "NpyHeader", "npy_header"]

#: The longest header that is read; NumPy's own limit, beyond which reading one may be unsafe.
LONGEST = 10_000
_MAGIC = b"\x93NUMPY"
#: Bytes that hold the header's length, by major version.
_LENGTHS = {1: 2, 2: 4, 3: 4}
_DESCRIPTION = re.compile(r"([<>|=]?)([?a-zA-Z])(\d*)")
_NUMBERS = {
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}
_MOST_DIMENSIONS, _MOST_BYTES = 64, 2**63 - 1


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a header says. `dtype` is a name of ours where the elements are numbers that are read here, else empty.

    `start` is the byte at which the values begin; `code` NumPy's own description of the type (`<f4`).
    """

    dtype: str
    code: str
    shape: tuple[int, ...]
    columns_first: bool
    start: int

    @property
    def is_pickle(self) -> bool:
        """Whether the values are a pickle of Python objects."""
        return self.code.lstrip("|<>=").startswith("O")

    @property
    def text_length(self) -> int:
        """Characters of one element where the elements are texts, else 0."""
        match = _DESCRIPTION.fullmatch(self.code)
        return int(match[3] or 0) if match and match[2] in "US" else 0


def npy_header(head: bytes) -> NpyHeader:
    """The header that `head`, the first bytes of an array, begins with; raises `ValueError` where there is none.

    Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    >>> text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    >>> npy_header(b"\\x93NUMPY\\x01\\x00" + len(text).to_bytes(2, "little") + text).shape
    (2, 3)
    """
    if head[:6] != _MAGIC:
        raise ValueError("does not begin as a .npy array")
    width = _LENGTHS.get(head[6] if len(head) > 6 else 0)
    if width is None:
        raise ValueError(f"a .npy array of version {head[6:8].hex() or 'nothing'}; 1 to 3 are known")
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if start > LONGEST:
        raise ValueError(f"a header of {start:,} bytes is announced; at most {LONGEST:,} are read")
    if start > len(head):
        raise ValueError(f"a header of {start:,} bytes is announced, and {len(head):,} are there")
    told = _literal(head[8 + width : start], "utf-8" if head[6] == 3 else "latin-1")
    code, order, shape = (told.get(key) for key in ("descr", "fortran_order", "shape"))
    if not isinstance(order, bool) or not isinstance(shape, tuple) or not _fits(shape):
        raise ValueError(f"its header says the shape {shape!r:.80} and fortran_order {order!r:.20}")
    if not isinstance(code, str):
        return NpyHeader("", f"structured, {code!r:.80}", shape, order, start)
    return NpyHeader(_dtype(code), code[:80], shape, order, start)


def _literal(text: bytes, encoding: str) -> dict[str, object]:
    try:
        told = ast.literal_eval(text.decode(encoding).strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:  # what literal_eval says of hostile text
        raise ValueError(f"its header is no literal: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"its header is no dictionary but {told!r:.80}")
    return told


def _fits(shape: tuple[object, ...]) -> bool:
    counts = [n for n in shape if type(n) is int and n >= 0]
    return len(counts) == len(shape) <= _MOST_DIMENSIONS and math.prod(n for n in counts if n) * 16 <= _MOST_BYTES


def _dtype(code: str) -> str:
    match = _DESCRIPTION.fullmatch(code)
    if not match or match[1] == ">":  # numbers of one byte are written with `|`
        return ""
    return _NUMBERS.get("b1" if match[2] == "?" else match[2] + match[3], "")
