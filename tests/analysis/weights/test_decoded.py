"""Elements of types that NumPy lacks, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.weights.decoded import decoded, is_real
from parsers.checkpoints.tensors import DTYPES, Tensor


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name.startswith("float8")])
def test_all_patterns_of_an_8_bit_float_are_what_torch_says(dtype):
    bits = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(bits).view(getattr(torch, dtype)).to(torch.float32).numpy()
    np.testing.assert_array_equal(decoded(bits, Tensor("w", dtype, (256,), None)), expected)


def test_all_patterns_of_bfloat16_are_what_torch_says():
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(decoded(bits, Tensor("w", "bfloat16", (1 << 16,), None)), expected)


def test_a_transposed_part_is_decoded_in_its_own_order():
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    raw = values.view(torch.int16).numpy().view(np.uint16)
    found = decoded(raw.T[1:3], Tensor("w", "bfloat16", (6, 4), None))
    np.testing.assert_array_equal(found, values.float().numpy().T[1:3])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_integers_are_scaled_as_torch_scales_them():
    made = torch.quantize_per_tensor(torch.linspace(-1, 1, 64).reshape(8, 8), 0.02, 7, torch.qint8)
    tensor = Tensor("w", "qint8", (8, 8), None, scale=0.02, zero_point=7)
    np.testing.assert_allclose(decoded(made.int_repr().numpy(), tensor), made.dequantize().numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_that_numpy_has_are_not_copied(dtype):
    raw = np.arange(4, dtype=dtype)
    assert decoded(raw, Tensor("w", dtype, (4,), None)) is raw


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_what_is_no_real_number_is_refused(dtype):
    tensor = Tensor("mask", dtype, (4,), None)
    assert not is_real(tensor)
    with pytest.raises(ValueError, match=f"'mask' of {dtype}"):
        decoded(np.zeros(4, DTYPES[dtype].raw), tensor)
