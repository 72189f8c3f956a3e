"""The anomaly types of classic training monitors, each planted, found, and under which kind; a healthy run has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import aftertrain as at
from tests.analysis.adversarial.games import run_of

N, SEEDS = 500, 3
T = np.arange(N) / N
Values = dict[str, np.ndarray]


def log(seed: int) -> Values:
    rng = np.random.default_rng(seed)
    return {
        "loss": (2 * np.exp(-6 * T) + 0.5) * np.exp(0.03 * rng.normal(size=N)),
        "grad_norm": np.exp(0.2 * rng.normal(size=N)),
        "gpu_memory_mb": 9000 + 20 * rng.normal(size=N),
        "gpu_memory_limit_mb": np.full(N, 16_000.0),
        "tokens_per_second": 1000 * np.exp(0.02 * rng.normal(size=N)),
        "lr": 1e-3 * 0.5 * (1 + np.cos(np.pi * T)),
    }


def _gradients_explode(v: Values) -> None:
    v["grad_norm"][350:] *= 3000


def _gradients_vanish(v: Values) -> None:
    """And with them the fall of the loss; a gradient that fades as the loss goes on falling is no fault."""
    v["grad_norm"] *= np.exp(-40 * np.clip(T - 0.05, 0, 0.3))
    v["loss"] = 2.5 * np.exp(0.03 * np.random.default_rng(7).normal(size=N))


def _loss_spikes(v: Values) -> None:
    v["loss"][300:303] *= 6


def _memory_overflows(v: Values) -> None:
    v["gpu_memory_mb"] = np.minimum(v["gpu_memory_mb"] + 9000 * np.clip(T - 0.3, 0, None), 15_900.0)


def _loss_swings(v: Values) -> None:
    v["loss"] *= np.where(T > 0.3, 1 + 0.5 * np.sin(2 * np.pi * np.arange(N) / 25), 1.0)


def _loss_stands(v: Values) -> None:
    rng = np.random.default_rng(99)
    v["loss"] = 2.3 * np.exp(0.01 * rng.normal(size=N))


def _a_value_stands_out(v: Values) -> None:
    v["tokens_per_second"][200] *= 40


def _loss_is_lost(v: Values) -> None:
    v["loss"][420:] = math.nan


def _loss_diverges(v: Values) -> None:
    v["loss"][300:] *= np.exp(6 * (T[300:] - T[300])) * 2


def _rate_leaps(v: Values) -> None:
    v["lr"][250:] *= 10


def _speed_falls(v: Values) -> None:
    v["tokens_per_second"][300:] *= 0.3


#: Type -> what plants it, and the kind that it is here. Two types are ways to find the same kind: outliers by z-score
#: and by the interquartile range.
TYPES: dict[str, tuple[Callable[[Values], None], str]] = {
    "gradient explosion": (_gradients_explode, "exploding-gradient"),
    "gradient vanishing": (_gradients_vanish, "vanishing-gradient"),
    "loss spike": (_loss_spikes, "loss-spike"),
    "memory overflow": (_memory_overflows, "memory-overflow"),
    "oscillation": (_loss_swings, "oscillation"),
    "plateau": (_loss_stands, "plateau"),
    "outlier by z-score": (_a_value_stands_out, "outlier"),
    "outlier by IQR": (_a_value_stands_out, "outlier"),
    "NaN or infinity": (_loss_is_lost, "non-finite"),
    "divergence": (_loss_diverges, "divergence"),
    "learning rate anomaly": (_rate_leaps, "lr-schedule"),
    "slow-down": (_speed_falls, "throughput-drop"),
}
METHODS = {"outlier by z-score": "zscore", "outlier by IQR": "iqr"}


def kinds(name: str, values: Values) -> set[str]:
    config: dict[str, Any] = {"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "max_steps": N}
    run = run_of(values, config=config)
    if name in METHODS:
        return {f.kind for f in at.anomalies(run, method=METHODS[name]).findings}  # type: ignore[arg-type]
    return {f.kind for f in at.diagnose(run).findings}


def test_there_are_twelve_types() -> None:
    assert len(TYPES) == 12


@pytest.mark.parametrize("name", TYPES)
def test_each_type_is_found_where_it_is_planted(name: str) -> None:
    plant, kind = TYPES[name]
    for seed in range(SEEDS):
        values = log(seed)
        plant(values)
        assert kind in kinds(name, values), seed


def test_a_log_without_any_has_no_warning() -> None:
    config = {"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "max_steps": N}
    for seed in range(SEEDS):
        told = at.diagnose(run_of(log(seed), config=config)).findings
        assert [f for f in told if f.severity != "info"] == []
