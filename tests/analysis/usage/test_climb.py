"""Memory that climbs: slopes as SciPy has them, leaks found in many sizes, and the habits of memory left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from analysis.usage.climb import Climb, climb_of, sen_slope

Floats = NDArray[np.float64]
LENGTHS = (30, 60, 150, 500, 2000, 5000)
BASE = 8000.0


def leaking(n: int, growth: float, seed: int, *, begin: float = 0.0, noise: float = 0.005) -> Floats:
    """Memory that grows by a share of its level from a place (0 to 1) of the run on."""
    along = np.maximum(0.0, np.linspace(0, 1, n) - begin) / (1 - begin)
    return BASE * (1 + growth * along + noise * np.random.default_rng(seed).normal(size=n))


def warm_up(rng: np.random.Generator, n: int) -> Floats:
    return BASE * (1 - 0.8 * np.exp(-np.arange(n) / (n * rng.uniform(0.02, 0.4)))) + rng.normal(0, 20, n)


def teeth(rng: np.random.Generator, n: int) -> Floats:
    width = int(n * rng.uniform(0.02, 0.6)) + 2
    tooth = (np.arange(n) + rng.integers(width)) % width / width
    return BASE * (1 + tooth * rng.uniform(0.1, 1.0)) + rng.normal(0, 20, n)


def caching(rng: np.random.Generator, n: int) -> Floats:
    """An allocator that takes more blocks at a few moments, most of them early."""
    at = np.linspace(0, 1, n)
    jumps = sum((at > a) * rng.uniform(100, 2000) for a in rng.exponential(0.2, rng.integers(1, 7)))
    return np.asarray(BASE + jumps)


def wandering(rng: np.random.Generator, n: int) -> Floats:
    walk, noise = np.zeros(n), rng.normal(size=n)
    for i in range(1, n):
        walk[i] = 0.95 * walk[i - 1] + noise[i]
    return BASE * (1 + 0.03 * walk / 3.2)


HEALTHY: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "flat": lambda rng, n: BASE + rng.normal(0, 20, n),
    "batches of all lengths": lambda rng, n: BASE * np.exp(rng.normal(0, 0.2, n)),
    "peak so far": lambda rng, n: np.maximum.accumulate(BASE * np.exp(rng.normal(0, 0.15, n))),
    "warm-up": warm_up,
    "teeth of a garbage collector": teeth,
    "caching": caching,
    "first evaluation": lambda rng, n: BASE + 2000.0 * (np.linspace(0, 1, n) > rng.uniform(0.1, 0.8)),
    "peaks of evaluations": lambda rng, n: BASE + 3000.0 * (np.arange(n) % max(5, n // 10) < 2) + rng.normal(0, 9, n),
    "wandering": wandering,
    "two readings": lambda rng, n: 8.0 + (rng.random(n) < 0.1),
}


def worth(climb: Climb | None, share: float) -> bool:
    return climb is not None and climb.growth >= share * climb.level


def test_healthy_memory_of_all_lengths_is_silent():
    alarms, words, runs = [], 0, 0
    for n in LENGTHS:
        for name, make in HEALTHY.items():
            for seed in range(8):
                climb = climb_of(np.arange(n) * 10.0, make(np.random.default_rng([seed, n]), n))
                runs += 1
                words += worth(climb, 0.05)
                alarms += [(name, n, seed)] if worth(climb, 0.10) else []
    assert runs == 480 and alarms == [], "what makes a warning"
    assert words <= 3, "what makes information: peaks so far and wandering may climb by 5 % in truth"


@pytest.mark.parametrize("growth", [0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_leak_is_found_with_its_slope_and_beginning(n: int, growth: float):
    for seed in range(6):
        begin = (0.0, 0.2, 0.4)[seed % 3]
        steps = np.arange(n) * 10.0
        climb = climb_of(steps, leaking(n, growth, seed, begin=begin))
        assert climb is not None, seed
        true = BASE * growth / ((1 - begin) * steps[-1])
        assert climb.slope.slope == pytest.approx(true, rel=0.2)
        assert climb.slope.low <= climb.slope.slope <= climb.slope.high
        assert abs(climb.first / n - begin) <= 0.15
        assert climb.level == pytest.approx(BASE, rel=0.1 * growth + 0.01)


def test_the_smallest_leaks_need_long_logs():
    found = {n: sum(climb_of(np.arange(n) * 1.0, leaking(n, 0.02, s)) is not None for s in range(10)) for n in LENGTHS}
    assert found[30] <= 5 and found[2000] == found[5000] == 10


@pytest.mark.parametrize("per", [5, 20])
def test_a_leak_at_each_of_many_evaluations_is_a_climb(per: int):
    stairs = BASE + 150.0 * (np.arange(400) // (400 // (3 * per)))
    assert climb_of(np.arange(400.0), stairs) is not None


def test_four_jumps_are_no_climb_wherever_they_stand():
    for seed in range(50):
        at = np.sort(np.random.default_rng(seed).random(4))
        jumps = (np.linspace(0, 1, 300)[:, None] > at).sum(axis=1)
        assert climb_of(np.arange(300.0), BASE + 1000.0 * jumps) is None, seed


def test_short_teeth_on_a_leak_do_not_hide_it():
    n = 1200
    tooth = np.arange(n) % 12 / 12 * 500
    climb = climb_of(np.arange(float(n)), leaking(n, 0.3, 1) + tooth)
    assert climb is not None and climb.slope.slope == pytest.approx(BASE * 0.3 / n, rel=0.1)


@pytest.mark.parametrize("n", [2, 5, 11, 24, 40])
def test_slope_and_interval_are_those_of_scipy(n: int):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = np.sort(rng.random(n)), rng.normal(size=n)
        mine, theirs = sen_slope(x, y), stats.theilslopes(y, x, alpha=0.99)
        assert mine.slope == pytest.approx(theirs.slope)
        if n > 5:
            assert (mine.low, mine.high) == pytest.approx((theirs.low_slope, theirs.high_slope))
        assert mine.tau == pytest.approx(stats.kendalltau(x, y).statistic)


def test_the_interval_covers_the_true_slope_as_often_as_it_says():
    x = np.arange(24.0)
    hits = 0
    for seed in range(1000):
        slope = sen_slope(x, 0.3 * x + np.random.default_rng(seed).standard_t(3, 24))
        hits += slope.low <= 0.3 <= slope.high
    assert 970 <= hits <= 999


def test_what_is_not_finite_is_left_out_and_what_is_short_or_still_gives_none():
    leak = leaking(240, 0.5, 0)
    steps = np.arange(240.0)
    broken = leak.copy()
    broken[::7] = np.nan
    broken[100] = np.inf
    assert climb_of(steps, broken) is not None
    assert climb_of(steps[:23], leak[:23]) is None
    for values in (np.full(240, np.nan), np.zeros(240), np.full(240, 5.0), -leak):
        assert climb_of(steps, values) is None
    assert climb_of(np.zeros(240), leak) is None, "steps that stand still have no slope"


@given(hnp.arrays(float, st.integers(0, 80)))
def test_any_series_has_an_answer(values: Floats):
    climb = climb_of(np.arange(float(len(values))), values)
    assert climb is None or (climb.growth > 0 and 0 <= climb.first < len(values))
