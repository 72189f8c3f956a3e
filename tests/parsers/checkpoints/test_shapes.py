"""Sizes and strides, held against what NumPy says of real arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.checkpoints.inert_objects import MisuseError
from parsers.checkpoints.progress import epoch_of, step_of
from parsers.checkpoints.shapes import number_of, reach, row_major, size_of

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(shape=SHAPES, order=st.permutations(range(4)))
def test_row_major_is_what_numpy_calls_contiguous(shape: tuple[int, ...], order: list[int]) -> None:
    array = np.zeros(shape).transpose([axis for axis in order if axis < len(shape)])
    strides = tuple(step // 8 for step in array.strides)
    assert row_major(array.shape, strides) == array.flags.c_contiguous


@given(shape=SHAPES, strides=st.lists(st.integers(0, 5), min_size=4, max_size=4), offset=st.integers(0, 9))
def test_reach_is_one_beyond_the_last_element(shape: tuple[int, ...], strides: list[int], offset: int) -> None:
    steps = tuple(strides[: len(shape)])
    places = [offset + sum(at * step for at, step in zip(index, steps, strict=True)) for index in np.ndindex(*shape)]
    assert reach(shape, steps, offset) == max(places, default=-1) + 1


@pytest.mark.parametrize("value", [None, "12", -1, 1 << 60, True, 2.0])
def test_counts_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(MisuseError):
        number_of(value)


@pytest.mark.parametrize("value", [None, 3, [1] * 65, [-1], [1 << 30, 1 << 30], ["a"], [1 << 57, 0, 2]])
def test_shapes_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(MisuseError):
        size_of(value)


@pytest.mark.parametrize(
    ("values", "step", "epoch"),
    [
        ({"global_step": 5, "step": 9, "epoch": 2.5}, 5, 2.5),
        ({"meta.iter": 100, "meta.epoch": 3}, 100, 3),
        ({"global_step": float("nan")}, None, None),
        ({"global_step": -1, "iteration": 7}, 7, None),
        ({"global_step": True}, None, None),
        ({"lr": 0.1}, None, None),
    ],
)
def test_the_step_is_the_first_number_that_can_be_one(
    values: dict[str, float], step: int | None, epoch: float | None
) -> None:
    assert (step_of(values), epoch_of(values)) == (step, epoch)
