"""The exponent of a power law in the tail of values."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.weights.power_law import PowerLaw, fit_power_law

with warnings.catch_warnings():
    import powerlaw


def obvious(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Every candidate in turn, all of its tail: exponent, x_min and distance."""
    x = np.sort(values)
    best = (np.inf, np.inf, np.inf)
    for i in range(len(x) - 1):
        tail = x[i:]
        n = len(tail)
        alpha = 1 + n / np.log(tail / tail[0]).sum()
        distance = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(n) / n).max()
        if distance < best[2]:
            best = (alpha, tail[0], distance)
    return best


def drawn(alpha: float, n: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).pareto(alpha - 1, n) + 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(20, 400),
    kind=st.sampled_from(["pareto", "lognormal", "uniform", "wishart"]),
)
def test_the_search_finds_what_a_search_of_every_candidate_finds(seed, n, kind):
    rng = np.random.default_rng(seed)
    values = {
        "pareto": lambda: rng.pareto(2.0, n) + 0.5,
        "lognormal": lambda: rng.lognormal(size=n),
        "uniform": lambda: rng.uniform(0.1, 1.0, n),
        "wishart": lambda: np.linalg.svd(rng.standard_normal((n, n + 7)), compute_uv=False) ** 2,
    }[kind]()
    alpha, x_min, distance = obvious(values)
    fit = fit_power_law(values)
    assert fit is not None
    assert (fit.alpha, fit.x_min, fit.distance) == pytest.approx((alpha, x_min, distance), rel=1e-7)
    assert fit.tail == np.count_nonzero(values >= x_min)


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_a_planted_exponent_is_found_within_its_error(alpha):
    fits = [fit_power_law(drawn(alpha, 3000, seed)) for seed in range(20)]
    errors = np.array([(fit.alpha - alpha) / fit.error for fit in fits if fit])
    assert len(errors) == 20
    # the choice of x_min widens the spread beyond the error of a fixed one, which is one
    assert np.abs(errors).max() < 4 and abs(np.median(errors)) < 1


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_agrees_with_the_powerlaw_package(seed):
    body, tail = np.random.default_rng(seed).uniform(0.2, 1, 300), drawn(2.6, 300, seed)
    values = np.concatenate([body, tail])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = powerlaw.Fit(values, discrete=False, verbose=0)
    fit = fit_power_law(values)
    assert fit is not None
    # the package measures the distance at both ends of each step, so that it may choose a neighbouring tail
    assert fit.alpha == pytest.approx(theirs.power_law.alpha, abs=0.1)


def test_the_exponent_does_not_depend_on_the_unit_of_the_values():
    values = drawn(3.0, 500, 1)
    one, other = fit_power_law(values), fit_power_law(values * 1e-6)
    assert one is not None and other is not None
    assert other.alpha == pytest.approx(one.alpha, rel=1e-9)
    assert other.x_min == pytest.approx(one.x_min * 1e-6, rel=1e-9)


@pytest.mark.parametrize(
    "values", [[], [2.0], [3.0] * 50, (1 + 1e-7 * np.arange(64)).tolist()], ids=["none", "one", "same", "but rounding"]
)
def test_there_is_no_tail_in_values_that_are_few_or_all_the_same(values):
    assert fit_power_law(np.array(values)) is None


def test_repeated_values_at_the_top_are_no_tail_of_their_own():
    fit = fit_power_law(np.concatenate([drawn(2.5, 200, 0), np.full(30, 500.0)]))
    assert isinstance(fit, PowerLaw)
    assert np.isfinite([fit.alpha, fit.distance, fit.error]).all() and fit.x_min < 500


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_values_that_no_power_law_has_are_refused(wrong):
    with pytest.raises(ValueError, match="finite and positive"):
        fit_power_law(np.array([1.0, 2.0, wrong, 4.0]))
