"""Sums and extremes of single precision, and counts of signs and exponents, two numbers at a time, in one loop.

A table has a place for each two exponents, so that a store counts two numbers, wherever their exponents lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # numba brings it, without types
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from analysis.weights.lanes import (
    INTEGERS,
    KINDS,
    LANES,
    MANTISSA,
    SINGLES,
    Accumulator,
    dots,
    doubles,
    integer,
    integers,
    load,
    spread,
)
from parsers.tables.compiled import compiled

__all__ = ["table_of_pairs", "take_pairs", "take_pairs_about_zero", "unpair"]

Tallies = NDArray[np.uint32]

#: Places in a row of the table of pairs: a little more than 512, so that rows do not lie a multiple of the distance
#: apart at which addresses look alike to the processor.
_ROW = KINDS + 16
#: The place behind the table where no pair belongs, and from where on places wait to be counted: 1.5 KiB into a page,
#: as it costs up to a quarter of all time where they lie as the counts of usual weights do.
_NOWHERE = KINDS * _ROW
_WAITING = _NOWHERE + 384
#: Vectors of places that wait to be counted: each is read back one chunk after it was written.
_ROOM = 4
#: Bytes of a page, at whose beginning a table begins.
_PAGE = 4096


def _loop(*, shifted: bool) -> Any:
    """The loop over a block; without a shift it has a tenth less to do."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def take(typing_context: Any, patterns: Any, chunks: Any, shift: Any, pairs: Any, found: Any) -> Any:
        """Sums of the first four powers about `shift`, least and largest of the first 32 * `chunks` numbers go into
        `found`; their signs and exponents are counted in `pairs`, two numbers at a time.

        A NaN or an infinity among them makes the first sum one, and is never an extreme (NaN) or is one (infinity).
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, count, about, tallies, out = arguments
            data = context.make_array(signature.args[0])(context, builder, array).data
            table = context.make_array(signature.args[3])(context, builder, tallies).data
            into = context.make_array(signature.args[4])(context, builder, out).data
            width = signature.args[0].dtype.bitwidth
            sums = [Accumulator(builder, 0.0) for _ in range(4)]
            least, largest = Accumulator(builder, np.inf, SINGLES), Accumulator(builder, -np.inf, SINGLES)
            room = builder.bitcast(builder.gep(table, [integer(_WAITING)]), INTEGERS.as_pointer())
            # nothing waits before the first chunk, and a branch in the loop would keep sums and counts apart
            builder.store(integers(_NOWHERE), builder.gep(room, [integer(_ROOM - 1)]), align=4)
            with cgutils.for_range(builder, count) as loop:
                chunk = load(builder, data, loop.index, width)
                _note_pairs(builder, chunk, room, loop.index)
                single = [builder.bitcast(vector, SINGLES) for vector in chunk]
                least.extend(single, "<")
                largest.extend(single, ">")
                _add_powers(builder, doubles(builder, chunk), about if shifted else None, sums)
                _count_noted(builder, room, builder.sub(loop.index, integer(1)), table)
            _count_noted(builder, room, builder.sub(count, integer(1)), table)
            extremes = [builder.fpext(one, ir.DoubleType()) for one in (least.extreme("<"), largest.extreme(">"))]
            for place, value in enumerate([*(one.total() for one in sums), *extremes]):
                builder.store(value, builder.gep(into, [integer(place)]))
            return context.get_dummy_value()

        return types.void(patterns, types.intp, types.float64, pairs, found), generate

    return take


take_pairs, take_pairs_about_zero = _loop(shifted=True), _loop(shifted=False)


def _note_pairs(builder: Any, chunk: tuple[Any, Any], room: Any, index: Any) -> None:
    """Where in the table of pairs the numbers of the two vectors belong."""
    one, other = (builder.lshr(vector, integers(MANTISSA)) for vector in chunk)
    places = builder.add(builder.mul(one, integers(_ROW)), other)
    builder.store(places, builder.gep(room, [builder.and_(index, integer(_ROOM - 1))]), align=4)


def _count_noted(builder: Any, room: Any, index: Any, table: Any) -> None:
    """Places are read back through memory, two at a time, a chunk after they were written: to take them out of a
    vector costs more, and to wait for them too.
    """
    noted = builder.gep(room, [builder.and_(index, integer(_ROOM - 1))])
    twos = builder.bitcast(noted, ir.IntType(64).as_pointer())
    for at in range(LANES // 2):
        both = builder.load(builder.gep(twos, [integer(at)]), align=4)
        for place in (builder.and_(both, integer((1 << 32) - 1)), builder.lshr(both, integer(32))):
            slot = builder.gep(table, [place])
            builder.store(builder.add(builder.load(slot), ir.IntType(32)(1)), slot)


def _add_powers(builder: Any, d: list[Any], about: Any, sums: list[Accumulator]) -> None:
    if about is not None:
        shift = spread(builder, about)
        d = [builder.fsub(one, shift) for one in d]
    squares = [builder.fmul(one, one) for one in d]
    first = builder.fadd(builder.fadd(d[0], d[1]), builder.fadd(d[2], d[3]))
    powers = (first, dots(builder, d, d), dots(builder, squares, d), dots(builder, squares, squares))
    for total, one in zip(sums, powers, strict=True):
        total.add(one)


def table_of_pairs() -> Tallies:
    """Room for counts of pairs, all zero, and for places that wait to be counted; it begins with a page."""
    held = np.zeros(_WAITING + LANES * _ROOM + _PAGE // 4, np.uint32)
    first = -held.ctypes.data % _PAGE // 4
    return held[first : first + _WAITING + LANES * _ROOM]


@compiled
def unpair(singles: Tallies, pairs: Tallies) -> None:  # pragma: no cover - compiled
    """Move the counts of pairs to those of single numbers."""
    for one in range(KINDS):
        row = pairs[one * _ROW : one * _ROW + KINDS]
        total = np.uint32(0)
        for other in range(KINDS):
            total += row[other]
        if total:
            singles[one] += total
            for other in range(KINDS):
                singles[other] += row[other]
                row[other] = 0
