"""Stored patterns as numbers: tables for the types of 8 and 16 bits, conversions for the others."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = [
    "dead_of",
    "dot",
    "in_double",
    "numbers",
    "numbers_of_patterns",
    "read_only",
    "smallest_normal",
    "unsigned",
    "zero_pattern",
]

Floats = NDArray[np.float64]

#: Exponent bits, mantissa bits, exponent bias, and how the largest exponent is read: "ieee" (infinities and NaN),
#: "fn" (finite: only the largest pattern of each sign is NaN), "fnuz" (finite, no negative zero: its pattern is NaN).
#: Sources: IEEE 754; Micikevicius et al. 2022, arXiv:2209.05433 (E4M3, E5M2); Noune et al. 2022, arXiv:2206.02915
#: (fnuz).
_FLOATS: dict[str, tuple[int, int, int, str]] = {
    "float16": (5, 10, 15, "ieee"),
    "bfloat16": (8, 7, 127, "ieee"),
    "complex32": (5, 10, 15, "ieee"),
    "float8_e5m2": (5, 2, 15, "ieee"),
    "float8_e4m3fn": (4, 3, 7, "fn"),
    "float8_e5m2fnuz": (5, 2, 16, "fnuz"),
    "float8_e4m3fnuz": (4, 3, 8, "fnuz"),
}
#: Exponents of the smallest normal number of the types that NumPy has.
_NORMAL = {"float32": -126, "complex64": -126, "float64": -1022, "complex128": -1022}


def numbers(raw: NDArray[np.generic], tensor: Tensor) -> Floats:
    """The numbers that stored values stand for, in double precision and in a new array of the raw one's shape.

    A complex value gives two numbers, real and imaginary part, along a last axis of 2. Quantised values are scaled;
    integers beyond 2**53 are rounded.

    >>> numbers(np.array([0x3F80, 0xC000], "u2"), Tensor("w", "bfloat16", (2,), None)).tolist()
    [1.0, -2.0]
    """
    dtype = tensor.dtype
    if raw.dtype.itemsize <= 2 and dtype not in ("float16", "complex32"):
        table = numbers_of_patterns(dtype, tensor.scale, tensor.zero_point)
        found: Floats = table[unsigned(raw)]
        return found
    if raw.dtype.kind == "c":
        parts = np.float32 if raw.dtype.itemsize == 8 else np.float64
        return in_double(np.ascontiguousarray(raw).view(parts).reshape(*raw.shape, 2))
    plain = in_double(raw)
    return plain if tensor.scale is None else tensor.scale * (plain - tensor.zero_point)


def in_double(raw: NDArray[np.generic]) -> Floats:
    """Numbers in double precision; a NaN of the signalling kind becomes a quiet one without a warning."""
    with np.errstate(invalid="ignore"):
        return raw.astype(np.float64)


def dot(a: Floats, b: Floats) -> float:
    """Sum of the products of two vectors, in this thread alone: the threads of BLAS spin while they wait for one
    another, and where others work too that is most of the time.

    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    return float(np.einsum("i,i->", a, b))


def unsigned(raw: NDArray[np.generic]) -> NDArray[np.unsignedinteger[Any]]:
    """The same bytes as unsigned integers of the same width (complex: of its parts' width), to look at patterns."""
    width = raw.dtype.itemsize // (2 if raw.dtype.kind == "c" else 1)
    patterns: NDArray[np.unsignedinteger[Any]] = raw.view(f"u{width}")
    return patterns


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Aligned and not to be written, as mapped arrays are: so that kernels are compiled once."""
    array = np.require(array, requirements="A")[:]
    array.flags.writeable = False
    return array


@lru_cache(maxsize=64)
def numbers_of_patterns(dtype: str, scale: float | None = None, zero_point: int = 0) -> Floats:
    """What each pattern of a type of 8 or 16 bits stands for: 256 or 65,536 numbers, by the unsigned pattern.

    >>> numbers_of_patterns("float8_e4m3fn")[[0x01, 0x7E, 0x80]].tolist()
    [0.001953125, 448.0, -0.0]
    """
    entry = DTYPES[dtype]
    bits = np.dtype(entry.raw).itemsize * 8
    patterns = np.arange(1 << bits, dtype=f"u{bits // 8}")
    if dtype in _FLOATS:
        found = _floats(patterns.astype(np.int64), *_FLOATS[dtype])
    elif dtype == "float8_e8m0fnu":  # powers of two, the scales of microscaling formats
        found = np.where(patterns == 255, np.nan, np.ldexp(1.0, patterns.astype(np.int32) - 127))
    elif entry.kind == "boolean":
        found = (patterns != 0).astype(np.float64)
    else:
        found = patterns.view(entry.raw).astype(np.float64)
        found = found if scale is None else scale * (found - zero_point)
    found.flags.writeable = False
    return found


def smallest_normal(dtype: str) -> float:
    """The smallest normal number of a type of floats (below it lie the subnormal ones); 0 where there are none."""
    if dtype in _NORMAL:
        return float(np.ldexp(1.0, _NORMAL[dtype]))
    return float(np.ldexp(1.0, 1 - _FLOATS[dtype][2])) if dtype in _FLOATS else 0.0


def zero_pattern(tensor: Tensor) -> tuple[int, int]:
    """Mask and pattern by which a stored value (as unsigned integer) is known as zero."""
    entry = DTYPES[tensor.dtype]
    bits = np.dtype(entry.raw).itemsize * (4 if entry.kind == "complex" and entry.raw != "<f2" else 8)
    everything = (1 << bits) - 1
    if entry.kind in ("float", "complex") and not tensor.dtype.endswith("fnuz"):
        # powers of two alone have no zero: no pattern is all ones under no bit
        return (0, 1) if tensor.dtype == "float8_e8m0fnu" else (everything >> 1, 0)
    return everything, (tensor.zero_point & everything) if tensor.scale is not None else 0


def dead_of(raw: NDArray[np.generic], tensor: Tensor) -> tuple[int, int] | None:
    """How many slices of the first and of the second dimension of a whole tensor are all zero; None below two."""
    if len(tensor.shape) < 2 or tensor.layout != "strided" or not raw.size:
        return None
    mask, zero = zero_pattern(tensor)
    patterns = unsigned(np.ascontiguousarray(raw))
    live = (patterns & patterns.dtype.type(mask)) != zero
    if live.all():
        return 0, 0
    live = live.reshape(*tensor.shape[:2], -1)
    return int((~live.any((1, 2))).sum()), int((~live.any((0, 2))).sum())


def _floats(patterns: NDArray[np.int64], exponent_bits: int, mantissa_bits: int, bias: int, top: str) -> Floats:
    """Values of a sign bit, an exponent and a mantissa."""
    sign_bit = exponent_bits + mantissa_bits
    magnitude = patterns & ((1 << sign_bit) - 1)
    exponent, mantissa = magnitude >> mantissa_bits, (patterns & ((1 << mantissa_bits) - 1)).astype(np.float64)
    lifted = np.where(exponent == 0, mantissa, mantissa + (1 << mantissa_bits))
    found = np.ldexp(lifted, (np.maximum(exponent, 1) - bias - mantissa_bits).astype(np.int32))
    if top == "ieee":
        last = exponent == (1 << exponent_bits) - 1
        found = np.where(last, np.where(mantissa == 0, np.inf, np.nan), found)
    elif top == "fn":
        found = np.where(magnitude == (1 << sign_bit) - 1, np.nan, found)
    found = np.where(patterns >> sign_bit == 1, -found, found)
    return np.where(patterns == 1 << sign_bit, np.nan, found) if top == "fnuz" else found
