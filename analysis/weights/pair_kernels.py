"""Compiled sweep over two tensors at once: the sums from which their distance and angle follow.

Importing this module loads numba; it is imported for large checkpoints only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.tables.compiled import compiled

__all__ = ["sweep_pair", "sweep_words"]

Floats = NDArray[np.floating[Any]]
Sums = NDArray[np.float64]
Patterns = NDArray[np.unsignedinteger[Any]]

#: Numbers of each that are compared while they lie in the first-level cache.
_BLOCK = 2048
#: All bits of a number in double precision but its sign.
_MAGNITUDE = np.uint64((1 << 63) - 1)
#: Where what stands in the array of sums; D is B - A.
PAIRS, AA, BB, DD, AD, AB, CHANGED, MOST_CHANGED, NAN_A, NAN_B, INF_A, INF_B = range(12)


@partial(compiled, relaxed=("reassoc", "contract", "nsz"))
def _products(a: Floats, b: Floats, scale: float, apart: Sums) -> tuple[float, ...]:  # pragma: no cover - compiled
    """Sums of aa, bb, dd, ad, ab, not finite where any number is not; the differences go into `apart`."""
    aa = bb = dd = ad = ab = 0.0
    for i in range(len(a)):
        x, y = np.float64(a[i]) * scale, np.float64(b[i]) * scale
        d = y - x
        apart[i] = d
        aa += x * x
        bb += y * y
        dd += d * d
        ad += x * d
        ab += x * y
    return aa, bb, dd, ad, ab


@partial(compiled, relaxed=("reassoc", "contract", "nsz"))
def _squares(a: Floats, scale: float) -> float:  # pragma: no cover - compiled
    aa = 0.0
    for i in range(len(a)):
        x = np.float64(a[i]) * scale
        aa += x * x
    return aa


@compiled
def _changes(apart: NDArray[np.uint64]) -> tuple[int, np.uint64]:  # pragma: no cover - compiled
    """How many differences are not zero, and the largest magnitude, of patterns of finite numbers.

    Magnitudes are in the order of their patterns, and comparisons of integers are vectorised.
    """
    changed = 0
    most = np.uint64(0)
    for i in range(len(apart)):
        magnitude = apart[i] & _MAGNITUDE
        changed += magnitude != 0
        most = max(most, magnitude)
    return changed, most


@compiled
def _finite_pairs(  # pragma: no cover - compiled
    a: Floats, b: Floats, into_a: Floats, into_b: Floats, sums: Sums
) -> int:
    """Copy the pairs of which both are finite; count the others, and those of them that differ."""
    kept = 0
    for i in range(len(a)):
        if np.isfinite(a[i]) and np.isfinite(b[i]):
            into_a[kept] = a[i]
            into_b[kept] = b[i]
            kept += 1
            continue
        sums[NAN_A] += np.isnan(a[i])
        sums[NAN_B] += np.isnan(b[i])
        sums[INF_A] += np.isinf(a[i])
        sums[INF_B] += np.isinf(b[i])
        sums[CHANGED] += a[i] != b[i] and not (np.isnan(a[i]) and np.isnan(b[i]))
    return kept


@compiled
def _take_pairs(a: Floats, b: Floats, scale: float, apart: Sums, sums: Sums) -> None:  # pragma: no cover - compiled
    """Take a block; its numbers that are not finite are left out. `apart` is room for the differences."""
    aa, bb, dd, ad, ab = _products(a, b, scale, apart)
    if not np.isfinite(aa + bb + dd):
        clean_a, clean_b = np.empty(len(a), a.dtype), np.empty(len(a), b.dtype)
        n = _finite_pairs(a, b, clean_a, clean_b, sums)
        if not n:
            return
        a, b = clean_a[:n], clean_b[:n]
        aa, bb, dd, ad, ab = _products(a, b, scale, apart)
    changed, most = _changes(apart[: len(a)].view(np.uint64))
    sums[PAIRS] += len(a)
    sums[AA] += aa
    sums[BB] += bb
    sums[DD] += dd
    sums[AD] += ad
    sums[AB] += ab
    sums[CHANGED] += changed
    largest = np.array([most]).view(np.float64)[0]
    sums[MOST_CHANGED] = max(sums[MOST_CHANGED], largest)


@compiled
def _take_same(a: Floats, scale: float, apart: Sums, sums: Sums) -> None:  # pragma: no cover - compiled
    """Take a block that is the same in both."""
    aa = _squares(a, scale)
    if not np.isfinite(aa):
        _take_pairs(a, a, scale, apart, sums)
        return
    sums[PAIRS] += len(a)
    sums[AA] += aa
    sums[BB] += aa
    sums[AB] += aa


@compiled
def _same(a: Patterns, b: Patterns) -> bool:  # pragma: no cover - compiled
    apart = a[0] ^ b[0]
    for i in range(len(a)):
        apart |= a[i] ^ b[i]
    return bool(apart == 0)


@compiled
def sweep_pair(  # pragma: no cover - compiled
    a: Floats, b: Floats, bits_a: Patterns, bits_b: Patterns, scale: float, sums: Sums
) -> None:
    """Take pairs of numbers of one type; `bits_a` and `bits_b` are the same as unsigned integers."""
    apart = np.empty(_BLOCK)
    for start in range(0, len(a), _BLOCK):
        stop = min(start + _BLOCK, len(a))
        if _same(bits_a[start:stop], bits_b[start:stop]):
            _take_same(a[start:stop], scale, apart, sums)
        else:
            _take_pairs(a[start:stop], b[start:stop], scale, apart, sums)


@compiled
def sweep_words(  # pragma: no cover - compiled
    a: NDArray[np.uint16], b: NDArray[np.uint16], sums: Sums
) -> None:
    """Take pairs of bfloat16, whose patterns are the upper halves of single precision."""
    wide_a, wide_b, apart = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32), np.empty(_BLOCK)
    floats_a, floats_b = wide_a.view(np.float32), wide_b.view(np.float32)
    for start in range(0, len(a), _BLOCK):
        x, y = a[start : start + _BLOCK], b[start : start + _BLOCK]
        n = len(x)
        _widen(x, wide_a)
        if _same(x, y):
            _take_same(floats_a[:n], 1.0, apart, sums)
            continue
        _widen(y, wide_b)
        _take_pairs(floats_a[:n], floats_b[:n], 1.0, apart, sums)


@compiled
def _widen(words: NDArray[np.uint16], into: NDArray[np.uint32]) -> None:  # pragma: no cover - compiled
    for i in range(len(words)):
        into[i] = np.uint32(words[i]) << np.uint32(16)
