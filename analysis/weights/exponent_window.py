"""Sums, extremes and counts of signs and exponents where nearly all exponents lie close together, in one loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # numba brings it, without types
from numba.core import cgutils, types
from numba.extending import intrinsic

from analysis.weights.bit_planes import GROUP, UNIT, KindCounts
from analysis.weights.lanes import (
    BYTES,
    INTEGERS,
    LINE,
    SINGLES,
    WORDS,
    Accumulator,
    cast,
    choose,
    doubles,
    in_single,
    integer,
    integers,
    load_line,
    spread,
    wide_processor,
)

__all__ = ["WINDOWS", "take_window"]

#: Whether the processor can do it; elsewhere exponents are counted in a table (`exponent_pairs`).
WINDOWS = wide_processor()


class _Extremes:
    """The largest patterns as signed and as unsigned integers: of these operations there are twice as many a cycle as
    of those on floats, and of 16 bits again.
    """

    def __init__(self, builder: Any, width: int) -> None:
        self._builder, self._kind, self._width = builder, WORDS if width == 16 else INTEGERS, width
        self._signed = Accumulator(builder, -(1 << (width - 1)), self._kind, builder.icmp_signed)
        self._unsigned = Accumulator(builder, 0, self._kind, builder.icmp_unsigned)

    def take(self, line: Any) -> None:
        vector = cast(self._builder, line, self._kind)
        self._signed.extend([vector], ">")
        self._unsigned.extend([vector], ">")

    def values(self) -> list[Any]:
        """Both patterns, widened to 32 bits."""
        builder, full = self._builder, ir.IntType(32)
        found = self._signed.extreme(">"), self._unsigned.extreme(">")
        if self._width == 16:
            return [builder.shl(builder.zext(one, full), full(16)) for one in found]
        return list(found)


class _Powers:
    """Sums of the first four powers about a shift: in single precision within a group, where each lane of two chains
    adds sixteen numbers, and in double precision over groups.

    Each rounding is by 6e-8 at most, 24 of them for a fourth power, so that no sum is off by more than 1.5e-6 of what
    it adds, and those of weights, which are rounded up as often as down, by about 1e-8.
    """

    def __init__(self, builder: Any, about: Any) -> None:
        self._builder = builder
        self._about = spread(builder, builder.fptrunc(about, ir.FloatType()), SINGLES)
        # two chains each: an addition takes some cycles, and the next one in a chain waits for it
        self._sums = [[Accumulator(builder, 0.0, SINGLES) for _ in range(2)] for _ in range(4)]
        self._totals = [Accumulator(builder, 0.0) for _ in range(4)]

    def take(self, patterns: Sequence[Any]) -> None:
        """Vectors of patterns of single precision."""
        builder = self._builder
        for place, pattern in enumerate(patterns):
            d = builder.fsub(builder.bitcast(pattern, SINGLES), self._about)
            square = builder.fmul(d, d)
            first, second, third, fourth = (chains[place % 2] for chains in self._sums)
            first.add(d)
            second.add_product(d, d)
            third.add_product(square, d)
            fourth.add_product(square, square)

    def end_group(self) -> None:
        """Go on in double precision."""
        for total, chains in zip(self._totals, self._sums, strict=True):
            both = self._builder.fadd(*(one.clear() for one in chains))
            total.add(self._builder.fadd(*doubles(self._builder, [both])))

    def values(self) -> list[Any]:
        return [one.total() for one in self._totals]


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def take_window(
    typing_context: Any,
    patterns: Any,
    groups: Any,
    shift: Any,
    low: Any,
    planes: Any,
    units: Any,
    found: Any,
) -> Any:
    """Sums of the first four powers about `shift` of the first groups of numbers go into `found`, then the largest
    pattern (in single precision) as a signed and as an unsigned integer, then how many `units` are named there.

    Kinds of numbers, with exponents from `low` on, are counted in `planes`. `units` names those that hold others.
    A NaN or an infinity among the numbers makes the first sum one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, count, about, lowest, *held = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        kept, named, into = (
            context.make_array(of)(context, builder, one).data for of, one in zip(signature.args[4:], held, strict=True)
        )
        width = signature.args[0].dtype.bitwidth
        first = builder.bitcast(data, ir.IntType(8).as_pointer())
        counts = KindCounts(builder, builder.bitcast(kept, BYTES.as_pointer()), lowest)
        extremes = _Extremes(builder, width)
        powers = _Powers(builder, about)
        names = cgutils.alloca_once_value(builder, integer(0))
        with cgutils.for_range(builder, count) as loop:
            for unit in range(GROUP // UNIT):
                group, size = builder.mul(loop.index, integer(GROUP * width // 8)), UNIT * width // 8
                places = range(unit * size, (unit + 1) * size, LINE)
                lines = [load_line(builder, first, builder.add(group, integer(place))) for place in places]
                for line in lines:
                    extremes.take(line)
                patterns_of_unit, halves = _unit(builder, lines, width)
                powers.take(patterns_of_unit)
                outside = counts.take(*halves)
                # written in any case, as a branch costs more, and over again unless it is counted
                name = builder.load(names)
                index = builder.add(builder.mul(loop.index, integer(GROUP // UNIT)), integer(unit))
                builder.store(builder.trunc(index, ir.IntType(32)), builder.gep(named, [name]))
                builder.store(builder.add(name, builder.zext(outside, name.type)), names)
            powers.end_group()
            counts.end_group(loop.index)
        counts.end_block(count)
        whole = [*extremes.values(), builder.load(names)]
        values = [*powers.values(), *(builder.uitofp(one, ir.DoubleType()) for one in whole)]
        for place, value in enumerate(values):
            builder.store(value, builder.gep(into, [integer(place)]))
        return context.get_dummy_value()

    none = types.void(patterns, types.intp, types.float64, types.intp, planes, units, found)
    return none, generate if WINDOWS else _nothing


def _nothing(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Stands where the processor cannot, and is not called there."""
    return context.get_dummy_value()


def _unit(builder: Any, lines: Sequence[Any], width: int) -> tuple[list[Any], list[Any]]:
    """Numbers of a unit as four vectors of patterns of single precision, and their upper halves as two."""
    if width == 16:
        return [half for line in lines for half in in_single(builder, line)], [
            cast(builder, line, WORDS) for line in lines
        ]
    lower = integers(0xFFFF)
    pairs = zip(lines[::2], lines[1::2], strict=True)
    halves = [choose(builder, lower, builder.lshr(one, integers(16)), other) for one, other in pairs]
    return list(lines), [cast(builder, half, WORDS) for half in halves]
