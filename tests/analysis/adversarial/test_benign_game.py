"""Adversarial terms have no reason to fall: nothing in a benign game is judged as a loss that should."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.adversarial.terms import adversarial_terms
from analysis.diagnose import diagnose
from parsers.run import Run
from tests.analysis.adversarial.games import run_of
from tests.analysis.adversarial.test_phases import vocoder

SEEDS = 4


def warned(run: Run) -> list[tuple[str, str | None]]:
    return [(f.kind, f.metric) for f in diagnose(run).findings if f.severity != "info"]


def test_a_vocoder_whose_adversarial_phase_begins_later_is_healthy_in_every_check() -> None:
    for seed in range(SEEDS):
        assert warned(run_of(vocoder(60, seed), config={"disc_start": 3000})) == []


def game(seed: int, n: int = 400) -> dict[str, np.ndarray]:
    """Terms that rise, stand, leap to another level, and swing: each would be a fault of a loss that should fall."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / n
    noise = np.exp(0.05 * rng.normal(size=(6, n)))
    swing = 1 + 0.5 * np.sin(2 * np.pi * 9 * t)
    return {
        "loss/g/total": (30 - 6 * t) * noise[0],
        "loss/g/adv": (1 + 2 * t) * noise[1],
        "loss/g/feature_matching": np.where(t < 0.5, 2.0, 4.5) * noise[2],
        "loss/d/total": 3.6 * swing * noise[3],
        "discriminator/real_loss": 1.9 * swing * noise[4],
        "discriminator/fake_loss": np.where(t < 0.6, 0.8, 2.6) * noise[5],
    }


def test_terms_that_rise_stand_leap_or_swing_are_left_alone() -> None:
    for seed in range(SEEDS):
        assert warned(run_of(game(seed))) == []


def test_the_same_numbers_under_other_names_are_faults() -> None:
    values = game(0)
    names = {"loss/g/feature_matching": "loss/kd", "discriminator/fake_loss": "loss/ctc", "loss/g/adv": "loss/nll"}
    found = {kind for kind, _ in warned(run_of({names[name]: values[name] for name in names}))}
    assert found & {"divergence", "level-shift"}, "the test above could fail"


@pytest.mark.parametrize("names", [("adv_loss",), ("fm_loss", "loss"), ("adversarial_loss", "kd_loss")])
def test_without_players_such_names_are_losses_like_others(names: tuple[str, ...]) -> None:
    """Adversarial training of a classifier and flow matching have losses that fall."""
    assert adversarial_terms(run_of({name: np.ones(5) for name in names}).roles) == []


def test_the_losses_of_an_autoencoder_with_a_discriminator_are_told_apart() -> None:
    names = ("rec_loss", "kl_loss", "disc_loss", "g_loss", "disc_real_loss", "loss_fm", "r1_penalty_loss", "total_loss")
    terms = {one.metric for one in adversarial_terms(run_of({name: np.ones(5) for name in names}).roles)}
    assert terms == {"disc_loss", "g_loss", "disc_real_loss", "loss_fm", "r1_penalty_loss"}
