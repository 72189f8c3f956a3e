"""Scores that lose what they had gained are found; those that waver, overfit a little or never rose are not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.anomalies import anomalies
from analysis.anomaly.score_collapse import collapse_of
from analysis.limits import Limits
from parsers.finish import finish
from parsers.run import Run


def run_of(tag: str, values: np.ndarray) -> Run:
    return finish(
        "r", "r", "jsonl", pl.DataFrame({"tag": [tag] * len(values), "step": range(len(values)), "value": values})
    )


def risen(n: int, rng: np.random.Generator) -> np.ndarray:
    return 0.9 - 0.8 * np.exp(-10 * np.arange(n) / n) + 0.03 * rng.normal(size=n)


@pytest.mark.parametrize("n", [60, 100, 1000, 20_000])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_accuracy_that_falls_to_chance_is_critical_at_its_step(n, at_once):
    rng = np.random.default_rng(n)
    past = np.maximum(np.arange(n) / n - 0.6, 0)
    lost = 0.8 * (past > 0) if at_once else np.minimum(0.8, 4 * past)
    found = [f for f in anomalies(run_of("eval/accuracy", risen(n, rng) - lost)).findings if f.severity != "info"]
    assert [(f.kind, f.severity) for f in found] == [("level-shift" if at_once else "divergence", "critical")]
    assert abs(found[0].first_step / n - (0.6 if at_once else 0.7)) <= 0.04


def test_of_an_error_rate_less_is_better():
    n = 400
    falling = 1 - risen(n, np.random.default_rng(0))
    assert anomalies(run_of("wer", falling)).status == "healthy"
    back = np.where(np.arange(n) < 250, falling, 0.95)
    assert [f.kind for f in anomalies(run_of("wer", back)).findings if f.severity != "info"] == ["level-shift"]


HEALTHY = {
    "rising": lambda t, rng: 0.9 - 0.8 * np.exp(-5 * t) + 0.03 * rng.normal(size=len(t)),
    "flat": lambda t, rng: 0.5 + 0.05 * rng.normal(size=len(t)),
    "overfitting": lambda t, rng: 0.9 - 0.8 * np.exp(-8 * t) - 0.15 * t + 0.02 * rng.normal(size=len(t)),
    "coarse": lambda t, rng: rng.binomial(32, 0.95 - 0.85 * np.exp(-8 * t)) / 32,
    "reward": lambda t, rng: 200 * (1 - np.exp(-4 * t)) + 60 * rng.standard_t(4, size=len(t)),
}


@pytest.mark.parametrize("kind", HEALTHY)
@pytest.mark.parametrize("n", [16, 60, 1000, 50_000])
def test_healthy_scores_are_kept_at_every_length(kind, n):
    found = [collapse_of(HEALTHY[kind](np.arange(n) / n, np.random.default_rng([n, seed]))) for seed in range(40)]
    assert sum(one is not None for one in found) <= 1


def test_a_dip_that_comes_back_is_no_collapse():
    score = risen(400, np.random.default_rng(0))
    score[200:260] = 0.1
    assert collapse_of(score) is None


def test_a_reward_must_lose_its_whole_gain_for_a_warning():
    rng = np.random.default_rng(0)
    for lost, severity in ((0.6, "info"), (0.95, "warning")):
        reward = np.where(np.arange(500) < 300, np.minimum(np.arange(500), 100), 100 * (1 - lost)) + 2 * rng.normal(
            size=500
        )
        found = [f for f in anomalies(run_of("reward", reward + 5)).findings if f.kind == "level-shift"]
        assert [f.severity for f in found] == [severity]


def test_the_limit_of_a_project_decides():
    score = risen(400, np.random.default_rng(0)) - 0.55 * (np.arange(400) > 250)
    asked = Limits((("level-shift", "*", 5.0),))
    assert anomalies(run_of("accuracy", score)).status == "warning", "three quarters of the gain"
    assert anomalies(run_of("accuracy", score), limits=asked).status == "healthy"


@pytest.mark.parametrize("score", [np.zeros(0), np.zeros(1), np.zeros(500), np.arange(15.0), np.array([np.nan] * 50)])
def test_short_and_constant_scores_are_kept(score):
    assert collapse_of(score[np.isfinite(score)]) is None
