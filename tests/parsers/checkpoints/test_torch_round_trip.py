"""What torch and pickle write, torch loads the same as this package reads, which runs nothing of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.checkpoints.opening import open_checkpoint
from tests.parsers.checkpoints.torch_files import WAYS, agrees, loaded, saved

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
]
#: Types without storages of their own: torch writes them into its format of before 1.6, and cannot read that.
NEW_TYPES = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.uint64,
    torch.uint32,
    torch.uint16,
]


@st.composite
def tensors(draw: st.DrawFn, types: list[torch.dtype]) -> torch.Tensor:
    """A tensor of any type and shape, as it is made, or a view into a larger storage."""
    dtype, shape = draw(st.sampled_from(types)), draw(st.lists(st.integers(0, 4), max_size=3))
    count = 1
    for length in shape:
        count *= length
    raw = torch.arange(count, dtype=torch.float64).mul(1.5).sub(2)
    value = raw.abs().to(dtype).reshape(shape)
    kind = draw(st.sampled_from(["plain", "turned", "part", "stretched", "parameter"]))
    if kind == "turned" and value.ndim > 1:
        return value.transpose(0, 1)
    if kind == "part" and value.ndim and value.shape[0] > 1:
        return value[1:]
    if kind == "stretched":
        return value.unsqueeze(0).expand(3, *value.shape)
    if kind == "parameter" and dtype in (torch.float32, torch.bfloat16):
        return torch.nn.Parameter(value)
    return value


KEYS = st.text(st.characters(exclude_characters=".#", exclude_categories=["Cs"]), min_size=1, max_size=8)
PLAIN = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text(max_size=20)


def trees(types: list[torch.dtype]) -> st.SearchStrategy[Any]:
    return st.dictionaries(
        KEYS,
        st.recursive(
            tensors(types) | PLAIN,
            lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=4),
            max_leaves=8,
        ),
        max_size=5,
    )


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_nested_values_and_tensors_come_back_as_torch_loads_them(way: str, data: st.DataObject) -> None:
    tree = data.draw(trees(TYPES + NEW_TYPES * (way == "zip")))
    with tempfile.TemporaryDirectory() as folder:
        file = saved(Path(folder) / "a.pt", tree, way)
        with open_checkpoint(file) as checkpoint:
            agrees(checkpoint, loaded(file, way))
            assert not checkpoint.unsafe
