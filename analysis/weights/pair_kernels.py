"""Compiled sweeps over two tensors at once: the sums from which their distance and angle follow.

Importing this module loads numba; it is imported for large checkpoints only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # numba brings it, without types
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from analysis.weights.lanes import CHUNK, INTEGERS, SINGLES, Accumulator, dots, doubles, integer, load, magnitude
from analysis.weights.single_kernels import widen
from parsers.tables.compiled import compiled

__all__ = ["sweep_double_pairs", "sweep_single_pairs"]

Floats = NDArray[np.floating[Any]]
Sums = NDArray[np.float64]
Patterns = NDArray[np.unsignedinteger[Any]]

#: Numbers of each that are compared while they lie in the first-level cache.
_BLOCK = 4096
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
def _add(sums: Sums, pairs: int, products: tuple[float, ...], changed: int, most: float) -> None:  # pragma: no cover
    sums[PAIRS] += pairs
    sums[AA] += products[0]
    sums[BB] += products[1]
    sums[DD] += products[2]
    sums[AD] += products[3]
    sums[AB] += products[4]
    sums[CHANGED] += changed
    sums[MOST_CHANGED] = max(sums[MOST_CHANGED], most)


@compiled
def _take_pairs(a: Floats, b: Floats, scale: float, apart: Sums, sums: Sums) -> None:  # pragma: no cover - compiled
    """Take a block; its numbers that are not finite are left out. `apart` is room for the differences."""
    products = _products(a, b, scale, apart)
    if not np.isfinite(products[0] + products[1] + products[2]):
        clean_a, clean_b = np.empty(len(a), a.dtype), np.empty(len(a), b.dtype)
        n = _finite_pairs(a, b, clean_a, clean_b, sums)
        if not n:
            return
        a, b = clean_a[:n], clean_b[:n]
        products = _products(a, b, scale, apart)
    changed, most = _changes(apart[: len(a)].view(np.uint64))
    _add(sums, len(a), products, changed, np.array([most]).view(np.float64)[0])


@compiled
def sweep_double_pairs(a: Sums, b: Sums, scale: float, sums: Sums) -> None:  # pragma: no cover - compiled
    """Take pairs of numbers of double precision."""
    apart = np.empty(_BLOCK)
    for start in range(0, len(a), _BLOCK):
        _take_pairs(a[start : start + _BLOCK], b[start : start + _BLOCK], scale, apart, sums)


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def _take(typing_context: Any, a: Any, b: Any, start: Any, chunks: Any, found: Any) -> Any:
    """Sums of aa, bb, dd, ad, ab, the largest |d|, and how many are not equal, of 32 * `chunks` pairs go into `found`;
    a sum is not finite where any number is not.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, begin, count, out = arguments
        arrays = zip(signature.args, (left, right), strict=False)
        firsts = [builder.gep(context.make_array(of)(context, builder, one).data, [begin]) for of, one in arrays]
        into = context.make_array(signature.args[4])(context, builder, out).data
        width = signature.args[0].dtype.bitwidth
        products = [Accumulator(builder, 0.0) for _ in range(5)]
        largest, unequal = Accumulator(builder, 0.0), Accumulator(builder, 0, INTEGERS)
        with cgutils.for_range(builder, count) as loop:
            chunk_a, chunk_b = (load(builder, first, loop.index, width) for first in firsts)
            for one, other in zip(chunk_a, chunk_b, strict=True):
                singles = (builder.bitcast(vector, SINGLES) for vector in (one, other))
                unequal.tally(builder.fcmp_unordered("!=", *singles))
            x, y = doubles(builder, chunk_a), doubles(builder, chunk_b)
            d = [builder.fsub(later, before) for before, later in zip(x, y, strict=True)]
            for total, (p, q) in zip(products, ((x, x), (y, y), (d, d), (x, d), (x, y)), strict=True):
                total.add(dots(builder, p, q))
            largest.extend([magnitude(builder, one) for one in d], ">")
        differing = builder.uitofp(unequal.total(), ir.DoubleType())
        values = [*(one.total() for one in products), largest.extreme(">"), differing]
        for place, value in enumerate(values):
            builder.store(value, builder.gep(into, [integer(place)]))
        return context.get_dummy_value()

    return types.void(a, b, types.intp, types.intp, found), generate


@compiled
def sweep_single_pairs(a: Patterns, b: Patterns, sums: Sums) -> None:  # pragma: no cover - compiled
    """Take pairs of single precision, or of bfloat16, by their patterns of 32 or 16 bits."""
    found, apart = np.empty(7), np.empty(_BLOCK)
    wide_a, wide_b = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    for start in range(0, len(a), _BLOCK):
        x, y = a[start : start + _BLOCK], b[start : start + _BLOCK]
        n = len(x) // CHUNK * CHUNK
        _take(a, b, start, n // CHUNK, found)
        if np.isfinite(found[0] + found[1] + found[2]):
            products = found[0], found[1], found[2], found[3], found[4]
            _add(sums, n, products, found[6], found[5])
        else:
            n = 0
        if n < len(x):
            rest = len(x) - n
            widen(x[n:], wide_a)
            widen(y[n:], wide_b)
            _take_pairs(wide_a[:rest].view(np.float32), wide_b[:rest].view(np.float32), 1.0, apart, sums)
