"""Counts of numbers by sign and exponent where nearly all exponents lie close together, in vectors of bits.

Each number's sign and exponent, of a window of sixteen, becomes one of 32 bits that is set, and numbers of bits are
added up place by place by full adders (positional population count: Klarqvist, Mula and Lemire 2021, "Efficient
computation of positional population counts using SIMD instructions"). Nothing is stored for single numbers, so that it
takes a third of the time of a table of counts, but it is blind to other exponents: where there are some, it says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # numba brings it, without types
from numba.core import cgutils
from numpy.typing import NDArray

from analysis.weights.lanes import (
    BYTES,
    INTEGERS,
    KINDS,
    LINE,
    MANTISSA,
    WORDS,
    add_bits,
    cast,
    choose,
    integer,
    integers,
    look_up,
    spread,
    uniform,
)
from parsers.tables.compiled import compiled

__all__ = [
    "ASTRAY",
    "GROUP",
    "MOST_BLOCKS",
    "MOST_GROUPS",
    "UNIT",
    "KindCounts",
    "count_planes",
    "kind_of",
    "planes_of_bits",
    "set_right",
    "window_of",
]

Planes = NDArray[np.uint8]
Tallies = NDArray[np.uint32]
Patterns = NDArray[np.unsignedinteger[Any]]

#: Exponents in a window, kinds of numbers in it (by sign), and kinds that share a byte: four sets of eight.
_WINDOW, ASTRAY, _BITS = 16, 32, 8
_SETS = ASTRAY // _BITS
#: Numbers whose bits are added at once, and those of a group.
UNIT, GROUP = 64, 512
#: Groups in a block, after which the carries of all groups are added, and blocks after which the counts of carries,
#: which are bytes, must be taken (`count_planes`).
MOST_GROUPS, MOST_BLOCKS = 32, 255
#: Planes of bits: of how many units the bits of a plane tell, up to 128 in powers of two; those of carries of groups;
#: then bytes that count 256 units each.
_PLANES, _IN_GROUP = 8, 3
_COUNTERS, _CARRIES, _ROWS = _SETS * _PLANES, 2 * _SETS * _PLANES, 2 * _SETS * _PLANES + _SETS * MOST_GROUPS
#: Exponents in the window become 240 to 255: the upper four bits of a byte are set.
_INSIDE = 256 - _WINDOW
#: Numbers that are looked at to place a window, one in how many may lie elsewhere (each costs some 60 ns), and how
#: many of the largest exponent tell of a larger one.
_LOOKED, _RARE, _SEVERAL = 1024, 512, 8
#: Windows of numbers other than zeros whose mean square lies between 2**-60 and 2**40: the largest of weights are some
#: five times as large as that.
_LOWEST, _HIGHEST = 127 - 30 + 3 - _WINDOW, 127 + 20 + 3 - _WINDOW
#: Bits of a sign and an exponent, and all those of an exponent.
_KIND_BITS, _EXPONENT = 32 - MANTISSA, KINDS // 2 - 1
_ONE = np.uint32(1)


def planes_of_bits() -> Planes:
    """Room for `take_window`, all zero; rows are lines of the cache."""
    held = np.zeros((_ROWS + 1) * LINE, np.uint8)
    first = -held.ctypes.data % LINE
    return held[first : first + _ROWS * LINE].reshape(_ROWS, LINE)


class KindCounts:
    """Bits of 32 kinds of numbers, added up in planes that stay in registers within a group."""

    def __init__(self, builder: Any, planes: Any, low: Any) -> None:
        self._builder, self._planes = builder, planes
        raised = builder.trunc(builder.sub(integer(_INSIDE), low), ir.IntType(8))
        self._raised = spread(builder, raised, BYTES)
        bits = [1 << place for place in range(_BITS)]
        nothing = [0] * _BITS
        self._tables = [ir.Constant(BYTES, half * (LINE // _WINDOW)) for half in (bits + nothing, nothing + bits)]
        self._inner = [
            [cgutils.alloca_once_value(builder, builder.load(self._row(of * _PLANES + k))) for k in range(_IN_GROUP)]
            for of in range(_SETS)
        ]
        self._waiting: list[list[list[Any]]] = [[[] for _ in range(_IN_GROUP + 1)] for _ in range(_SETS)]

    def take(self, one: Any, other: Any) -> Any:
        """Two vectors of the upper halves of single precision; whether any exponent is outside the window."""
        builder = self._builder
        # of every 16 bits, the lower byte is from one vector and the upper byte from the other
        lower = uniform(WORDS, 0xFF)
        shifted = builder.lshr(one, uniform(WORDS, MANTISSA - 16)), builder.add(other, other)
        exponents = builder.add(cast(builder, choose(builder, lower, *shifted), BYTES), self._raised)
        signs = choose(builder, lower, builder.lshr(one, uniform(WORDS, 8)), other)
        plus = choose(builder, uniform(BYTES, 0x7F), exponents, cast(builder, signs, BYTES))
        minus = builder.xor(plus, uniform(BYTES, 0x80))
        places = [(table, where) for where in (plus, minus) for table in self._tables]
        for of, (table, where) in enumerate(places):
            self._push(of, 0, look_up(builder, table, where))
        outside = builder.icmp_unsigned("<", exponents, uniform(BYTES, _INSIDE))
        return builder.icmp_unsigned("!=", builder.bitcast(outside, ir.IntType(BYTES.count)), integer(0))

    def end_group(self, group: Any) -> None:
        """Lay the carries of a group aside."""
        for of in range(_SETS):
            (carry,) = self._waiting[of][_IN_GROUP]
            self._waiting[of][_IN_GROUP] = []
            self._builder.store(carry, self._carry(integer(of), group))

    def end_block(self, groups: Any) -> None:
        """Add the carries of all groups, and write down what is held in registers."""
        builder = self._builder
        for of in range(_SETS):
            for k in range(_IN_GROUP):
                builder.store(builder.load(self._inner[of][k]), self._row(of * _PLANES + k))
        with cgutils.for_range(builder, integer(_SETS)) as each:  # written once: it is long to compile
            with cgutils.for_range(builder, builder.sub(integer(MOST_GROUPS), groups)) as rest:
                builder.store(uniform(BYTES, 0), self._carry(each.index, builder.add(groups, rest.index)))
            first, counters = (builder.mul(each.index, integer(rows)) for rows in (_PLANES, _BITS))
            carries = [builder.load(self._carry(each.index, integer(group))) for group in range(MOST_GROUPS)]
            for k in range(_IN_GROUP, _PLANES):
                row = self._row(builder.add(first, integer(k)))
                plane, next_carries = builder.load(row), []
                for pair in zip(carries[::2], carries[1::2], strict=True):
                    plane, carry = add_bits(builder, plane, *pair)
                    next_carries.append(carry)
                builder.store(plane, row)
                carries = next_carries
            (carry,) = carries
            for bit in range(_BITS):
                row = self._row(builder.add(counters, integer(bit)), _COUNTERS)
                ones = cast(builder, builder.lshr(cast(builder, carry, INTEGERS), integers(bit)), BYTES)
                builder.store(builder.add(builder.load(row), builder.and_(ones, uniform(BYTES, 1))), row)

    def _push(self, of: int, k: int, bits: Any) -> None:
        """Add bits to plane `k` of a set: two at a time, and their carry to the next plane."""
        waiting = self._waiting[of][k]
        waiting.append(bits)
        if k == _IN_GROUP or len(waiting) < 2:
            return
        plane = self._inner[of][k]
        total, carry = add_bits(self._builder, self._builder.load(plane), *waiting)
        self._builder.store(total, plane)
        waiting.clear()
        self._push(of, k + 1, carry)

    def _carry(self, of: Any, group: Any) -> Any:
        return self._row(self._builder.add(self._builder.mul(of, integer(MOST_GROUPS)), group), _CARRIES)

    def _row(self, row: Any, behind: int = 0) -> Any:
        row = integer(row) if isinstance(row, int) else row
        return self._builder.gep(self._planes, [self._builder.add(row, integer(behind))])


@compiled
def window_of(patterns: Patterns) -> int:  # pragma: no cover - compiled
    """The lowest exponent of a window for numbers like these; -1 where too many lie outside any, or where the fourth
    powers of all leave single precision.

    The first thousand are looked at. Where many of them have the largest exponent, some others will have the next.
    """
    looked = min(len(patterns), _LOOKED)
    largest = among = 0
    for i in range(looked):
        exponent = kind_of(patterns[i]) & _EXPONENT
        if exponent != _EXPONENT:  # no infinity, no NaN
            among = 1 if exponent > largest else among + (exponent == largest)
            largest = max(largest, exponent)
    low = max(min(largest + (among >= _SEVERAL), _EXPONENT - 1) - (_WINDOW - 1), 0)
    outside = 0
    for i in range(looked):
        outside += _out(kind_of(patterns[i]), low)
    fit = low == 0 or _LOWEST <= low <= _HIGHEST
    return low if fit and outside * _RARE <= looked else -1


@compiled
def set_right(  # pragma: no cover - compiled
    patterns: Patterns, low: int, singles: Tallies, astray: Tallies
) -> None:
    """Count the numbers outside the window by sign and exponent in `singles`, and in `astray` as what kinds the planes
    took them for.
    """
    for pattern in patterns:
        kind = kind_of(pattern)
        if _out(kind, low):
            singles[kind] += _ONE
            astray[((kind & _EXPONENT) - low) % _WINDOW + (_WINDOW if kind > _EXPONENT else 0)] += _ONE


@compiled
def count_planes(planes: Planes, low: int, astray: Tallies, singles: Tallies) -> None:  # pragma: no cover - compiled
    """Move the counts of the planes to those by sign and exponent, without the numbers that went astray."""
    column = np.empty(LINE, np.uint32)
    for of in range(_SETS):
        for bit in range(_BITS):
            counter = planes[_COUNTERS + of * _BITS + bit]
            for i in range(LINE):
                column[i] = np.uint32(counter[i]) << np.uint32(_PLANES)
            for k in range(_PLANES):
                plane = planes[of * _PLANES + k]
                for i in range(LINE):
                    column[i] += np.uint32((plane[i] >> bit) & 1) << np.uint32(k)
            kind = of * _BITS + bit
            exponent = low + kind % _WINDOW + (_EXPONENT + 1 if kind >= _WINDOW else 0)
            singles[exponent] += column.sum() - astray[kind]
    planes[:_CARRIES] = 0
    astray[:] = 0


@compiled
def kind_of(pattern: Any) -> int:  # pragma: no cover - compiled
    """Sign and exponent, 9 bits."""
    return int(np.int64(pattern) >> np.int64(np.iinfo(pattern).bits - _KIND_BITS))


@compiled
def _out(kind: int, low: int) -> bool:  # pragma: no cover - compiled
    """Whether the exponent lies outside the window."""
    place = (kind & _EXPONENT) - low
    return place < 0 or place >= _WINDOW
