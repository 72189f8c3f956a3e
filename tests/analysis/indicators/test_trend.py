"""The trend of the loss: Theil and Sen's slope beside SciPy's, what it withstands, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import theilslopes

from analysis.indicators.trend import late_trend, theil_sen

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(st.integers(0, 50), NUMBERS), min_size=3, max_size=40))
def test_slope_and_interval_are_those_of_scipy(points: list[tuple[int, float]]) -> None:
    x, y = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    if len(set(x)) < 2:
        with pytest.raises(ValueError, match="there is no slope"):
            theil_sen(x, y)
        return
    with np.errstate(invalid="ignore"):  # SciPy takes the root of a variance that so many ties make negative
        ours, theirs = theil_sen(x, y), theilslopes(y, x, alpha=0.95)
    assert ours.slope == pytest.approx(theirs.slope, rel=1e-9, abs=1e-9)
    if np.isfinite([theirs.low_slope, theirs.high_slope]).all():
        assert (ours.low, ours.high) == pytest.approx((theirs.low_slope, theirs.high_slope), rel=1e-9, abs=1e-9)


def test_outliers_do_not_turn_the_slope() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(500.0)
    y = 3 - 0.002 * x + 0.02 * rng.normal(size=500)
    y[rng.integers(0, 500, 40)] *= 20
    found = late_trend(x, y)
    assert found is not None and found.slope == pytest.approx(-0.2 / 2.1, rel=0.3)
    assert found.low < found.slope < found.high < 0


@pytest.mark.parametrize("n", [100, 1000, 20_000])
def test_the_interval_covers_a_flat_loss_as_promised_at_every_length(n: int) -> None:
    covered = 0
    for seed in range(200):
        found = late_trend(np.arange(float(n)), 1 + 0.1 * np.random.default_rng(seed).normal(size=n))
        covered += found is not None and found.low <= 0 <= found.high
    assert 180 <= covered <= 200, "95 % of 200, give or take"


def test_the_unit_is_a_share_of_the_level_whatever_the_steps() -> None:
    y = np.linspace(2.0, 1.0, 200)
    slopes = [late_trend(x, factor * y) for x in (np.arange(200.0), 1e6 + 500 * np.arange(200.0)) for factor in (1, 50)]
    assert [round(one.slope, 6) for one in slopes if one is not None] == [round(slopes[0].slope, 6)] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "y",
    [[], [1.0], [1.0] * 7, [np.nan] * 50, [0.0] * 50, [np.inf] * 50],
    ids=["empty", "one", "seven", "NaN", "zero", "infinite"],
)
def test_without_a_trend_there_is_none(y: list[float]) -> None:
    values = np.array(y, dtype=np.float64)
    assert late_trend(np.arange(float(len(values))), values) is None
    assert late_trend(np.full(len(values), 5.0), np.ones(len(values))) is None


def test_what_is_not_finite_is_left_out() -> None:
    x, y = np.arange(200.0), np.linspace(2.0, 1.0, 200)
    holed = np.where(np.arange(200) % 7 == 0, np.nan, y)
    full, left = late_trend(x, y), late_trend(x, holed)
    assert full is not None and left is not None and left.slope == pytest.approx(full.slope, rel=0.1)


def test_unlike_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        theil_sen(np.arange(3.0), np.arange(2.0))
