"""Lasting changes of noise: found where they begin, and nothing where level, age or learning rate explain them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.settling.spread import FEWEST, spread_shift
from benchmarks.training_curves import CURVES, NOISES, curve, noise


@pytest.mark.parametrize(("n", "seeds"), [(FEWEST, 3), (400, 3), (3000, 1), (30_000, 1)])
def test_noise_that_stays_has_no_shift_at_any_length(n, seeds):
    wrong = total = 0
    for kind, sort, sigma, seed in itertools.product(CURVES, NOISES, (0.01, 0.1, 0.3), range(seeds)):
        rng = np.random.default_rng([n, seed, int(1e3 * sigma), NOISES.index(sort)])
        wrong += spread_shift(np.log(curve(kind, n) * noise(sort, sigma, n, rng))) is not None
        total += 1
    assert total >= 105 and wrong <= 0.01 * total


@pytest.mark.parametrize(("n", "factor"), [(500, 5), (1000, 4), (3000, 2.5), (50_000, 2)])
@pytest.mark.parametrize("quieter", [False, True])
def test_planted_shifts_are_found_at_their_row(n, factor, quieter):
    off, factors = [], []
    for seed in range(8):
        rng = np.random.default_rng([n, seed])
        row = int(n * (0.35 + 0.3 * rng.random()))
        spread = np.where(np.arange(n) < row, 1.0, 1 / factor if quieter else factor) * (0.1 if quieter else 0.02)
        found = spread_shift(np.log(curve(CURVES[seed % 5], n)) + spread * np.log(noise("lognormal", 1.0, n, rng)))
        if found is not None and (found.after < found.before) == quieter:
            off.append(abs(found.row - row) / n)
            factors.append(found.factor)
    assert len(off) >= 6 and np.median(off) <= 0.01
    assert 0.7 * factor < np.median(factors) < 1.4 * factor


def test_noise_that_grows_little_by_little_has_no_shift():
    n = 2000
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert spread_shift(0.01 * np.exp(np.linspace(0, 3, n)) * rng.normal(size=n)) is None


@pytest.mark.parametrize(("n", "factor"), [(300, 6.0), (400, 5.0), (600, 4.0), (2000, 3.0)])
def test_a_step_of_noise_that_grows_little_by_little_as_well_is_found_where_it_is(n, factor):
    """As that of nearly every loss does, while its level falls."""
    off = []
    for seed in range(12):
        rng = np.random.default_rng([n, seed])
        row, age = int(n * (0.4 + 0.3 * rng.random())), np.arange(n) / n
        spread = 0.02 * np.exp(0.9 * age) * np.where(age * n < row, 1.0, factor)
        found = spread_shift(np.log(curve("exponential", n)) + spread * rng.normal(size=n))
        if found is not None and found.after > found.before:
            off.append(abs(found.row - row) / n)
    assert len(off) >= 10 and np.median(off) <= 0.015


@pytest.mark.parametrize("n", [FEWEST, 300, 600, 4000])
@pytest.mark.parametrize("shape", ["line", "early", "bend", "wave"])
def test_noise_that_moves_without_a_step_has_no_shift(n, shape):
    age = np.arange(n) / n
    growth = {
        "line": 2.0 * age,
        "early": 2.0 * (1 - np.exp(-age / 0.15)),
        "bend": np.where(age < 0.5, 0.0, 3.0 * (age - 0.5)),
        "wave": 0.4 * np.sin(5 * age),
    }[shape]
    told = 0
    for seed in range(12):
        rng = np.random.default_rng([n, seed])
        found = spread_shift(np.log(curve("power", n)) + 0.03 * np.exp(growth) * rng.normal(size=n))
        told += found is not None and found.factor >= 2  # the limit of the kind
    assert told <= 1


def test_noise_that_a_step_of_the_level_brings_along_has_no_shift_of_its_own():
    """Noise of one size in the loss is twice as large in its logarithm once the loss is half as high."""
    n = 2000
    level = np.where(np.arange(n) < 1000, 2.0, 0.5)
    found = [spread_shift(np.log(level + 0.02 * np.random.default_rng(s).normal(size=n))) for s in range(10)]
    assert found.count(None) == 10


def test_noise_that_follows_the_learning_rate_has_no_shift_of_its_own():
    n = 2000
    rate = np.where(np.arange(n) < 900, 1e-3, 1e-4)
    for seed in range(10):
        rest = rate * 100 * np.random.default_rng(seed).normal(size=n)
        assert spread_shift(rest) is not None, "without the rate it is one"
        assert spread_shift(rest, np.log(rate)) is None


def test_noise_that_grows_where_the_learning_rate_falls_is_not_explained_by_it():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        row = np.arange(600)
        rate = np.where(row < 300, -3.0, -5.3)
        found = spread_shift(rng.normal(size=600) * np.where(row < 300, 0.03, 0.1), rate)
        assert found is not None and abs(found.row - 300) <= 10 and found.after > found.before
        assert spread_shift(rng.normal(size=600) * np.where(row < 300, 0.1, 0.03), rate) is None


def test_noise_that_sets_in_during_the_warm_up_has_no_shift_and_after_it_has():
    for seed in range(5):
        rng, row = np.random.default_rng(seed), np.arange(800)
        rate = np.log(np.minimum(1.0, 0.04 + row / 240))
        for onset, found in ((150, False), (500, True)):
            spread = np.where(row < onset, 0.02, 0.09)
            assert (spread_shift(rng.normal(size=800) * spread, rate) is not None) == found


def test_heavy_tails_and_rounding_make_no_shift():
    rng = np.random.default_rng(0)
    assert spread_shift(0.05 * rng.standard_t(2, size=5000)) is None
    assert spread_shift(np.round(0.02 * rng.normal(size=2000), 2)) is None, "a log of few digits repeats itself"


@pytest.mark.parametrize("loss", [np.zeros(0), np.zeros(1), np.zeros(FEWEST), np.zeros(5000), np.arange(5000.0)])
def test_series_without_noise_are_not_judged(loss):
    assert spread_shift(loss) is None
