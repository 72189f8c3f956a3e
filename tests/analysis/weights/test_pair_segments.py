"""Sums of many pairs at once: those of each pair by itself, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.weights.pair_segments import sums_of_each
from analysis.weights.pair_sums import PairSums, plain_sums
from parsers.checkpoints.tensors import Tensor

#: Usual numbers, those whose squares are no numbers of double precision any more, and what is no number.
NUMBERS = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, -1e300, 1e-300, 5e-324, np.nan, np.inf, -np.inf]),
    st.floats(),
)
PAIRS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12), max_size=8)


def arrays(pairs: list[list[tuple[float, float]]]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    found = [np.array(pair, np.float64).reshape(-1, 2) for pair in pairs]
    return [(pair[:, 0], pair[:, 1]) for pair in found]


def alone(x: NDArray[np.float64], y: NDArray[np.float64]) -> PairSums:
    tensor = Tensor("w", "float64", x.shape, None)
    return plain_sums(x, y, tensor, tensor)


def same(ours: PairSums, slow: PairSums) -> None:
    for key in ("pairs", "changed", "most_changed", "nan_a", "nan_b", "inf_a", "inf_b", "unit"):
        assert getattr(ours, key) == getattr(slow, key), key
    for key in ("aa", "bb", "dd"):
        assert getattr(ours, key) == pytest.approx(getattr(slow, key), rel=1e-12, abs=0), key
    for key, one, other in (("ad", "aa", "dd"), ("ab", "aa", "bb")):  # the terms of these may cancel one another
        size = (getattr(slow, one) * getattr(slow, other)) ** 0.5
        assert getattr(ours, key) == pytest.approx(getattr(slow, key), rel=1e-12, abs=1e-12 * size), key


@given(PAIRS)
def test_sums_of_many_pairs_are_those_of_each_alone(pairs: list[list[tuple[float, float]]]) -> None:
    together = sums_of_each(arrays(pairs))
    assert len(together) == len(pairs)
    for ours, (x, y) in zip(together, arrays(pairs), strict=True):
        same(ours, alone(x, y))


@given(PAIRS, st.integers(0, 7), NUMBERS)
def test_no_pair_changes_what_is_said_of_another(
    pairs: list[list[tuple[float, float]]], place: int, strange: float
) -> None:
    usual = ([1.0, 2.0, 3.0], [1.0, 2.5, -3.0])
    at = min(place, len(pairs))
    among = [*arrays(pairs)[:at], tuple(map(np.array, usual)), (np.array([strange]), np.array([1e300]))]
    ours = sums_of_each([*among, *arrays(pairs)[at:]])[at]
    assert (ours.pairs, ours.changed, ours.most_changed, ours.unit) == (3, 2, 6, 1)
    assert (ours.aa, ours.bb, ours.dd, ours.ad, ours.ab) == (14, 16.25, 36.25, -17, -3)


def test_of_thousands_of_pairs_each_stands_in_its_own_place() -> None:
    rng = np.random.default_rng(5)
    pairs = [(x, x + 0.01 * rng.normal(size=x.shape)) for x in (rng.normal(size=n % 40) for n in range(2000))]
    for ours, (x, y) in zip(sums_of_each(pairs), pairs, strict=True):
        same(ours, alone(x, y))
        assert ours.dd == pytest.approx(sum((q - p) ** 2 for p, q in zip(x.tolist(), y.tolist(), strict=True)))
