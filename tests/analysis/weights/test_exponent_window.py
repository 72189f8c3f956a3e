"""Numbers whose exponents lie close together are counted by vectors of bits: nothing may be lost where they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.weights.bit_planes import GROUP, MOST_BLOCKS, MOST_GROUPS, planes_of_bits, window_of
from analysis.weights.exponent_pairs import table_of_pairs
from analysis.weights.exponent_window import WINDOWS
from analysis.weights.lanes import KINDS
from analysis.weights.single_kernels import sweep_single
from analysis.weights.sweeps import moments_of_part
from parsers.checkpoints.tensors import Tensor

BLOCK = MOST_GROUPS * GROUP
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
#: Rows of the planes behind which there are notes of a block only.
CARRIES = 64
#: By what each of sixteen additions in single precision, and each product before it, may be off at the worst; and what
#: is left of it where it goes up as often as down.
WORST, USUAL = 24 * 2.0**-24, 5e-8


def patterns_of(x: NDArray[Any], dtype: str) -> NDArray[Any]:
    bits = np.asarray(x, np.float32).view(np.uint32)
    return bits if dtype == "float32" else (bits >> 16).astype(np.uint16)


def wide(patterns: NDArray[Any]) -> NDArray[np.float32]:
    return (patterns.astype(np.uint32) << np.uint32(32 - 8 * patterns.itemsize)).view(np.float32)


class Swept:
    """What a sweep finds: counts by sign and exponent, and whether it used vectors of bits at all."""

    def __init__(self, patterns: NDArray[Any]) -> None:
        self.counts, pairs, planes = np.zeros(KINDS, np.uint32), table_of_pairs(), planes_of_bits()
        self.totals, self.extremes = np.zeros(8), np.array([np.inf, -np.inf])
        sweep_single(patterns, self.counts, pairs, planes, self.totals, self.extremes)
        assert not pairs[: KINDS * KINDS].any() and not planes[:CARRIES].any(), "all is left as it was"
        self.windowed = planes[CARRIES:].any()


def agrees(patterns: NDArray[Any], close: float = WORST) -> Swept:
    """Sweep, and compare with NumPy in extended precision; sums in the unit of the largest number, for its range."""
    swept, x = Swept(patterns), wide(patterns)
    kinds = np.bincount(x.view(np.uint32) >> 23, minlength=KINDS)
    assert swept.counts.tolist() == kinds.tolist()
    finite = x[np.isfinite(x)].astype(np.longdouble)
    assert swept.totals[0] == len(finite)
    if len(finite):
        assert swept.extremes.tolist() == [finite.min(), finite.max()]
        mean = finite.mean()
        d = finite - mean
        d2 = d * d
        sizes = float(abs(d).sum()), float(d2.sum()), float((d2 * abs(d)).sum()), float((d2 * d2).sum())
        deviation = (sizes[1] / len(d)) ** 0.5
        assert swept.totals[1] == pytest.approx(float(mean), abs=close * deviation, rel=1e-13)
        sums = sizes[1], float((d2 * d).sum()), sizes[3]
        for power, one in enumerate(sums, 2):
            # what is left of a mean far from zero, in double precision
            room = 1e-13 * power * abs(float(mean)) * sizes[power - 2]
            assert swept.totals[power] == pytest.approx(one, abs=close * sizes[power - 1] + room)
    return swept


@DTYPES
@pytest.mark.parametrize("length", [1, 63, 511, 512, 513, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 700])
def test_all_kinds_of_usual_weights_are_counted_whatever_their_number(dtype: str, length: int) -> None:
    weights = np.random.default_rng(length).normal(0, 0.02, length)
    swept = agrees(patterns_of(weights, dtype), USUAL if length >= BLOCK else WORST)
    assert swept.windowed == WINDOWS or not 4096 <= length <= BLOCK  # the last block leaves too few notes


def test_more_blocks_than_a_byte_can_count_lose_nothing() -> None:
    length = (MOST_BLOCKS + 3) * BLOCK
    some = patterns_of(np.random.default_rng(0).normal(size=BLOCK), "bfloat16")
    for block in (some, np.full(BLOCK, some[0])):  # bits of all planes, and all bits of one
        assert Swept(np.tile(block, length // BLOCK)).counts.tolist() == [
            count * (length // BLOCK) for count in np.bincount(block >> 7, minlength=KINDS).tolist()
        ]


@DTYPES
def test_each_exponent_that_lies_astray_is_found(dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=60 * BLOCK).astype("f4")
    # one number in two thousand, of each sign and exponent, the largest and smallest ones too
    every = np.arange(KINDS, dtype=np.uint32) << 23 | 0x00410000
    at = np.random.default_rng(2).choice(len(x) - 2000, KINDS, replace=False) + 2000
    finite = at[(every >> 23) % 256 < 110]
    x.view(np.uint32)[finite] = every[(every >> 23) % 256 < 110]
    assert agrees(patterns_of(x, dtype)).windowed == WINDOWS
    x.view(np.uint32)[at] = every
    agrees(patterns_of(x, dtype))


@DTYPES
@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e30, 3e38])
@pytest.mark.parametrize("place", [0, 700, BLOCK + 5, 3 * BLOCK + 3])
def test_a_single_odd_number_is_seen(dtype: str, value: float, place: int) -> None:
    x = np.random.default_rng(3).normal(0, 0.1, 3 * BLOCK + 9)
    x[place] = value
    agrees(patterns_of(x, dtype))


@DTYPES
@pytest.mark.parametrize("scale", [2.0**e for e in (-126, -70, -61, -59, -30, 0, 19, 21, 31, 60, 115)])
@pytest.mark.parametrize("mean", [0, 0.2, 1, -30, 1000])
def test_sums_are_right_wherever_numbers_lie(dtype: str, scale: float, mean: float) -> None:
    x = (np.random.default_rng(4).normal(mean, 1, 3 * BLOCK + 77).astype("f4") * np.float32(scale)).astype("f4")
    agrees(patterns_of(x, dtype))


@DTYPES
@pytest.mark.parametrize("first", [0.0, 8.0, 1e3])
@pytest.mark.parametrize(("mean", "spread"), [(1, 0.05), (1 / 3, 0.0), (0.1, 1e-4)])
def test_a_block_that_does_not_begin_as_it_goes_on_loses_no_digits(
    dtype: str, first: float, mean: float, spread: float
) -> None:
    x = np.random.default_rng(9).normal(mean, spread, (6, BLOCK))
    x[:, :64] = first  # outlier channels, or padding
    agrees(patterns_of(x.ravel(), dtype), 3e-7)


@pytest.mark.parametrize("mean", [0.5, 1.0, -1.003, 7.0])
def test_differences_of_bfloat16_from_their_mean_are_exact(mean: float) -> None:
    x = np.random.default_rng(10).normal(mean, 0.01, 5 * BLOCK)
    agrees(patterns_of(x, "bfloat16"), 1e-12)


@DTYPES
@pytest.mark.parametrize("name", ["positive", "negative", "with -0", "zeros", "constant", "two values", "sorted"])
def test_least_and_largest_are_found_whatever_the_signs(dtype: str, name: str) -> None:
    rng = np.random.default_rng(5)
    x = {
        "positive": 1 + 0.01 * rng.normal(size=BLOCK),
        "negative": -1 + 0.01 * rng.normal(size=BLOCK),
        "with -0": np.where(np.arange(BLOCK) == 999, -0.0, 1 + rng.random(BLOCK)),
        "zeros": np.where(np.arange(BLOCK) % 2, -0.0, 0.0),
        "constant": np.full(BLOCK, 0.1),
        "two values": np.where(rng.random(BLOCK) < 0.5, 0.1, -0.1),
        "sorted": np.sort(rng.normal(size=3 * BLOCK)),
    }[name]
    agrees(patterns_of(x, dtype))


@DTYPES
def test_exponents_that_come_to_lie_apart_change_how_they_are_counted(dtype: str) -> None:
    rng = np.random.default_rng(6)
    near, far = rng.normal(size=12 * BLOCK), np.exp(rng.normal(0, 9, 12 * BLOCK)) * rng.choice([-1, 1], 12 * BLOCK)
    for parts in (
        (near, far, near),
        (far, near, 1e-3 * near),
        (near, 1e-4 * near),
        (near * (rng.random() < 0.3), near),
    ):
        agrees(patterns_of(np.concatenate(parts), dtype))
    agrees(patterns_of(np.concatenate([far[:BLOCK], near[:20]]), dtype))  # pairs that are not the last


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.uint16, np.uint32]),
    st.integers(0, 240),
    st.integers(1, 19),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_any_patterns_are_counted(kind: Any, lowest: int, width: int, seed: int, one_sign: bool) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 3 * BLOCK))
    exponents = np.minimum(lowest + rng.integers(0, width, length), 254)
    signs = 0 if one_sign else rng.integers(0, 2, length) << 31
    bits = (signs | exponents << 23 | rng.integers(0, 1 << 23, length)).astype(np.uint32)
    agrees(bits if kind is np.uint32 else (bits >> 16).astype(np.uint16))


def test_a_window_lies_where_the_numbers_are_and_nowhere_else() -> None:
    draw = np.random.default_rng(7)
    for size in (2.0**-27, 1.0, 2.0**19):
        weights = patterns_of(draw.normal(0, size, 5000), "float32")
        low = window_of(weights)
        inside = np.isin((weights >> 23) & 255, np.arange(low, low + 16))
        assert inside.mean() > 0.999
    assert window_of(patterns_of(np.exp(draw.normal(0, 9, 5000)), "float32")) == -1
    assert window_of(patterns_of(draw.normal(size=5000) * (draw.random(5000) < 0.5), "float32")) == -1
    assert window_of(patterns_of(np.zeros(5000), "bfloat16")) == 0


def test_a_processor_without_wide_vectors_finds_the_same() -> None:
    code = """
import numpy as np
from analysis.weights.exponent_window import WINDOWS
from analysis.weights.sweeps import moments_of_part
from parsers.checkpoints.tensors import Tensor
assert not WINDOWS
words = (np.random.default_rng(8).normal(size=40_000).astype("f4").view("u4") >> 16).astype("u2")
found = moments_of_part(words, Tensor("w", "bfloat16", words.shape, None))
print([found.average, found.deviation, found.kurtosis, found.minimum, found.maximum, *found.histogram.tolist()])
"""
    narrow = {**os.environ, "NUMBA_ENABLE_AVX": "0"}
    out = subprocess.run([sys.executable, "-c", code], env=narrow, capture_output=True, text=True, check=True).stdout
    words = patterns_of(np.random.default_rng(8).normal(size=40_000), "bfloat16")
    found = moments_of_part(words, Tensor("w", "bfloat16", words.shape, None))
    exact = [found.minimum, found.maximum, *found.histogram.tolist()]
    average, deviation, kurtosis, *rest = (float(text) for text in out.strip("[]\n").split(","))
    assert rest == exact
    assert (found.average, found.deviation) == pytest.approx((average, deviation), rel=USUAL, abs=USUAL * deviation)
    assert found.kurtosis == pytest.approx(kurtosis, abs=4 * USUAL)
