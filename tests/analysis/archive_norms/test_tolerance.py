"""Tolerance bounds cover what they promise, against published factors and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.archive_norms.tolerance import FEWEST, fewest_without_a_form, upper_bound


@pytest.mark.parametrize(
    ("n", "coverage", "confidence", "factor"),
    # Hahn and Meeker, Statistical Intervals (1991), table A.12d; the same as Natrella, NBS Handbook 91, table A-7
    [(10, 0.90, 0.95, 2.355), (10, 0.99, 0.95, 3.981), (20, 0.95, 0.95, 2.396), (25, 0.99, 0.95, 3.158)],
)
def test_the_lognormal_bound_has_the_published_factors(
    n: int, coverage: float, confidence: float, factor: float
) -> None:
    logs = np.random.default_rng(n).normal(0, 0.3, n)
    logs = (logs - logs.mean()) / logs.std(ddof=1)
    found = upper_bound(np.exp(logs), coverage, confidence, 1e-9)
    assert found is not None and found.how == "lognormal"
    assert np.log(found.value) == pytest.approx(factor, abs=0.01)


@pytest.mark.parametrize("n", [8, 20, 60])
def test_bounds_of_lognormal_values_cover_their_share_as_often_as_the_confidence_says(n: int) -> None:
    rng = np.random.default_rng(n)
    quantile = np.exp(0.4 * 2.326347874)  # of 99 %
    covered = 0
    for _ in range(400):
        found = upper_bound(np.exp(0.4 * rng.normal(size=n)), 0.99, 0.95, 1e-9)
        covered += found is not None and found.value >= quantile
    assert covered / 400 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)


def test_enough_values_need_no_form() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):  # two kinds of runs, which no lognormal distribution fits
        values = np.where(rng.random(80) < 0.9, rng.uniform(1, 2, 80), rng.uniform(8, 9, 80))
        found = upper_bound(values, 0.95, 0.95, 1e-9)
        assert found is not None and found.how == "order"
        covered += found.value >= 8.5  # the 95 % quantile
    assert covered / 300 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)
    assert fewest_without_a_form(0.95, 0.95) == 59 and fewest_without_a_form(0.99, 0.95) == 299


def test_few_values_equal_values_and_mixtures_promise_no_more_than_they_can() -> None:
    assert upper_bound(np.ones(FEWEST - 1), 0.99, 0.95, 1e-3) is None
    for values in (np.zeros(20), np.ones(20), np.append(np.zeros(15), np.arange(1.0, 6.0))):
        found = upper_bound(values, 0.99, 0.95, 1e-3)
        assert found is not None and found.how == "highest"
        assert found.value == max(values.max(), 1e-3)


def test_the_bound_is_never_below_the_highest_value() -> None:
    values = np.append(np.full(11, 1.0) + np.arange(11) * 1e-3, 50.0)  # the fit of the rest ends far below
    found = upper_bound(values, 0.95, 0.95, 1e-9)
    assert found is not None and found.value >= 50.0
