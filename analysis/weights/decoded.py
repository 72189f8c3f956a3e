"""Stored elements as numbers: bfloat16 and the 8-bit floats, which NumPy lacks, and quantised integers."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["decoded", "is_real"]

#: Of the 8-bit floats: bits of the mantissa, bias of the exponent, and whether the top exponent means infinity and NaN
#: as in IEEE 754 ("ieee"), only all ones is NaN ("fn"), or only minus zero is ("fnuz"). Micikevicius et al. 2022
#: (arXiv:2209.05433); Noune et al. 2022 (arXiv:2206.02915) for fnuz.
_EIGHT_BITS = {
    "float8_e4m3fn": (3, 7, "fn"),
    "float8_e5m2": (2, 15, "ieee"),
    "float8_e4m3fnuz": (3, 8, "fnuz"),
    "float8_e5m2fnuz": (2, 16, "fnuz"),
}


def is_real(tensor: Tensor) -> bool:
    """Whether the elements are real numbers: floats, or integers that a scale turns into numbers."""
    kind = DTYPES[tensor.dtype].kind
    return kind == "float" or (kind == "integer" and tensor.scale is not None)


def decoded(raw: NDArray[np.generic], tensor: Tensor) -> NDArray[np.float32] | NDArray[np.float64]:
    """`raw` elements of `tensor` as numbers, of the same shape: float64 where they are stored so, else float32.

    `raw` is any part of what `Checkpoint.array` gives; float32 and float64 come back as they are, without a copy.
    Every value of the smaller types is one of float32. Raises ValueError for elements that are no real numbers.

    >>> bits = np.array([0x3F80, 0xC000], "<u2")
    >>> decoded(bits, Tensor("w", "bfloat16", (2,), None)).tolist()
    [1.0, -2.0]
    """
    if not is_real(tensor):
        raise ValueError(f"tensor {tensor.name!r} of {tensor.dtype}: its elements are no real numbers")
    if DTYPES[tensor.dtype].kind == "integer":
        assert tensor.scale is not None
        scaled: NDArray[np.float32] = ((raw.astype(np.float64) - tensor.zero_point) * tensor.scale).astype(np.float32)
        return scaled
    if tensor.dtype == "bfloat16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if DTYPES[tensor.dtype].bits == 8:
        return _table(tensor.dtype)[raw.view(np.uint8)]
    if tensor.dtype == "float64":
        return raw.astype(np.float64, copy=False)
    return raw.astype(np.float32, copy=False)


@cache
def _table(dtype: str) -> NDArray[np.float32]:
    """The value of each of the 256 patterns."""
    bits = np.arange(256)
    if dtype == "float8_e8m0fnu":  # a power of two alone, the scale of a block (OCP MX specification 1.0, section 5.4)
        return np.where(bits == 255, np.nan, np.exp2(bits - 127.0)).astype(np.float32)
    mantissa_bits, bias, special = _EIGHT_BITS[dtype]
    sign = np.where(bits & 0x80, -1.0, 1.0)
    exponent = (bits & 0x7F) >> mantissa_bits
    fraction = (bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    subnormal = exponent == 0
    value = sign * (fraction + ~subnormal) * np.exp2(np.maximum(exponent, 1) - float(bias))
    top = (1 << (7 - mantissa_bits)) - 1
    if special == "ieee":
        value = np.where(exponent == top, np.where(fraction == 0, sign * np.inf, np.nan), value)
    elif special == "fn":
        value = np.where((bits & 0x7F) == 0x7F, np.nan, value)
    else:
        value = np.where(bits == 0x80, np.nan, value)
    return value.astype(np.float32)
