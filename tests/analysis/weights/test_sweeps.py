from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.weights import sweeps
from analysis.weights.in_order import Job, in_order, most_held
from analysis.weights.moments import Moments
from analysis.weights.pair_sums import PairSums, compiled_sums, plain_sums
from analysis.weights.segments import moments_of_each
from analysis.weights.sweeps import moments_of_part
from analysis.weights.values import numbers, smallest_normal
from parsers.checkpoints.tensors import DTYPES, Tensor

#: Lengths beside the sizes of blocks, pilots and unrolled loops.
LENGTHS = st.one_of(
    st.integers(1, 40),
    st.sampled_from([63, 64, 65, 255, 257, 4095, 4096, 4097, 8193, 12_289, 16_383, 16_384, 16_385, 32_801]),
)
TYPES = st.sampled_from(
    ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "int8", "int16", "int32", "bool"]
)


def stored(dtype: str, length: int, seed: int, hostile: bool) -> NDArray[Any]:
    """Random patterns, which are of all kinds for floats, or numbers of usual sizes with some zeros."""
    rng = np.random.default_rng(seed)
    raw = np.dtype(DTYPES[dtype].raw)
    if dtype == "bool":
        return rng.integers(0, 2, length).astype("u1")
    if hostile or (raw.kind in "iu" and dtype != "bfloat16"):
        return np.frombuffer(rng.bytes(length * raw.itemsize), raw)
    drawn = (3 + rng.normal(size=length)) * rng.choice([0.0, 1e-3, 1.0], length)
    return (drawn.astype("f4").view("u4") >> 16).astype("u2") if dtype == "bfloat16" else drawn.astype(raw)


def same_moments(ours: Moments, slow: Moments) -> None:
    for key in ("finite", "nan", "inf", "subnormal", "minimum", "maximum"):
        assert getattr(ours, key) == getattr(slow, key), key
    assert ours.histogram.tolist() == slow.histogram.tolist()
    for key in ("average", "deviation", "norm", "kurtosis"):
        a, b = getattr(ours, key), getattr(slow, key)
        assert (a is None) == (b is None), key
        if a is not None:
            size = max(abs(slow.minimum), abs(slow.maximum))
            assert a == pytest.approx(b, rel=1e-9, abs=1e-9 if key == "kurtosis" else 1e-13 * size), key


@settings(max_examples=120, deadline=None)
@given(TYPES, LENGTHS, st.integers(0, 2**31), st.booleans())
def test_compiled_sweeps_say_what_numpy_says(dtype: str, length: int, seed: int, hostile: bool) -> None:
    raw = stored(dtype, length, seed, hostile)
    tensor = Tensor("w", dtype, (length,), None)
    slow = moments_of_each([numbers(raw, tensor)], [smallest_normal(dtype)])[0]
    same_moments(moments_of_part(raw, tensor), slow)


@pytest.mark.parametrize("mean", [0.0, 0.2, -0.3, 0.4, 5.0, -100.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_of_numbers_far_apart_lose_nothing_wherever_the_mean_lies(dtype: str, mean: float) -> None:
    drawn = (np.random.default_rng(0).normal(size=100_003) + mean).astype("f4")
    drawn[::7] *= np.float32(1e-6)  # exponents are counted in pairs, and sums are in double precision
    raw = (drawn.view("u4") >> 16).astype("u2") if dtype == "bfloat16" else drawn
    tensor = Tensor("w", dtype, drawn.shape, None)
    x = numbers(raw, tensor).astype(np.longdouble)
    found = moments_of_part(raw, tensor)
    d = x - x.mean()
    assert found.average == pytest.approx(float(x.mean()), rel=1e-13, abs=1e-14)
    assert found.deviation == pytest.approx(float(np.sqrt((d**2).mean())), rel=1e-13)
    assert found.kurtosis == pytest.approx(float((d**4).mean() / (d**2).mean() ** 2) - 3, rel=1e-11, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["float16", "bfloat16", "int16", "uint16"]), LENGTHS, st.integers(0, 2**31), st.integers(0, 5))
def test_counted_words_say_what_numpy_says_wherever_they_begin(dtype: str, length: int, seed: int, lead: int) -> None:
    raw = stored(dtype, length + lead, seed, True)[lead:]
    tensor = Tensor("w", dtype, (length,), None)
    slow = moments_of_each([numbers(raw, tensor)], [smallest_normal(dtype)])[0]
    same_moments(sweeps._counted(raw, tensor), slow)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(width=32), max_size=9), min_size=1, max_size=6))
def test_moments_of_parts_add_up_to_those_of_the_whole(parts: list[list[float]]) -> None:
    arrays = [np.array(part, dtype=np.float64) for part in parts]
    joined = sum(moments_of_each(arrays, [2.0**-126] * len(arrays)), Moments())
    whole = moments_of_each([np.concatenate(arrays)], [2.0**-126])[0]
    if whole.finite and whole.deviation and whole.norm and whole.deviation < 1e-6 * whole.norm:
        return  # nearly constant: what is left of the fourth powers is rounding
    same_moments(joined, whole)


def same_sums(ours: PairSums, slow: PairSums) -> None:
    for key in ("pairs", "changed", "nan_a", "nan_b", "inf_a", "inf_b", "most_changed"):
        assert getattr(ours, key) == getattr(slow, key), key
    for of in "abd":
        assert ours.norm(of) == pytest.approx(slow.norm(of), rel=1e-10)
    for key in ("update_ratio", "cosine"):
        a, b = getattr(ours, key), getattr(slow, key)
        assert (a is None) == (b is None), key
        assert a is None or a == pytest.approx(b, rel=1e-9, abs=1e-12), key


@settings(max_examples=120, deadline=None)
@given(TYPES, LENGTHS, st.integers(0, 2**31), st.booleans(), st.sampled_from([0.0, 0.01, 1.0]))
def test_compiled_pairs_say_what_numpy_says(dtype: str, length: int, seed: int, hostile: bool, changed: float) -> None:
    a, b = stored(dtype, length, seed, hostile), stored(dtype, length, seed + 1, hostile)
    b = np.where(np.random.default_rng(seed).random(length) < changed, b, a)
    tensor = Tensor("w", dtype, (length,), None)
    same_sums(compiled_sums(a, b, tensor, tensor), plain_sums(a, b, tensor, tensor))


@pytest.mark.parametrize(("one", "other"), [("float32", "bfloat16"), ("float64", "float32"), ("float16", "float32")])
def test_compiled_pairs_of_two_types_say_what_numpy_says(one: str, other: str) -> None:
    a, b = stored(one, 5001, 1, False), stored(other, 5001, 1, False)
    tensors = Tensor("w", one, (5001,), None), Tensor("w", other, (5001,), None)
    same_sums(compiled_sums(a, b, *tensors), plain_sums(a, b, *tensors))


def test_jobs_come_back_in_order_and_no_more_is_open_than_allowed() -> None:
    lock, held, most = threading.Lock(), [0], [0]

    def opened(size: int) -> list[Callable[[], int]]:
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])
        return [partial(int, size), partial(int, -size)]

    sizes = [5, 1, 9, 3, 3, 3, 10, 2]
    back = []
    for owner, found in in_order((Job(size, size, partial(opened, size)) for size in sizes), 10):
        held[0] -= owner
        assert found == [owner, -owner]
        back.append(owner)
    assert back == sizes and most[0] <= 10


def test_a_job_that_is_larger_than_allowed_runs_alone() -> None:
    jobs = [Job(name, size, lambda: [lambda: 1]) for name, size in (("a", 3), ("b", 30), ("c", 3))]
    assert [owner for owner, _ in in_order(jobs, 10)] == ["a", "b", "c"]


def test_beside_the_largest_tensor_the_next_may_be_open_if_it_is_not_huge() -> None:
    assert most_held([]) == most_held([5])
    assert most_held([64 << 20, 5]) == 128 << 20
    assert 1 << 40 <= most_held([1 << 40]) <= 1.01 * (1 << 40)


def test_what_a_call_raises_comes_out() -> None:
    def broken() -> int:
        raise ValueError("no number")

    with pytest.raises(ValueError, match="no number"):
        list(in_order([Job("a", 1, lambda: [broken])], 10))
