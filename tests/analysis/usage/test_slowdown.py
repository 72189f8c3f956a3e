"""Speed that falls and stays low: found in many sizes, and the habits of speed left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.usage.slowdown import levels_of, long_run_spread, slowdown_of

Floats = NDArray[np.float64]
LENGTHS = (30, 60, 150, 500, 2000, 5000)


def noisy(rng: np.random.Generator, n: int) -> Floats:
    return 1000.0 * np.exp(rng.normal(0, rng.choice([0.01, 0.05, 0.2, 0.4]), n))


def times(rows: Callable[[np.random.Generator, int], slice], factor: float) -> Callable[..., Floats]:
    def make(rng: np.random.Generator, n: int) -> Floats:
        speed = noisy(rng, n)
        speed[rows(rng, n)] *= factor
        return speed

    return make


def wandering(rng: np.random.Generator, n: int) -> Floats:
    walk = np.zeros(n)
    for i in range(1, n):
        walk[i] = 0.95 * walk[i - 1] + rng.normal(0, 0.03)
    return noisy(rng, n) * np.exp(walk)


def daily(rng: np.random.Generator, n: int) -> Floats:
    period = max(10, int(n * rng.uniform(0.03, 0.12)))
    return noisy(rng, n) * np.where((np.arange(n) // period) % 2 == 1, 0.6, 1.0)


def at_epochs(rng: np.random.Generator, n: int) -> Floats:
    period = max(4, n // int(rng.integers(3, 20)))
    return noisy(rng, n) * np.where(np.arange(n) % period < max(1, period // 20), 0.3, 1.0)


HEALTHY: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "steady": noisy,
    "compilation": times(lambda rng, n: slice(0, int(rng.integers(1, max(2, n // 15)))), 0.1),
    "evaluations": times(lambda rng, n: slice(0, None, int(rng.integers(3, 30))), 0.1),
    "partial last batch": times(lambda rng, n: slice(n - 1, None), 0.3),
    "two kinds of batches": lambda rng, n: noisy(rng, n) * rng.choice([1, 0.5], n, p=[0.7, 0.3]),
    "lengths of sequences": lambda rng, n: 1000.0 / rng.uniform(0.2, 1.0, n),
    "heavy tail": lambda rng, n: noisy(rng, n) * np.exp(-0.1 * np.abs(rng.standard_t(2, n))),
    "wandering": wandering,
    "slow for a while": times(lambda rng, n: slice(n // 3, n // 2), 0.5),
    "slow at first": times(lambda rng, n: slice(0, n // 3), 0.5),
    "fast queue at first": times(lambda rng, n: slice(0, max(3, n // 30)), 2.0),
    "throttled by a seventh": times(lambda rng, n: slice(n // 10, None), 0.85),
    "day and night": daily,
    "at epochs": at_epochs,
}


def test_healthy_speed_of_all_lengths_is_silent():
    alarms, runs = [], 0
    for n in LENGTHS:
        for name, make in HEALTHY.items():
            for seed in range(6):
                fell = slowdown_of(make(np.random.default_rng([seed, n]), n))
                runs += 1
                alarms += [(name, n, seed)] if fell is not None and fell.left <= 0.75 else []
    assert runs == 504 and alarms == []


@pytest.mark.parametrize("left", [0.7, 0.65, 0.6, 0.5, 0.3, 0.1])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_fall_is_found_where_it_is(n: int, left: float):
    for seed in range(8):
        rng = np.random.default_rng([seed, n])
        at = int(n * rng.uniform(0.36, 0.64))
        speed = 1000.0 * np.exp(rng.normal(0, 0.03, n))
        speed[at:] *= left
        fell = slowdown_of(speed)
        assert fell is not None and abs(fell.first - at) <= 2, seed
        assert fell.left == pytest.approx(left, rel=0.05) and fell.before == pytest.approx(1000, rel=0.05)


def test_a_fall_among_evaluations_and_after_compilation_is_found():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        speed = 1000.0 * np.exp(rng.normal(0, 0.05, 600))
        speed[:150] *= 0.3
        speed[::20] *= 0.2
        speed[400:] *= 0.6
        fell = slowdown_of(speed)
        assert fell is not None and abs(fell.first - 400) <= 3 and 140 <= fell.since <= 160


def test_a_fall_in_two_stages_is_told_from_its_first_with_what_is_left_at_the_end():
    speed = np.repeat([1000.0, 600.0, 200.0], [300, 100, 100])
    fell = slowdown_of(speed)
    assert fell is not None and fell.first == 300 and fell.lowest == pytest.approx(200.0)


def test_large_falls_show_through_noise_that_hides_small_ones():
    def hits(left: float) -> int:
        found = 0
        for seed in range(20):
            speed = 1000.0 * np.exp(np.random.default_rng(seed).normal(0, 0.3, 150))
            speed[75:] *= left
            found += slowdown_of(speed) is not None
        return found

    assert hits(0.3) == 20 and hits(0.5) >= 18 and hits(0.9) == 0


def test_the_split_is_the_one_that_leaves_the_least_squares():
    rng = np.random.default_rng(0)
    for _ in range(20):
        at = int(rng.integers(8, 52))
        values = np.where(np.arange(60) < at, 1.0, 0.0) + rng.normal(0, 0.02, 60)
        smooth = np.array([np.median(np.pad(values, 2, mode="reflect")[i : i + 5]) for i in range(60)])
        cost = {k: smooth[:k].var() * k + smooth[k:].var() * (60 - k) for k in range(5, 56)}
        assert levels_of(values)[0] == (0, min(cost, key=lambda k: cost[k]))


def test_spread_of_white_noise_is_its_deviation_and_that_of_wandering_noise_is_more():
    rng = np.random.default_rng(1)
    white = [long_run_spread(rng.normal(size=n)) for n in (30, 100, 1000, 20_000) for _ in range(10)]
    assert min(white) > 0.6 and max(white) < 2.2
    assert long_run_spread(np.cumsum(rng.normal(size=2000))) > 10


def test_numbers_that_are_no_speed_are_refused():
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="not positive and finite"):
            slowdown_of(np.append(np.ones(50), wrong))


@given(st.lists(st.floats(1e-300, 1e300), max_size=80))
def test_any_speed_gives_an_answer(values: list[float]):
    fell = slowdown_of(np.asarray(values))
    assert fell is None or (0 < fell.first < len(values) and fell.after < fell.before)
