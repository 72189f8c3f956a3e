"""Losses that stop improving: planted stops are found at their place, healthy ends told from them, at any length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.settling.blocks import blocks_of
from analysis.settling.plateau import late_start, levelled_off, never_improved, sudden_stop
from benchmarks.training_curves import CURVES, NOISES, curve, noise

FALLING = [kind for kind in CURVES if kind != "flat"]


def scaled(kind: str, sort: str, sigma: float, n: int, seed: int) -> np.ndarray:
    return np.log(curve(kind, n) * noise(sort, sigma, n, np.random.default_rng([n, seed, int(1e4 * sigma)])))


def rates(n: int, seeds: int) -> tuple[int, int, int]:
    stopped = dead = total = 0
    for kind, sort, sigma, seed in itertools.product(FALLING, NOISES, (0.003, 0.03, 0.2), range(seeds)):
        loss = scaled(kind, sort, sigma, n, seed)
        flat = never_improved(loss)
        assert flat is not None
        dead += not flat.improved and flat.at_most <= 0.03
        stopped += sudden_stop(loss) is not None
        total += 1
    return stopped, dead, total


@pytest.mark.parametrize(("n", "seeds"), [(30, 3), (90, 3), (300, 2), (3000, 1), (100_000, 1)])
def test_healthy_curves_neither_stop_nor_stand_at_any_length(n, seeds):
    stopped, dead, total = rates(n, seeds)
    assert total >= 90 and stopped <= 0.01 * total and dead == 0


@pytest.mark.parametrize("n", [100, 1000, 20_000])
@pytest.mark.parametrize("sort", NOISES)
def test_a_loss_that_never_moves_is_known_where_its_noise_is_small(n, sort):
    found = [never_improved(scaled("flat", sort, 0.01, n, seed)) for seed in range(10)]
    # noise that wanders looks like improvement until there is much of it
    least = 5 if sort == "autocorrelated" else 8
    assert sum(f is not None and not f.improved and f.at_most <= 0.03 for f in found) >= least


def test_a_loss_that_fell_within_its_first_rows_has_improved():
    loss = np.full(500, 0.14)
    loss[:3] = (0.9, 0.5, 0.2)
    found = never_improved(np.log(loss) + 0.05 * np.random.default_rng(0).normal(size=500))
    assert found is not None and found.improved


def test_a_loss_that_falls_at_its_very_end_has_improved():
    loss = np.where(np.arange(800) < 700, 2.3, 2.3 - 0.004 * (np.arange(800) - 700))
    found = never_improved(np.log(loss) + 0.02 * np.random.default_rng(0).normal(size=800))
    assert found is not None and found.improved


def stopped_at(kind: str, place: float, n: int) -> np.ndarray:
    loss = (3 - 2.2 * np.arange(n) / n) if kind == "line" else curve(kind, n)
    row = int(place * n)
    return np.where(np.arange(n) < row, loss, loss[row])


@pytest.mark.parametrize(("kind", "place"), [("line", 0.5), ("line", 0.7), ("cosine", 0.7)])
@pytest.mark.parametrize("n", [600, 1000, 3000])
def test_a_fall_that_breaks_off_is_found_within_two_per_cent_of_its_place(kind, place, n):
    off = []
    for seed in range(6):
        loss = np.log(stopped_at(kind, place, n) * noise("lognormal", 0.01, n, np.random.default_rng([n, seed])))
        found = sudden_stop(loss)
        off += [abs(found.row / n - place)] if found is not None else []
    assert len(off) >= 4 and np.median(off) <= 0.02


def sums_of_decays(seed: int, n: int) -> np.ndarray:
    """A floor, up to four exponentials and a power law, all of them falling: every healthy shape of the claim."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / n
    parts = [rng.uniform(0.1, 2) * np.exp(-t * np.exp(rng.uniform(0, 5))) for _ in range(rng.integers(1, 5))]
    return rng.uniform(0.01, 1) + sum(parts) + rng.uniform(0, 2) * (1 + rng.uniform(1, 500) * t) ** -rng.uniform(0.1, 1)


def test_no_sum_of_decaying_parts_stops():
    wrong = 0
    for seed in range(150):
        n = (100, 400, 2000)[seed % 3]
        sigma = (0.001, 0.01, 0.05)[seed // 3 % 3]
        wrong += (
            sudden_stop(np.log(sums_of_decays(seed, n)) + sigma * np.random.default_rng(seed).normal(size=n))
            is not None
        )
    assert wrong <= 1


@pytest.mark.parametrize(("steepness", "sigma"), [(20, 0.003), (20, 0.03), (50, 0.03), (100, 0.003), (150, 0.01)])
def test_a_sigmoid_fall_ends_by_itself_and_does_not_stop(steepness, sigma):
    n = 600
    drop = 1 / (1 + np.exp(steepness * (np.arange(n) / n - 0.3)))
    found = [
        sudden_stop(np.log(0.8 + 1.3 * drop) + sigma * np.random.default_rng(seed).normal(size=n)) for seed in range(15)
    ]
    assert sum(f is not None for f in found) <= 1


def test_a_step_of_the_learning_rate_is_no_stop():
    row = np.arange(600)
    loss = np.where(row < 300, 1.0 - 0.0003 * row, 0.6)
    found = [sudden_stop(np.log(loss) + 0.01 * np.random.default_rng(seed).normal(size=600)) for seed in range(10)]
    assert found.count(None) == 10


def test_levelling_off_is_told_with_what_the_rest_brought():
    row = np.arange(1000)
    loss = np.log(0.5 + 2 * np.exp(-row / 60)) + 0.01 * np.random.default_rng(0).normal(size=1000)
    found = levelled_off(loss)
    assert found is not None and 200 < found[0] < 450 and abs(found[1]) < 0.02
    assert levelled_off(np.log(0.5 + 2 * np.exp(-row / 600))) is None, "it still improves"
    assert levelled_off(np.log(np.full(1000, 2.0))) is None, "it never improved"


def test_a_late_start_is_told_and_an_early_one_is_not():
    row = np.arange(1000)
    rest = 0.01 * np.random.default_rng(0).normal(size=1000)
    late = np.log(2.3 * np.exp(-np.maximum(row - 400, 0) / 300)) + rest
    found = late_start(late)
    assert found is not None and abs(found - 400) < 50
    assert late_start(np.log(2.3 * np.exp(-row / 300)) + rest) is None


@pytest.mark.parametrize("loss", [np.zeros(0), np.zeros(1), np.zeros(29)])
def test_short_series_are_not_judged(loss):
    assert never_improved(loss) is None and sudden_stop(loss) is None
    assert levelled_off(loss) is None and late_start(loss) is None


def test_the_error_of_block_means_is_that_of_white_noise_and_larger_where_noise_wanders():
    n, blocks, errors = 4800, 48, {"white": [], "red": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        white = rng.normal(size=n)
        red = np.log(noise("autocorrelated", 1.0, n, rng))
        errors["white"].append(blocks_of(white).error)
        errors["red"].append(blocks_of(red).error)
    assert 0.9 <= np.median(errors["white"]) / (blocks / n) ** 0.5 <= 1.5
    assert np.median(errors["red"]) > 3 * np.median(errors["white"])
