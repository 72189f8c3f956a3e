"""A leap of the loss where the learning rate rises: told to where the rate comes back, the fault where it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.anomalies import anomalies
from benchmarks.training_curves import noise, run_of

N, ROW = 240, 160


def told(rate: np.ndarray, times: float, seed: int) -> list[tuple[str, str]]:
    row = np.arange(N)
    level = (0.1 + 0.9 * np.exp(-row / 30)) * np.where(row < ROW, 1.0, times)
    loss = level * noise("lognormal", 0.05, N, np.random.default_rng(seed))
    found = anomalies(run_of({"loss": loss, "lr": rate})).findings
    return [(f.kind, f.severity) for f in found if f.metric == "loss" and f.kind != "loss-spike"]


@pytest.mark.parametrize("times", [3.0, 9.0])
def test_a_rate_that_grows_beyond_all_it_was_is_no_excuse_for_a_loss_that_is_lost(times: float) -> None:
    row = np.arange(N)
    rate = 1e-3 * np.where(row < ROW - 20, 1.0, 1.15 ** np.clip(row - ROW + 20, 0, 60))
    for seed in range(8):
        assert told(rate, times, seed) in ([("level-shift", "critical")], [("divergence", "critical")])


def test_a_rate_that_comes_back_to_what_it_was_explains_what_the_loss_does() -> None:
    row = np.arange(N)
    rate = 1e-3 * (0.01 + 0.99 * (1 + np.cos(np.pi * (row % ROW) / ROW)) / 2)
    for seed in range(8):
        assert {severity for _, severity in told(rate, 3.0, seed)} <= {"info"}


def test_a_small_rise_beside_a_larger_rate_is_information() -> None:
    rate = 1e-3 * np.where(np.arange(N) < ROW, 1.0, 2.0)
    for seed in range(8):
        assert {severity for _, severity in told(rate, 1.6, seed)} <= {"info"}
