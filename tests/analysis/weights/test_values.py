from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from analysis.weights.values import dead_of, numbers, numbers_of_patterns, smallest_normal
from parsers.checkpoints.tensors import DTYPES, Tensor

FLOATS = (
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_pattern_of_a_small_float_is_the_number_that_torch_reads(dtype: str) -> None:
    bits = DTYPES[dtype].bits
    patterns = torch.from_numpy(np.arange(1 << bits, dtype=f"u{bits // 8}"))
    theirs = patterns.view(getattr(torch, dtype)).float().double().numpy()
    ours = numbers_of_patterns(dtype)
    np.testing.assert_array_equal(ours, theirs)
    signed = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours[signed]), np.signbit(theirs[signed]))


@pytest.mark.parametrize("dtype", ["float64", "float32", *FLOATS[:-1]])
def test_the_smallest_normal_number_is_that_of_torch(dtype: str) -> None:
    assert smallest_normal(dtype) == torch.finfo(getattr(torch, dtype)).smallest_normal


def test_integers_have_no_subnormal_numbers() -> None:
    assert smallest_normal("int8") == smallest_normal("bool") == smallest_normal("float8_e8m0fnu") == 0


def test_quantised_values_are_what_torch_makes_of_them() -> None:
    real = torch.linspace(-3, 5, 200)
    for kind, name in ((torch.quint8, "quint8"), (torch.qint8, "qint8"), (torch.qint32, "qint32")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch 2.12 says that this type will go
            made = torch.quantize_per_tensor(real, 0.0625, 7, kind)
        tensor = Tensor("w", name, (200,), None, scale=0.0625, zero_point=7)
        np.testing.assert_array_equal(numbers(made.int_repr().numpy(), tensor), made.dequantize().double().numpy())


def test_complex_numbers_become_two_numbers_each() -> None:
    for name, raw in (("complex64", "c8"), ("complex128", "c16")):
        found = numbers(np.array([[1 + 2j, -3j]], raw), Tensor("w", name, (1, 2), None))
        assert found.tolist() == [[[1.0, 2.0], [0.0, -3.0]]]


def test_dead_rows_and_columns_are_those_where_nothing_is_but_zeros_of_either_sign() -> None:
    weights = np.ones((4, 5, 3), "f4")
    weights[1] = -0.0
    weights[:, 2:4] = 0.0
    assert dead_of(weights, Tensor("w", "float32", (4, 5, 3), None)) == (1, 2)
    words = (weights.view("u4") >> 16).astype("u2")
    assert dead_of(words, Tensor("w", "bfloat16", (4, 5, 3), None)) == (1, 2)


def test_minus_zero_of_a_float_without_one_is_no_zero() -> None:
    patterns = np.full((2, 2), 0x80, "u1")
    assert dead_of(patterns, Tensor("w", "float8_e4m3fnuz", (2, 2), None)) == (0, 0)
    assert dead_of(patterns, Tensor("w", "float8_e4m3fn", (2, 2), None)) == (2, 2)


def test_a_quantised_zero_is_the_zero_point() -> None:
    stored = np.array([[5, 5], [5, 9]], "i1")
    assert dead_of(stored, Tensor("w", "qint8", (2, 2), None, scale=0.1, zero_point=5)) == (1, 1)
    assert dead_of(stored - 10, Tensor("w", "qint8", (2, 2), None, scale=0.1, zero_point=-5)) == (1, 1)
