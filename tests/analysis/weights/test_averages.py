"""The lag of an average is read from two saves, for any decay and any way the weights went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.weights.averages import averages_across, averages_within, lag_of, stated_decay
from analysis.weights.saved import Saved
from analysis.weights.statistics import statistics
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Storage, Tensor


def saved(folder: Path, step: int, weights: NDArray[Any], average: NDArray[Any], **values: float) -> Saved:
    """A save of one tensor and its average, laid down by hand in double precision."""
    place = folder / f"{step}.bin"
    place.write_bytes(np.concatenate([weights, average]).astype("<f8").tobytes())
    n = len(weights)
    tensors = (
        Tensor("model.fc.weight", "float64", (n,), Storage(place, 0, 8 * n), parameter="fc.weight"),
        Tensor("ema.fc.weight", "float64", (n,), Storage(place, 8 * n, 8 * n), role="ema", parameter="fc.weight"),
    )
    checkpoint = Checkpoint(place, "example", tensors, values=values, step=step)
    return Saved(place.name, checkpoint, statistics(checkpoint))


def course(
    folder: Path, decay: float, steps: int, noise: float, seed: int, *, start: int = 0, warm: str = "", **values: float
) -> list[Saved]:
    """Weights on a noisy straight way and their average, at half of the way and at its end, after `start` steps."""
    rng = np.random.default_rng(seed)
    weights, aim = rng.normal(size=400), rng.normal(size=400)
    average, saves = weights.copy(), []
    for step in range(1, 2 * steps + 1):
        weights = weights + 0.01 * aim + noise * 0.01 * rng.normal(size=400)
        n = start + step
        grown = {"": 1.0, "tensorflow": (1 + n) / (10 + n), "yolo": decay * -np.expm1(-n / 2000)}[warm]
        kept = min(decay, grown)
        average = kept * average + (1 - kept) * weights
        if step in (steps, 2 * steps):
            counts = {"optimizer.state.0.step": float(n)} if start else {}
            saves.append(saved(folder, n, weights, average, **values, **counts))
    return saves


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(decay=st.floats(0.5, 0.999), steps=st.integers(20, 120), noise=st.floats(0, 20), seed=st.integers(0, 999))
def test_an_average_lies_in_the_hull_of_its_past_whatever_its_decay(
    decay: float, steps: int, noise: float, seed: int, tmp_path: Path
) -> None:
    before, after = course(tmp_path, decay, steps, noise, seed, ema_decay=decay)
    assert averages_across([before, after], "r") == []
    assert averages_within(after, "r") == []


@pytest.mark.parametrize("decay", [0.98, 0.99, 0.995])
def test_what_an_average_keeps_is_read_as_its_decay_says(decay: float, tmp_path: Path) -> None:
    before, after = course(tmp_path, decay, 60, 10.0, 1)
    (one, two) = (save.checkpoint.tensors for save in (before, after))
    lag = lag_of(before, after, {"fc.weight": (one[1], one[0], two[1], two[0])})
    assert lag is not None and lag.explained > 0.9 and lag.outside < 1
    assert lag.kept == pytest.approx(decay**60, abs=0.03)


def test_a_decay_that_is_not_the_stated_one_is_found_with_its_factor(tmp_path: Path) -> None:
    (found,) = averages_across(course(tmp_path, 0.99, 60, 10.0, 2, ema_decay=0.9), "r")
    assert (found.kind, found.severity, found.evidence["what"]) == ("checkpoint-mismatch", "warning", "average lags")
    assert float(found.evidence["times_longer"] or 0) == pytest.approx(np.log(0.9) / np.log(0.99), rel=0.2)


def test_a_decay_that_only_the_configuration_states_is_held_against_the_average(tmp_path: Path) -> None:
    saves = course(tmp_path, 0.99, 60, 10.0, 2)
    assert averages_across(saves, "r") == averages_across(saves, "r", decay=0.99) == []
    (found,) = averages_across(saves, "r", decay=0.9)
    assert (found.severity, found.evidence["what"], found.evidence["decay"]) == ("warning", "average lags", 0.9)


@pytest.mark.parametrize(
    ("config", "decay"),
    [
        ({"ema_decay": 0.99}, 0.99),
        ({"model": {"ema": {"decay": 0.9999, "start": 10}}}, 0.9999),
        ({"model": {"ema": {"decay": 0.9, "every": 10}}}, 0.9**0.1),
        ({"ema_decay": 0.9, "ema_update_every": 10, "ema_interval": 5}, None),
        ({"use_ema": True, "ema_momentum": 0.0002}, 0.9998),
        ({"ema_decay": 0.99, "teacher": {"ema_decay": 0.996}}, None),
        ({"weight_decay": 0.1, "betas": [0.9, 0.999], "beta": 0.9}, None),
        ({"ema_decay": 1.0}, None),
        ({}, None),
    ],
)
def test_the_decay_of_a_configuration_is_taken_where_there_is_one(config: dict[str, Any], decay: float | None) -> None:
    assert stated_decay(config) == (None if decay is None else pytest.approx(decay))


@pytest.mark.parametrize(("start", "severity"), [(40_000, "warning"), (200, "info")])
def test_an_average_that_forgets_faster_than_any_warm_up_of_its_decay_is_found(
    start: int, severity: str, tmp_path: Path
) -> None:
    """Early in a training, or where nothing but a name counts the steps, a warm-up or epochs may explain it."""
    (found,) = averages_across(course(tmp_path, 0.9, 60, 10.0, 2, start=start, ema_decay=0.9995), "r")
    assert (found.severity, found.evidence["what"]) == (severity, "average forgets")
    assert float(found.evidence["times_longer"] or 1) < 1 / 3
    assert ("warmed up" in found.message) is (severity == "info")


@pytest.mark.parametrize("warm", ["tensorflow", "yolo"])
@pytest.mark.parametrize("start", [0, 300, 3000, 30_000])
@pytest.mark.parametrize("decay", [0.99, 0.999])
def test_an_average_whose_decay_is_warmed_up_is_never_a_warning(
    warm: str, start: int, decay: float, tmp_path: Path
) -> None:
    for seed in range(2):
        saves = course(tmp_path, decay, 60, 10.0, seed, start=start, warm=warm, ema_decay=decay)
        assert [one.severity for one in averages_across(saves, "r") if one.severity != "info"] == []


def test_weights_that_are_their_own_average_many_steps_on_are_told(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=64)
    (found,) = averages_within(saved(tmp_path, 500, weights, weights), "r")
    assert (found.severity, found.evidence["what"]) == ("info", "average equals weights")
    assert averages_within(saved(tmp_path, 0, weights, weights), "r") == []


def test_weights_that_are_not_finite_have_no_lag(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = saved(tmp_path, 10, rng.normal(size=8), rng.normal(size=8))
    two = saved(tmp_path, 20, np.full(8, np.nan), rng.normal(size=8))
    assert averages_across([one, two], "r") == []
