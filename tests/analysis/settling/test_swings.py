"""Regular swings: found with their period and height, told from red noise at a counted rate, at any length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.settling.spectrum import FEWEST, clearest_peak, detrended, slow_peak
from analysis.settling.swings import clearest_swing
from benchmarks.training_curves import CURVES, NOISES, curve, noise


def red(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -rho], rng.normal(size=n + 200))[200:]


BACKGROUNDS = {
    "white": lambda n, rng: rng.normal(size=n),
    "heavy": lambda n, rng: rng.standard_t(3, size=n),
    "red": lambda n, rng: red(0.6, n, rng),
    "very red": lambda n, rng: red(0.98, n, rng),
}


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("n", [100, 400, 4000])
def test_the_chance_of_a_peak_is_what_it_says_on_noise_of_every_colour(background, n):
    """Of 60 series without a rhythm, hardly more than one may have a peak of a chance below 1 in 100."""
    made = [BACKGROUNDS[background](n, np.random.default_rng([seed, n])) for seed in range(60)]
    chances = np.array([peak.chance for series in made if (peak := clearest_peak(detrended(series))) is not None])
    assert len(chances) == 60 and (chances < 0.01).sum() <= 4 and (chances < 1e-5).sum() == 0


WANDERING = {
    "moving average": lambda n, rng: np.convolve(rng.normal(size=n + 4), np.ones(5), "valid"),
    "exponential average": lambda n, rng: red(0.9, n, rng),
    "random walk": lambda n, rng: np.cumsum(rng.normal(size=n)),
}


@pytest.mark.parametrize("sort", WANDERING)
@pytest.mark.parametrize("n", [100, 400, 4000])
def test_losses_logged_as_averages_do_not_swing(sort, n):
    found = [clearest_swing(0.05 * WANDERING[sort](n, np.random.default_rng([seed, n]))) for seed in range(60)]
    assert sum(swing is not None for swing in found) <= 1


@pytest.mark.parametrize(("n", "seeds"), [(80, 3), (300, 3), (3000, 1), (30_000, 1)])
def test_healthy_curves_do_not_swing_at_any_length(n, seeds):
    wrong = total = 0
    for kind, sort, sigma, seed in itertools.product(CURVES, NOISES, (0.01, 0.1, 0.3), range(seeds)):
        rng = np.random.default_rng([n, seed, int(1e3 * sigma), NOISES.index(sort)])
        wrong += clearest_swing(np.log(curve(kind, n) * noise(sort, sigma, n, rng))) is not None
        total += 1
    assert total >= 105 and wrong <= 0.01 * total


@pytest.mark.parametrize("n", [200, 1000, 20_000, 200_000])
@pytest.mark.parametrize("period", [2, 7.3, "n/15"])
def test_planted_swings_are_found_with_their_period_and_height(n, period):
    rows = n / 15 if period == "n/15" else period
    hits = []
    for seed in range(5):
        rng = np.random.default_rng([n, seed])
        swing = 0.2 * np.cos(2 * np.pi * np.arange(n) / rows + 1)
        found = clearest_swing(np.log(curve(CURVES[seed], n) * noise("lognormal", 0.05, n, rng)) + swing)
        hits += [found] if found is not None and abs(found.period / rows - 1) < 0.03 else []
    assert len(hits) == 5
    if period == 7.3:
        assert all(0.3 < found.height < 0.5 for found in hits), "0.4 from trough to crest"


def test_swings_without_a_clock_are_found_by_their_hump():
    from scipy.signal import lfilter

    found = 0
    for seed in range(10):
        n = (1000, 3000)[seed % 2]
        rng = np.random.default_rng(seed)
        loop = lfilter([1.0], [1.0, -2 * 0.92 * np.cos(2 * np.pi / 9), 0.92**2], rng.normal(size=n))
        swing = clearest_swing(np.log(curve("exponential", n)) + 0.08 * loop / loop.std())
        found += swing is not None and 7 < swing.period < 11
    assert found >= 8


def test_a_few_large_cycles_are_found_in_a_short_log():
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        swing = np.where(np.arange(150) >= 40, 0.3 * np.sin(2 * np.pi * np.arange(150) / 25), 0.0)
        found.append(clearest_swing(np.log(curve("exponential", 150)) + swing + 0.05 * rng.normal(size=150)))
    assert sum(one is not None and abs(one.period / 25 - 1) < 0.15 for one in found) >= 8


@pytest.mark.parametrize("n", [100, 300])
def test_red_noise_of_any_persistence_hardly_ever_holds_what_a_few_cycles_must(n):
    from scipy.signal import lfilter

    rng = np.random.default_rng(n)
    found = 0
    for persistence in (0.0, 0.6, 0.8, 0.9, 0.97, 1.0):
        shocks = rng.normal(size=(250, n + 100))
        for row in lfilter([1.0], [1.0, -persistence], shocks, axis=1)[:, 100:]:
            found += slow_peak(detrended(row)) is not None
    assert found <= 6  # of 1,500


@pytest.mark.parametrize(("n", "onset", "period"), [(150, 60, 12.0), (200, 70, 16.0), (600, 150, 23.0)])
def test_swings_that_set_in_late_are_found_and_placed_within_a_few_rows(n, onset, period):
    row, apart = np.arange(n), []
    for seed in range(5):
        noise = 0.05 * np.random.default_rng(seed).normal(size=n)
        wave = np.where(row >= onset, 0.3 + 0.3 * np.sin(2 * np.pi * (row - onset) / period), 0.0)
        found = clearest_swing(np.exp(-row / 40) + noise + wave)
        assert found is not None and abs(found.period / period - 1) < 0.1
        apart.append(abs(found.first - onset))
    assert np.median(apart) <= 1 and max(apart) <= period / 2


def test_swings_of_a_part_are_placed_there():
    n = 2000
    rng = np.random.default_rng(0)
    swing = np.where(np.arange(n) >= 1200, 0.25 * np.sin(np.arange(n)), 0.0)
    found = clearest_swing(np.log(curve("cosine", n) * noise("lognormal", 0.05, n, rng)) + swing)
    assert found is not None and found.first >= 1000 and found.last == n - 1


@pytest.mark.parametrize("period", [12, 40])
def test_a_sawtooth_is_told_from_a_sine(period):
    rng = np.random.default_rng(0)
    phase = np.arange(1500) % period / period
    noisy = 0.02 * rng.normal(size=1500)
    tooth, sine = clearest_swing(0.3 * phase + noisy), clearest_swing(0.15 * np.sin(2 * np.pi * phase) + noisy)
    assert tooth is not None and sine is not None
    assert tooth.sawtooth is True and sine.sawtooth is False
    square = clearest_swing(0.3 * (phase < 0.5) + noisy)
    assert square is not None and square.sawtooth is False, "it leaps both ways"


def test_the_spectrum_finds_the_line_that_scipy_finds():
    from scipy.signal import periodogram

    for seed in range(10):
        rng = np.random.default_rng(seed)
        n, period = 900, rng.uniform(5, 40)
        rest = detrended(rng.normal(size=n) + 2 * np.sin(2 * np.pi * np.arange(n) / period))
        frequency, power = periodogram(rest, window="hann")
        found = clearest_peak(rest)
        assert found is not None
        assert found.period == pytest.approx(1 / frequency[1:][np.argmax(power[1:])], rel=0.05)


@pytest.mark.parametrize("rest", [np.zeros(500), np.zeros(3), np.arange(FEWEST - 1.0)])
def test_series_without_spread_or_rows_have_no_peak(rest):
    assert clearest_peak(rest) is None and clearest_swing(rest[: FEWEST - 1]) is None


def test_few_noisy_cycles_of_a_sine_are_rarely_taken_for_a_sawtooth_and_those_of_a_sawtooth_are_known():
    row, wrong, right = np.arange(150), 0, 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=150)
        sine, tooth = 1.8 * np.sin(2 * np.pi * row / 12.4), 5.0 * (row % 12 / 12 - 0.5)
        for shape, amount in ((sine, 0.0), (tooth, 1.0)):
            found = clearest_swing(0.1 * (shape + noise) - row / 300)
            if found is not None:
                wrong += amount == 0.0 and found.sawtooth is True
                right += amount == 1.0 and found.sawtooth is True
    assert wrong <= 1 and right >= 30
