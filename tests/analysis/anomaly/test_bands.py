"""The local bands of residuals are those that sorting every window gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.anomaly import residuals
from analysis.anomaly.residuals import MAD_UNIT, local_bands


@given(
    rows=st.integers(64, 90),
    width=st.integers(1, 40),
    levels=st.sampled_from([0, 2, 50]),
    holes=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=80, deadline=None)
def test_the_spread_of_many_windows_is_that_of_each_of_them_sorted(
    rows: int, width: int, levels: int, holes: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, levels, (rows, width)).astype(float) if levels else rng.normal(size=(rows, width))
    windows[rng.random(windows.shape) < holes] = np.nan
    windows[:, 0] = np.where(np.isnan(windows[:, 0]), 1.0, windows[:, 0])
    found = residuals._summaries(windows, "mad")
    for row, (centre, _, unit) in zip(windows, found.T, strict=True):
        seen = row[~np.isnan(row)]
        apart = np.abs(seen - np.median(seen))
        usual = MAD_UNIT * np.median(apart) or np.quantile(apart, 0.9) / 1.6448536269514722
        assert centre == pytest.approx(np.median(seen)) and unit == pytest.approx(usual)


@pytest.mark.parametrize("odd", [np.inf, -np.inf, 1.7e308, -1.7e308])
def test_numbers_near_the_largest_float_leave_the_spread_of_the_other_windows_alone(odd: float) -> None:
    windows = np.random.default_rng(0).normal(size=(100, 9))
    plain = residuals._summaries(windows, "mad")
    windows[3, :2] = odd
    with np.errstate(over="ignore", invalid="ignore"):
        found = residuals._summaries(windows, "mad")
    assert np.array_equal(np.delete(found, 3, axis=1), np.delete(plain, 3, axis=1))
    assert found[2, 3] < 10


def test_a_spread_of_nothing_but_holes_is_unknown() -> None:
    residual = np.full(5000, np.nan)
    residual[:2000] = np.random.default_rng(1).normal(size=2000)
    bands = local_bands(residual, "mad", 20)
    assert np.isfinite(bands.unit[:1900]).all() and np.isnan(bands.unit[2100:]).all()
