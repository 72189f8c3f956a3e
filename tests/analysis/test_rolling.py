"""Rolling statistics against a slow and obvious version, pandas and hostile numbers, on both paths: NumPy, compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.anomaly import rolling
from analysis.anomaly.rolling import rolling_moments, rolling_order

EDGES = ("centred", "causal", "symmetric")
NAMES = ("q25", "median", "q75", "mad")
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["numpy", "compiled"])
def path(request, monkeypatch):
    monkeypatch.setattr(rolling, "LARGE", 0 if request.param == "compiled" else 10**9)
    monkeypatch.setattr(rolling, "LARGE_WHEN_LOADED", 10**9)
    monkeypatch.setattr(rolling, "_CHUNK", 97)
    return request.param


def bounds(i: int, n: int, window: int, edge: str) -> tuple[int, int]:
    right = window // 2
    if edge == "causal":
        return max(0, i - window + 1), i + 1
    if edge == "symmetric":
        arm = min(right, i, n - 1 - i)
        return i - arm, i + arm + 1
    return max(0, i - (window - 1 - right)), min(n, i + right + 1)


def obvious(values, window, edge, least=1):
    rows = []
    for i in range(len(values)):
        start, stop = bounds(i, len(values), window, edge)
        x = values[start:stop]
        x = x[np.isfinite(x)]
        if len(x) < least:
            rows.append([np.nan] * 6)
            continue
        quartiles = np.quantile(x, [0.25, 0.5, 0.75])
        rows.append([*quartiles, np.median(abs(x - np.median(x))), x.mean(), x.std(ddof=1) if len(x) > 1 else np.nan])
    return np.array(rows).reshape(-1, 6).T


def agree(values, window, edge, least=1):
    slow = obvious(values, window, edge, least)
    order = rolling_order(values, window, edge=edge, least=least)
    for row, name in enumerate(NAMES):
        np.testing.assert_allclose(order[name], slow[row], rtol=1e-12, atol=1e-12)
    mean, std = rolling_moments(values, window, edge=edge, least=least)
    np.testing.assert_allclose(mean, slow[4], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(std, slow[5], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("window", [2, 3, 8, 21, 101, 301])
def test_both_paths_agree_with_the_obvious_version_with_gaps_and_ties(path, edge, window):
    rng = np.random.default_rng(window)
    for n in (0, 1, 2, 5, 120, 333):
        values = rng.normal(size=n).round(1)
        values[rng.random(n) < 0.15] = np.nan
        values[rng.random(n) < 0.02] = np.inf
        agree(values, window, edge)


def test_windows_with_fewer_values_than_asked_for_give_nan(path):
    values = np.r_[np.arange(5.0), np.full(8, np.nan), np.arange(5.0)]
    agree(values, 7, "centred", least=4)


@pytest.mark.parametrize("window", [4, 101])
def test_causal_windows_equal_pandas(path, window):
    values = np.random.default_rng(1).lognormal(size=500)
    theirs = pd.Series(values).rolling(window, min_periods=1)
    ours = rolling_order(values, window, edge="causal")
    for share, name in ((0.25, "q25"), (0.5, "median"), (0.75, "q75")):
        np.testing.assert_allclose(ours[name], theirs.quantile(share), rtol=1e-12)
    mean, std = rolling_moments(values, window, edge="causal", least=1)
    np.testing.assert_allclose(mean, theirs.mean(), rtol=1e-10)
    np.testing.assert_allclose(std, theirs.std(), rtol=1e-8)


def test_centred_windows_of_odd_length_equal_pandas(path):
    values = np.random.default_rng(2).normal(size=400)
    theirs = pd.Series(values).rolling(31, center=True, min_periods=1).median()
    np.testing.assert_allclose(rolling_order(values, 31)["median"], theirs, rtol=1e-12)


def test_no_window_reaches_over_the_boundary_of_a_series(path):
    values = np.random.default_rng(3).normal(size=700)
    offsets = [0, 0, 13, 400, 700]
    joined = rolling_order(values, 51, offsets=offsets)["mad"]
    apart = [rolling_order(values[a:b], 51)["mad"] for a, b in ((0, 13), (13, 400), (400, 700))]
    np.testing.assert_array_equal(joined, np.concatenate(apart))
    mean, _ = rolling_moments(values, 51, offsets=offsets)
    np.testing.assert_allclose(mean[13:400], rolling_moments(values[13:400], 51)[0])


def test_moments_stay_exact_on_a_large_offset(path):
    noise = np.random.default_rng(4).normal(size=5000)
    mean, std = rolling_moments(noise + 1e8, 101)
    exact_mean, exact_std = rolling_moments(noise, 101)
    np.testing.assert_allclose(mean - 1e8, exact_mean, atol=1e-7)
    np.testing.assert_allclose(std, exact_std, rtol=1e-6)


def test_a_huge_value_leaves_no_trace_once_the_window_has_passed_it(path):
    noise = np.random.default_rng(5).normal(size=1000)
    struck = noise.copy()
    struck[500] = 1e150
    apart = np.abs(np.arange(1000) - 500) > 60
    for found, expected in zip(rolling_moments(struck, 101), rolling_moments(noise, 101), strict=True):
        np.testing.assert_allclose(found[apart], expected[apart], rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e307, 1e307) | st.sampled_from([np.nan, np.inf, -np.inf]), max_size=40),
    st.integers(2, 12),
    st.sampled_from(EDGES),
)
def test_any_numbers_give_quantiles_between_the_extremes_of_their_window(values, window, edge):
    data = np.array(values, dtype=float)
    found = rolling_order(data, window, edge=edge)
    for i in range(len(data)):
        start, stop = bounds(i, len(data), window, edge)
        x = data[start:stop][np.isfinite(data[start:stop])]
        for name in ("q25", "median", "q75"):
            if len(x) == 0:
                assert np.isnan(found[name][i])
            else:
                slack = 1e-12 * np.abs(x).max()
                assert x.min() - slack <= found[name][i] <= x.max() + slack


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "at least 2 rows, not 1"),
        ({"window": 5, "edge": "left"}, "one of centred, causal, symmetric, not 'left'"),
        ({"window": 5, "offsets": [0, 9]}, r"rise from 0 to the number of values \(3\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        rolling_moments([1.0, 2.0, 3.0], **options)


def test_an_unknown_statistic_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown statistic 'mode'; known: q25, median, q75, mad"):
        rolling_order([1.0], 3, statistics=("mode",))


def test_short_series_do_not_load_the_compiler():
    code = (
        "import sys, analysis.anomaly.rolling as r;"
        "r.rolling_order([1.0] * 500, 101); r.rolling_moments([1.0] * 500, 101);"
        "print([m for m in ('numba', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kernels_work_where_no_cache_folder_can_be_written(tmp_path):
    """numba caches nothing that has no file to name; the same refusal as for folders that cannot be written."""
    code = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes = []\n"
        "import analysis.anomaly.rolling as r, numpy as np\n"
        "r.LARGE = 0\n"
        "print(r.rolling_order([1.0, 5.0, 2.0], 3)['median'].tolist())\n"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[3.0, 2.0, 3.5]"
