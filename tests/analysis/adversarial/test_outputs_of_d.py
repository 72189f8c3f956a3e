"""What D's outputs tell of a game whose losses leave it open: who wins, of which family the losses are, since when."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from analysis.gan import gan
from parsers.finish import finish
from parsers.run import Run

Floats = NDArray[np.float64]
N = 200


def run_of(series: dict[str, Floats]) -> Run:
    frames = [
        pl.DataFrame({"tag": [tag] * len(v), "step": np.arange(len(v)) * 10, "value": v}) for tag, v in series.items()
    ]
    return finish("r", "r.jsonl", "jsonl", pl.concat(frames))


def warned(series: dict[str, Floats]) -> dict[str, int | None]:
    return {f.kind: f.first_step for f in gan(run_of(series)).findings if f.severity != "info"}


def probabilities(seed: int, real: Floats, fake: Floats) -> dict[str, Floats]:
    """BCE losses of a discriminator whose mean outputs these are, with the noise of batches."""
    rng = np.random.default_rng(seed)
    real, fake = (np.clip(p + 0.015 * rng.normal(size=N), 0.002, 0.998) for p in (real, fake))
    return {"d_real": real, "d_fake": fake, "d_loss": -np.log(real) - np.log(1 - fake), "g_loss": -np.log(fake)}


@pytest.mark.parametrize("gap", [0.12, 0.3])
def test_a_discriminator_that_takes_fake_for_real_to_the_end_is_found_where_that_begins(gap: float):
    turned = np.clip((np.arange(N) - 100) / 5, 0, 1) * (gap + 0.02)
    for seed in range(30):
        told = warned(probabilities(seed, 0.51 - turned / 2, 0.49 + turned / 2))
        assert list(told) == ["generator-dominance"] and 970 <= (told["generator-dominance"] or 0) <= 1060


def test_a_discriminator_at_balance_or_wrong_for_a_while_is_part_of_the_game():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        wander = 0.05 * np.sin(np.arange(N) / rng.uniform(3, 20)) + 0.02
        assert warned(probabilities(seed, 0.5 + wander / 2, 0.5 - wander / 2)) == {}
        episode = 0.3 * ((np.arange(N) >= 80) & (np.arange(N) < 110))
        assert warned(probabilities(seed, 0.53 - episode / 2, 0.47 + episode / 2)) == {}


def test_a_discriminator_that_wins_from_the_first_rows_on_is_found_by_the_sum_that_its_outputs_tell():
    won = np.clip(np.arange(N) / 10, 0, 1)
    for seed in range(30):
        told = warned(probabilities(seed, 0.75 + 0.22 * won, 0.25 - 0.22 * won))
        assert list(told) == ["discriminator-dominance"], told


@pytest.mark.parametrize("critic", [False, True])
def test_hinge_outputs_that_drift_far_beyond_their_margins_are_a_lost_game_and_those_of_a_critic_are_none(critic: bool):
    t = np.arange(N) / N
    for seed in range(30):
        rng = np.random.default_rng(seed)
        real, fake = 1 + 9 * t + 0.2 * rng.normal(size=N), -1 - 3 * t + 0.2 * rng.normal(size=N)
        loss = real - fake if critic else 0.35 + 0.05 * rng.normal(size=N)
        told = warned({"d_real": real, "d_fake": fake, "d_loss": loss, "g_loss": -fake + 0.05 * rng.normal(size=N)})
        assert ("discriminator-dominance" in told) is not critic


def test_diversity_that_halves_and_stays_is_found_and_one_that_swings_is_none():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        steady = np.minimum(0.5 + 5 * np.arange(N) / N, 1.0) * np.exp(0.03 * rng.normal(size=N))
        halved = np.where(np.arange(N) >= 120, 0.5, 1.0)
        told = warned({"diversity": steady * halved})
        assert list(told) == ["mode-collapse"] and abs((told["mode-collapse"] or 0) - 1200) <= 20
        swings = 0.75 + 0.25 * np.sin(np.arange(N) / rng.uniform(5, 30) + rng.uniform(0, 6))
        assert warned({"diversity": steady * swings}) == {}
