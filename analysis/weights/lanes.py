"""Pieces of compiled loops that work on vectors of numbers, for what the compiler does not find by itself.

LLVM turns a loop into vectors only where nothing in it depends on where a number belongs; here sums go on in vectors
while counts are written. Vectors are of a fixed length, and LLVM makes of them what the processor at hand has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # numba brings it, without types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features

__all__ = [
    "BYTES",
    "CHUNK",
    "DOUBLES",
    "INTEGERS",
    "KINDS",
    "LANES",
    "LINE",
    "MANTISSA",
    "SINGLES",
    "WORDS",
    "Accumulator",
    "add_bits",
    "cast",
    "choose",
    "dots",
    "doubles",
    "fused",
    "in_single",
    "integer",
    "integers",
    "load",
    "load_line",
    "look_up",
    "magnitude",
    "spread",
    "uniform",
    "wide_processor",
]

#: Numbers in a vector: a line of the cache of single precision.
LANES = 16
#: Numbers that are loaded at a time.
CHUNK = 2 * LANES
#: Signs and exponents of single precision: 9 bits above those of the mantissa.
KINDS, MANTISSA = 512, 23
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_SINGLE, _DOUBLE = ir.FloatType(), ir.DoubleType()
INTEGERS, SINGLES = ir.VectorType(_INT, LANES), ir.VectorType(_SINGLE, LANES)
DOUBLES = ir.VectorType(_DOUBLE, LANES // 2)
#: Vectors of as many bits as those of single precision.
WORDS, BYTES = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(_BYTE, 4 * LANES)
#: What is asked for from memory lies so many bytes ahead. The processor looks ahead by itself, but not from page to
#: page: a few percent.
_AHEAD, LINE = 2048, 64
#: A product may be added without being rounded before.
_FUSED = ("contract",)


def integer(value: int) -> Any:
    """A constant of 64 bits, for places."""
    return ir.Constant(_LONG, value)


def integers(value: int) -> Any:
    """A vector of one constant."""
    return uniform(INTEGERS, value)


def uniform(kind: Any, value: float) -> Any:
    """A vector of one constant, of any type."""
    return ir.Constant(kind, [value] * kind.count)


def cast(builder: Any, vector: Any, kind: Any) -> Any:
    """The same bits as another type."""
    return vector if vector.type == kind else builder.bitcast(vector, kind)


def load(builder: Any, first: Any, chunk: Any, width: int) -> tuple[Any, Any]:
    """The patterns in single precision of the `chunk`th CHUNK numbers, in two vectors; `first` points to numbers
    of `width` bits, of which 16 are the upper half of single precision. What comes later is asked for from memory.
    """
    size = CHUNK * width // 8
    at, place = builder.bitcast(first, _BYTE.as_pointer()), builder.mul(chunk, integer(size))
    lines = [load_line(builder, at, builder.add(place, integer(line))) for line in range(0, size, LINE)]
    one, other = lines if width == 32 else in_single(builder, lines[0])
    return one, other


def in_single(builder: Any, line: Any) -> tuple[Any, Any]:
    """Numbers of 16 bits as patterns in single precision: those at even places, and those at odd ones."""
    return builder.shl(line, integers(16)), builder.and_(line, integers(0xFFFF0000))


def load_line(builder: Any, first: Any, place: Any) -> Any:
    """The 64 bytes that lie `place` bytes behind `first`, as integers; what comes later is asked for from memory."""
    at = builder.gep(first, [place])
    _prefetch(builder, builder.gep(at, [integer(_AHEAD)]))
    return builder.load(builder.bitcast(at, INTEGERS.as_pointer()), align=1)


def _prefetch(builder: Any, address: Any) -> None:
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
            found.append(builder.fpext(half, DOUBLES))
    return found


def magnitude(builder: Any, vector: Any) -> Any:
    """Doubles without their signs."""
    longs = ir.VectorType(_LONG, vector.type.count)
    rest = ir.Constant(longs, [(1 << 63) - 1] * vector.type.count)
    return builder.bitcast(builder.and_(builder.bitcast(vector, longs), rest), vector.type)


def spread(builder: Any, value: Any, kind: Any = DOUBLES) -> Any:
    """A vector of one value that is known only when it runs."""
    nothing = ir.Constant(kind, ir.Undefined)
    everywhere = uniform(ir.VectorType(_INT, kind.count), 0)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _INT(0)), nothing, everywhere)


def dots(builder: Any, a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Products of vectors, lane by lane, added up."""
    total = builder.fmul(a[0], b[0], flags=_FUSED)
    for one, other in zip(a[1:], b[1:], strict=True):
        total = fused(builder, one, other, total)
    return total


def fused(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """A product of vectors, lane by lane, added to a total."""
    return builder.fadd(builder.fmul(a, b, flags=_FUSED), total, flags=_FUSED)


def wide_processor() -> bool:
    """Whether what numba compiles for has vectors of 512 bits with operations on their bytes (AVX-512BW), which
    `choose`, `add_bits` and `look_up` need.
    """
    asked: str | None = config.CPU_FEATURES
    return "+avx512bw" in (get_host_cpu_features() if asked is None else asked).split(",")


def choose(builder: Any, mask: Any, one: Any, other: Any) -> Any:
    """Bits of `one` where those of `mask` are set, else of `other`."""
    return _of_three_bits(builder, 0xCA, mask, one, other)


def add_bits(builder: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Sum and carry of three bits, place by place."""
    return _of_three_bits(builder, 0x96, a, b, c), _of_three_bits(builder, 0xE8, a, b, c)


def _of_three_bits(builder: Any, truths: int, *vectors: Any) -> Any:
    """A function of three bits, by its table of truths (VPTERNLOGD)."""
    kind = ir.FunctionType(INTEGERS, [INTEGERS, INTEGERS, INTEGERS, _INT])
    of_three = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pternlog.d.512")
    found = builder.call(of_three, [*(cast(builder, one, INTEGERS) for one in vectors), _INT(truths)])
    return cast(builder, found, vectors[1].type)


def look_up(builder: Any, table: Any, places: Any) -> Any:
    """Bytes of `table` at the lower four bits of each place, within each 16 bytes; 0 where a place is above 127
    (VPSHUFB).
    """
    kind = ir.FunctionType(BYTES, [BYTES, BYTES])
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pshuf.b.512")
    return builder.call(shuffle, [table, places])


class Accumulator:
    """A vector of doubles, singles or integers that is carried through a loop, one value for each lane."""

    def __init__(
        self, builder: Any, start: float, kind: Any = DOUBLES, compare: Callable[[str, Any, Any], Any] | None = None
    ) -> None:
        """`compare` is the builder's comparison for extremes of integers (default: that of floats)."""
        self._builder = builder
        self._compare = builder.fcmp_ordered if compare is None else compare
        self._start = uniform(kind, start)
        self._place = cgutils.alloca_once_value(builder, self._start)
        self._count = kind.count

    def clear(self) -> Any:
        """What was added since the beginning, which is forgotten."""
        held = self._builder.load(self._place)
        self._store(self._start)
        return held

    def add(self, vector: Any) -> None:
        """Lane by lane, floats."""
        self._store(self._builder.fadd(self._builder.load(self._place), vector))

    def add_product(self, a: Any, b: Any) -> None:
        """Lane by lane, floats, rounded once where the processor can."""
        self._store(fused(self._builder, a, b, self._builder.load(self._place)))

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
        return self._builder.select(self._compare(than, one, kept), one, kept)

    def _over(self, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
        found = self._builder.extract_element(vector, _INT(0))
        for lane in range(1, self._count):
            found = join(self._builder.extract_element(vector, _INT(lane)), found)
        return found

    def _store(self, vector: Any) -> None:
        self._builder.store(vector, self._place)
