"""Pieces of compiled loops that work on vectors of numbers, for what the compiler does not find by itself.

LLVM turns a loop into vectors only where nothing in it depends on where a number belongs; here sums go on in vectors
while counts are written. Vectors are of a fixed length, and LLVM makes of them what the processor at hand has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # numba brings it, without types
from numba.core import cgutils

__all__ = [
    "CHUNK",
    "INTEGERS",
    "LANES",
    "SINGLES",
    "Accumulator",
    "dots",
    "doubles",
    "integer",
    "integers",
    "load",
    "magnitude",
    "prefetch",
    "spread",
]

#: Numbers in a vector: a line of the cache of single precision.
LANES = 16
#: Numbers that are loaded at a time.
CHUNK = 2 * LANES
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_SINGLE, _DOUBLE = ir.FloatType(), ir.DoubleType()
INTEGERS, SINGLES = ir.VectorType(_INT, LANES), ir.VectorType(_SINGLE, LANES)
_DOUBLES = ir.VectorType(_DOUBLE, LANES // 2)
#: What is asked for from memory lies so many bytes ahead. The processor looks ahead by itself, but not from page to
#: page: a few percent.
_AHEAD, _LINE = 2048, 64
#: A product may be added without being rounded before.
_FUSED = ("contract",)


def integer(value: int) -> Any:
    """A constant of 64 bits, for places."""
    return ir.Constant(_LONG, value)


def integers(value: int) -> Any:
    """A vector of one constant."""
    return ir.Constant(INTEGERS, [value] * LANES)


def load(builder: Any, first: Any, chunk: Any, width: int) -> tuple[Any, Any]:
    """The patterns in single precision of the `chunk`th CHUNK numbers, in two vectors; `first` points to numbers
    of `width` bits, of which 16 are the upper half of single precision. What comes later is asked for from memory.
    """
    size = CHUNK * width // 8
    at = builder.gep(builder.bitcast(first, _BYTE.as_pointer()), [builder.mul(chunk, integer(size))])
    for line in range(0, size, _LINE):
        prefetch(builder, builder.gep(at, [integer(_AHEAD + line)]))
    here = builder.load(builder.bitcast(at, INTEGERS.as_pointer()), align=width // 8)
    if width == 16:
        return builder.shl(here, integers(16)), builder.and_(here, integers(0xFFFF0000))
    after = builder.gep(at, [integer(size // 2)])
    return here, builder.load(builder.bitcast(after, INTEGERS.as_pointer()), align=width // 8)


def prefetch(builder: Any, address: Any) -> None:
    """Begin to load a line of the cache; it never faults, whatever the address (LLVM's `llvm.prefetch`)."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
    ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    reading, all_caches, data = 0, 3, 1
    builder.call(ask, [address, _INT(reading), _INT(all_caches), _INT(data)])


def doubles(builder: Any, patterns: Sequence[Any]) -> list[Any]:
    """Vectors of patterns of single precision as twice as many of numbers in double precision."""
    found = []
    for vector in patterns:
        single = builder.bitcast(vector, SINGLES)
        for start in (0, LANES // 2):
            places = ir.Constant(ir.VectorType(_INT, LANES // 2), list(range(start, start + LANES // 2)))
            half = builder.shuffle_vector(single, ir.Constant(SINGLES, ir.Undefined), places)
            found.append(builder.fpext(half, _DOUBLES))
    return found


def magnitude(builder: Any, vector: Any) -> Any:
    """Doubles without their signs."""
    longs = ir.VectorType(_LONG, vector.type.count)
    rest = ir.Constant(longs, [(1 << 63) - 1] * vector.type.count)
    return builder.bitcast(builder.and_(builder.bitcast(vector, longs), rest), vector.type)


def spread(builder: Any, value: Any) -> Any:
    """A vector of one double that is known only when it runs."""
    nothing = ir.Constant(_DOUBLES, ir.Undefined)
    everywhere = ir.Constant(ir.VectorType(_INT, _DOUBLES.count), [0] * _DOUBLES.count)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _INT(0)), nothing, everywhere)


def dots(builder: Any, a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Products of vectors, lane by lane, added up."""
    total = builder.fmul(a[0], b[0], flags=_FUSED)
    for one, other in zip(a[1:], b[1:], strict=True):
        total = builder.fadd(builder.fmul(one, other, flags=_FUSED), total, flags=_FUSED)
    return total


class Accumulator:
    """A vector of doubles, singles or integers that is carried through a loop, one value for each lane."""

    def __init__(self, builder: Any, start: float, kind: Any = _DOUBLES) -> None:
        self._builder = builder
        self._place = cgutils.alloca_once_value(builder, ir.Constant(kind, [start] * kind.count))
        self._count = kind.count

    def add(self, vector: Any) -> None:
        """Lane by lane, floats."""
        self._store(self._builder.fadd(self._builder.load(self._place), vector))

    def tally(self, conditions: Any) -> None:
        """Count the lanes where a condition holds."""
        ones = self._builder.zext(conditions, INTEGERS)
        self._store(self._builder.add(self._builder.load(self._place), ones))

    def extend(self, vectors: Sequence[Any], than: str) -> None:
        """Keep the least (`than` is "<") or the largest (">") of each lane; a NaN is never kept."""
        for vector in vectors:
            self._store(self._nearer(vector, self._builder.load(self._place), than))

    def total(self) -> Any:
        """Sum over the lanes."""
        last = self._builder.load(self._place)
        add = self._builder.add if last.type.element == _INT else self._builder.fadd
        return self._over(last, add)

    def extreme(self, than: str) -> Any:
        """Least or largest over the lanes."""
        return self._over(self._builder.load(self._place), lambda a, b: self._nearer(a, b, than))

    def _nearer(self, one: Any, kept: Any, than: str) -> Any:
        return self._builder.select(self._builder.fcmp_ordered(than, one, kept), one, kept)

    def _over(self, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
        found = self._builder.extract_element(vector, _INT(0))
        for lane in range(1, self._count):
            found = join(self._builder.extract_element(vector, _INT(lane)), found)
        return found

    def _store(self, vector: Any) -> None:
        self._builder.store(vector, self._place)
