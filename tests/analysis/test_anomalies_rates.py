"""Counted rates of `anomalies` by default: healthy runs stay silent, spikes that can be seen are found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.anomalies import anomalies
from benchmarks.training_curves import CURVES, NOISES, curve, noise, run_of

SIGMAS = (0.01, 0.05, 0.1, 0.2, 0.3)


def alarms(n: int, seeds: range) -> tuple[int, int]:
    """Runs with a warning or worse, and runs looked at, over every curve, noise and noise level."""
    wrong = total = 0
    for kind, sort, sigma, seed in itertools.product(CURVES, NOISES, SIGMAS, seeds):
        rng = np.random.default_rng([n, seed, int(1000 * sigma)])
        wrong += anomalies(run_of({"loss": curve(kind, n) * noise(sort, sigma, n, rng)})).status != "healthy"
        total += 1
    return wrong, total


@pytest.mark.parametrize(("n", "seeds"), [(60, range(3)), (300, range(3)), (2000, range(1))])
def test_healthy_runs_are_silent_at_every_length_and_noise(n, seeds):
    wrong, total = alarms(n, seeds)
    assert total >= 175
    assert wrong <= 0.02 * total


def test_a_long_healthy_run_is_silent():
    for sigma in (0.02, 0.2):
        loss = curve("power", 250_000) * noise("heavy", sigma, 250_000, np.random.default_rng(5))
        assert anomalies(run_of({"loss": loss})).status == "healthy"


def hits(n: int, sigma: float, factor: float, rows: int, runs: int) -> float:
    found = 0
    for seed in range(runs):
        rng = np.random.default_rng([seed, n])
        loss = curve(("exponential", "power", "cosine")[seed % 3], n) * noise("lognormal", sigma, n, rng)
        place = int(rng.integers(n // 5, n - 30))
        loss[place : place + rows] *= factor
        result = anomalies(run_of({"loss": loss}))
        found += any(
            f.kind == "loss-spike" and f.first_step - 5 <= place + rows - 1 and place <= f.last_step + 5
            for f in result.findings
        )
    return found / runs


@pytest.mark.parametrize("n", [60, 300, 2000, 20_000])
def test_a_twofold_step_is_found_where_it_is_beyond_ten_spreads(n):
    assert hits(n, 0.05, 2.0, 1, 20) >= 0.95


@pytest.mark.parametrize("n", [300, 2000])
def test_a_small_spike_is_found_where_the_noise_is_small(n):
    assert hits(n, 0.02, 1.3, 1, 20) >= 0.9


@pytest.mark.parametrize("sigma", [0.05, 0.15, 0.3])
def test_a_spike_of_twenty_steps_is_found_in_noise_that_hides_each_of_them(sigma):
    assert hits(2000, sigma, 2.0, 20, 20) >= 0.9
