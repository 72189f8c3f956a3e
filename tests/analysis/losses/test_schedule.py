from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.accounting.schedule import infer_schedule

STEPS = np.arange(0.0, 3000)


def eased(start: float, length: float, shape: str) -> np.ndarray:
    share = np.clip((STEPS - start) / length, 0, 1)
    return share if shape == "linear" else (1 - np.cos(np.pi * share)) / 2


@pytest.mark.parametrize("decimals", [None, 4])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("every", [1, 5])
def test_a_ramp_between_two_constants_is_found_where_it_lies(shape: str, decimals: int | None, every: int) -> None:
    weights = 0.7 - 0.2 * eased(1000, 400, shape)
    tolerance = 1e-6 if decimals is None else 0.5 * 10.0**-decimals
    weights = weights if decimals is None else np.round(weights, decimals)
    found = infer_schedule(STEPS[::every], weights[::every], tolerance)
    assert [s.shape for s in found] == ["constant", shape, "constant"]
    assert found[1].start == pytest.approx(1000, abs=15) and found[1].end == pytest.approx(1400, abs=15)
    assert (found[0].first, found[2].last) == pytest.approx((0.7, 0.5))


def test_phases_without_ramps_are_constants_between_their_steps() -> None:
    weights = np.select([STEPS < 100, STEPS < 2000], [0.0, 0.3], 0.1)
    found = [(s.start, s.end, s.shape, s.first) for s in infer_schedule(STEPS, weights)]
    assert found == [(0, 99, "constant", 0.0), (100, 1999, "constant", 0.3), (2000, 2999, "constant", 0.1)]


def test_two_cosine_ramps_in_one_direction_are_two() -> None:
    weights = 0.2 * eased(500, 300, "cosine") + 0.6 * eased(1500, 600, "cosine")
    assert [s.shape for s in infer_schedule(STEPS, weights)] == ["constant", "cosine", "constant", "cosine", "constant"]


def test_weights_that_move_freely_are_no_schedule() -> None:
    for seed in range(5):
        found = infer_schedule(STEPS, np.random.default_rng(seed).random(3000))
        assert [s.shape for s in found] == ["free"]


@pytest.mark.parametrize(
    ("weights", "shapes"),
    [
        ([], []),
        ([0.5], ["constant"]),
        ([0.5, 0.7], ["constant"] * 2),
        ([np.nan, np.nan], []),
        ([0.5, np.nan, 0.5], ["constant"]),
    ],
)
def test_short_and_missing_weights_are_cases(weights: list[float], shapes: list[str]) -> None:
    found = infer_schedule(np.arange(float(len(weights))), np.array(weights, float))
    assert [s.shape for s in found] == shapes


def test_pieces_follow_one_another_and_cover_every_step() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weights = np.repeat(rng.random(5), 600) + 0.1 * eased(float(rng.integers(0, 2000)), 500, "cosine")
        found = infer_schedule(STEPS, weights)
        if found[0].shape != "free":
            assert found[0].start == 0 and found[-1].end == 2999
            assert all(b.start == a.end + 1 for a, b in itertools.pairwise(found))
