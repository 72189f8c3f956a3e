"""Intervals against statsmodels, and against how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.rates import confint_poisson

from benchmarks.faults.score_intervals import mean_of_shares, median_interval, poisson, wilson


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (0, 40), (1, 7), (20, 40), (39, 40), (40, 40), (950, 1000)])
def test_the_interval_of_a_share_is_that_of_statsmodels(hits: int, of: int) -> None:
    assert wilson(hits, of) == pytest.approx(proportion_confint(hits, of, method="wilson"), abs=1e-12)


@pytest.mark.parametrize(("count", "runs"), [(0, 50), (1, 50), (7, 400), (612, 500)])
def test_the_interval_of_a_rate_is_the_exact_one_of_statsmodels(count: int, runs: int) -> None:
    assert poisson(count, runs) == pytest.approx(confint_poisson(count, runs, method="exact-c"), abs=1e-9)


def test_nothing_looked_at_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert poisson(0, 0) == (0.0, math.inf)
    assert mean_of_shares([]) == (0.0, 1.0)
    assert median_interval([0.1] * 5) is None


def test_more_hits_than_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="5 hits of 4"):
        wilson(5, 4)


def test_the_mean_over_one_cell_has_the_interval_of_the_cell() -> None:
    assert mean_of_shares([(9, 12)]) == pytest.approx(wilson(9, 12))
    assert mean_of_shares([(9, 12), (0, 0)]) == pytest.approx(wilson(9, 12))


def test_the_mean_of_perfect_cells_keeps_a_width_that_shrinks_with_their_number() -> None:
    few, many = mean_of_shares([(8, 8)] * 4), mean_of_shares([(8, 8)] * 40)
    assert few[1] == many[1] == 1.0
    assert wilson(8, 8)[0] < few[0] < many[0] < 1.0


@pytest.mark.parametrize("shares", [(0.95, 0.8, 1.0, 0.6), (0.99,) * 10, (0.3, 0.5)])
def test_the_mean_of_shares_is_held_in_about_95_of_100_draws(shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(5)
    drawn = rng.binomial(12, shares, size=(1500, len(shares)))
    limits = np.array([mean_of_shares([(int(hits), 12) for hits in row]) for row in drawn])
    held = np.mean((limits[:, 0] <= np.mean(shares)) & (np.mean(shares) <= limits[:, 1]))
    assert held > 0.935


def test_a_median_is_held_in_about_95_of_100_draws_and_bounded_by_values() -> None:
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(800):
        values = rng.exponential(size=21).tolist()
        low, high = median_interval(values) or (math.nan, math.nan)
        assert {low, high} <= set(values)
        held += low <= math.log(2) <= high
    assert 0.935 < held / 800 < 0.995


def test_the_interval_of_a_median_of_six_is_their_range() -> None:
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)
