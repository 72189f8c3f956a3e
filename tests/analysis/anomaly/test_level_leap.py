"""Leaps of level between rows: found out of a curve that falls, and none in what only falls, waves or restarts."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.anomalies import anomalies
from analysis.anomaly.level_leap import level_leap
from benchmarks.training_curves import CURVES, NOISES, curve, noise, run_of


@pytest.mark.parametrize(("n", "factor", "sigma"), [(100, 2.5, 0.1), (200, 1.6, 0.1), (400, 1.8, 0.15)])
def test_a_leap_that_the_fall_before_it_outweighs_is_found_at_its_row(n: int, factor: float, sigma: float) -> None:
    row = round(0.55 * n)
    found = 0
    for seed in range(10):
        loss = 8 * curve("exponential", n) * noise("lognormal", sigma, n, np.random.default_rng(seed))
        loss[row:] *= factor
        told = [f for f in anomalies(run_of({"loss": loss})).findings if f.severity != "info"]
        found += any(f.kind == "level-shift" and abs((f.first_step or 0) - row) <= 3 for f in told)
    assert found >= 9


@pytest.mark.parametrize("sort", NOISES)
def test_healthy_curves_leap_nowhere_at_the_promised_rate(sort: str) -> None:
    found = 0
    for seed in range(40):
        rng = np.random.default_rng([seed, 3])
        n = int(rng.choice([40, 90, 200, 700]))
        loss = curve(list(CURVES)[seed % len(CURVES)], n) * noise(sort, float(rng.choice([0.03, 0.1, 0.3])), n, rng)
        if (loss > 0).all():
            found += level_leap(np.log(loss), float(np.log(1.3))) is not None
    assert found <= 1


def test_waves_and_restarts_and_leaps_that_are_not_kept_are_no_leap() -> None:
    row, rng = np.arange(600), np.random.default_rng(0)
    some = 0.05 * rng.normal(size=600)
    restarts = 0.5 * (1 - (row % 150) / 150)
    assert level_leap(some + restarts, 0.26) is None
    assert level_leap(some + 0.4 * np.sin(row / 40), 0.26) is None
    assert level_leap(some + np.where((row > 300) & (row < 420), 1.0, 0.0), 0.26) is None
    assert level_leap(some[:20], 0.26) is None and level_leap(np.zeros(100), 0.26) is None


def alarms(loss: np.ndarray) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in anomalies(run_of({"loss": loss})).findings if f.severity != "info"]


@pytest.mark.parametrize("times", [1.25, 1.4])
def test_a_quarter_more_at_once_is_a_shift_and_little_by_little_is_no_divergence(times):
    shift = climb = 0
    for seed in range(20):
        rng, row = np.random.default_rng([seed, 3]), np.arange(300)
        level = 0.5 + 0.5 * np.exp(-row / 40)
        at_once = level * np.where(row < 190, 1.0, times) * noise("lognormal", 0.04, 300, rng)
        slowly = level * np.exp(np.log(min(times, 1.25)) * np.clip((row - 150) / 140, 0, 1))
        shift += ("level-shift", "warning") in alarms(at_once)
        climb += bool(alarms(slowly * noise("lognormal", 0.04, 300, rng)))
    assert shift >= 18 and climb == 0
