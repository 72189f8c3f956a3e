"""Adversarial terms have no reason to fall: nothing in a benign game is judged as a loss that should."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.adversarial.terms import adversarial_terms
from analysis.diagnose import diagnose
from analysis.gan import gan
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


def stylegan(seed: int, n: int = 200) -> dict[str, np.ndarray]:
    """The names of StyleGAN2-ADA, in a game as it should be: r_t at its target, scores apart."""
    rng = np.random.default_rng(seed)
    noise = np.exp(0.1 * rng.normal(size=(5, n)))
    outputs = {"Loss/scores/real": 0.6, "Loss/scores/fake": -0.6, "Loss/signs/real": 0.6, "Loss/signs/fake": -0.6}
    return {
        "Loss/G/loss": 0.8 * noise[0],
        "Loss/D/loss": 1.1 * noise[1],
        "Loss/D/reg": np.linspace(0.1, 0.01, n) * noise[2],
        "Loss/r1_penalty": np.linspace(0.02, 0.2, n) * noise[3],
        "Loss/pl_penalty": np.linspace(0.5, 0.02, n) * noise[4],
        "Progress/augment": np.linspace(0, 0.4, n),
        **{name: level + 0.1 * rng.normal(size=n) for name, level in outputs.items()},
    }


def test_the_penalty_of_a_discriminator_is_not_taken_for_its_loss() -> None:
    result = gan(run_of(stylegan(0)))
    assert result.signals["discriminator_loss"].metric == "Loss/D/loss" and not result.findings
    assert result.ratios["ada_r_t"] == pytest.approx(0.6, abs=0.05)
    for seed in range(SEEDS):
        assert warned(run_of(stylegan(seed))) == []
