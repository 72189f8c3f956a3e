"""Norms of many tensors at once, against one call for each, whatever stands beside what from step to step."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.watch_norms import SMALL, Norms, measure_norms
from eventstream.watch_numbers import Numbers

_SHAPES = [(), (0,), (1,), (5,), (3, 4), (0, 7), (SMALL,), (SMALL + 1,), (50, 60), (2, 3, 4)]
_TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
_tensors = st.lists(st.tuples(st.sampled_from(_SHAPES), st.sampled_from(_TYPES), st.booleans()), max_size=12)


def made(kinds, seed):
    noise = torch.Generator().manual_seed(seed)
    found = []
    for shape, dtype, turned in kinds:
        tensor = torch.randn(shape, generator=noise).to(dtype)
        found.append(tensor.t() if turned and tensor.ndim == 2 else tensor)
    return found


def slow(tensors):
    """One call for each, in double precision."""
    wide = [t.to(torch.complex128 if t.is_complex() else torch.float64) for t in tensors]
    return {key: float(torch.linalg.vector_norm(t)) for key, t in enumerate(wide) if t.numel()}


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_tensors, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_norms_of_changing_lists_of_tensors_are_those_of_each_tensor(steps, seed):
    norms = Norms()
    for kinds in [*steps, steps[0], steps[0]]:
        tensors, numbers = made(kinds, seed), Numbers()
        norms.measure(numbers, "grad_norm", range(len(tensors)), tensors)
        # Halves are summed in single precision, as wide as that of a float32 gradient.
        assert numbers.known("grad_norm") == pytest.approx(slow(tensors), rel=1e-5)


def test_each_norm_stands_under_the_key_of_its_tensor_when_others_leave():
    norms = Norms()
    tensors = [torch.full((4,), float(n)) for n in range(1, 5)]
    for keys in ([0, 1, 2, 3], [3, 2, 1, 0], [7, 5]):
        numbers = Numbers()
        norms.measure(numbers, "grad_norm", keys, tensors[: len(keys)])
        assert numbers.known("grad_norm") == {key: 2.0 * place for place, key in enumerate(keys, 1)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [8, SMALL + 8])
def test_one_bad_element_spoils_the_norm_of_its_own_tensor_alone(bad, size):
    tensors = [torch.ones(size) for _ in range(3)]
    tensors[1][3] = bad
    numbers = Numbers()
    measure_norms(numbers, "grad_norm", list(enumerate(tensors)))
    found = numbers.known("grad_norm")
    assert not math.isfinite(found[1])
    assert found[0] == found[2] == pytest.approx(math.sqrt(size))


def test_small_double_precision_tensors_whose_squares_overflow_are_infinite_without_a_warning():
    tensors = [torch.full((4,), 1e200, dtype=torch.float64), torch.ones(4, dtype=torch.float64)]
    numbers = Numbers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_norms(numbers, "grad_norm", list(enumerate(tensors)))
    assert numbers.known("grad_norm") == {0: math.inf, 1: 2.0}


def test_nothing_to_measure_is_no_number():
    numbers = Numbers()
    measure_norms(numbers, "grad_norm", [])
    measure_norms(numbers, "grad_norm", [(0, torch.empty(0)), (1, torch.empty(3, 0))])
    assert numbers.known("grad_norm") == {}
    assert numbers.copies() == []
    assert numbers.table() == {}
