"""Values that are out and are information: below a loss, in the short series of evals, in gradient norms."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.anomalies import anomalies
from analysis.anomaly.calibration import tail_threshold
from analysis.findings import Finding
from benchmarks.training_curves import curve, noise, run_of

SEEDS = range(20)


def outliers(**series: np.ndarray) -> list[Finding]:
    return [f for f in anomalies(run_of(series)).findings if f.kind == "outlier"]


@pytest.mark.parametrize(("n", "sigma", "times"), [(15, 0.01, 3.0), (60, 0.02, 2.0), (400, 0.05, 2.5)])
def test_a_value_far_below_its_loss_is_told_as_information(n: int, sigma: float, times: float) -> None:
    found = 0
    for seed in SEEDS:
        rng = np.random.default_rng([n, seed])
        loss = curve("exponential", n) * noise("lognormal", sigma, n, rng)
        place = int(rng.integers(n // 3, n - 4))
        loss[place] /= times
        others = {f"other{k}": 1.0 + noise("lognormal", 0.1, n, rng) for k in range(8)}
        told = [f for f in outliers(eval_loss=loss, **others) if f.metric == "loss" or f.metric == "eval_loss"]
        found += [(f.severity, f.first_step, f.evidence["count"]) for f in told] == [("info", place, 1)]
    assert found >= 18


@pytest.mark.parametrize("n", [90, 300])
@pytest.mark.parametrize("sort", ["lognormal", "gamma"])
def test_a_threefold_gradient_norm_is_told_where_nothing_else_comes_near_it(n: int, sort: str) -> None:
    found = 0
    for seed in SEEDS:
        rng = np.random.default_rng([n, seed])
        norm = curve("power", n) * noise(sort, 0.1, n, rng)
        norm[(place := int(rng.integers(n // 3, n - 10)))] *= 3
        found += [f.first_step for f in outliers(grad_norm=norm, accuracy=rng.random(n))] == [place]
    assert found >= 17


@pytest.mark.parametrize("n", [15, 60, 400])
def test_healthy_series_have_hardly_any_such_values(n: int) -> None:
    runs = told = 0
    for seed in range(12):
        for sort in ("lognormal", "heavy", "gamma", "normal"):
            rng = np.random.default_rng([n, seed, 7])
            series = {
                "loss": curve("exponential", n) * noise(sort, 0.05, n, rng),
                "eval_loss": curve("power", n) * noise(sort, 0.02, n, rng),
                "grad_norm": curve("warmup", n) * noise(sort, 0.2, n, rng),
            }
            told += len(outliers(**series))
            runs += 1
    assert told <= 0.08 * runs


def test_the_one_value_that_is_out_does_not_widen_the_bound_of_a_short_series() -> None:
    for seed in SEEDS:
        scores = np.random.default_rng(seed).normal(size=14)
        far = scores.copy()
        far[int(np.argmax(scores))] = 90.0
        bound = tail_threshold(far, 0.001, lone=True)
        assert bound == pytest.approx(tail_threshold(scores, 0.001, lone=True), rel=1e-9)
        assert bound < tail_threshold(far, 0.001), "which a warning would need"
