"""The learning rate summed over the steps between saves, against a loop over every step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.weights.allowed_way import _between


@settings(max_examples=200, deadline=None)
@given(
    logged=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1)), min_size=1, max_size=20),
    first=st.integers(-5, 80),
    length=st.integers(1, 80),
)
def test_the_sum_is_that_of_a_loop_over_every_step(logged, first, length):
    logged.sort(key=lambda pair: pair[0])
    steps, values = (np.array(column) for column in zip(*logged, strict=True))
    last_of_each = dict(logged)
    known = sorted(last_of_each)
    slow = sum(np.interp(s, known, [last_of_each[k] for k in known]) for s in range(first + 1, first + length + 1))
    assert _between(steps, values.astype(float), first, first + length) == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize(("first", "last"), [(None, 5), (5, None), (5, 5), (6, 5)])
def test_no_stretch_has_no_sum(first, last):
    assert _between(np.array([0]), np.array([1.0]), first, last) is None
