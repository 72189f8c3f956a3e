"""The pace of two players: gradient norms that drift apart, rates, updates, shares, and a D that knows its data."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.findings import Finding
from analysis.gan import gan
from tests.analysis.adversarial.games import run_of

SEEDS = 50


def norms(seed: int, n: int, times: float = 1.0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Norms of both players that swing, the discriminator's `times` smaller from the middle on."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / n
    swing = np.exp(0.8 * np.sin(2 * np.pi * (rng.uniform(2, 8) * t + rng.uniform())))
    d = np.exp(0.4 * rng.normal(size=n)) / np.where(t < 0.5, 1.0, times)
    return {"grad_norm_g": scale * swing * np.exp(0.4 * rng.normal(size=n)), "grad_norm_d": d}


def found(series: dict[str, np.ndarray]) -> list[Finding]:
    return [f for f in gan(run_of(series)).findings if f.kind == "player-imbalance"]


def test_norms_that_swing_and_networks_of_unlike_size_are_silent() -> None:
    told = [found(norms(seed, 30 + 10 * seed, scale=10.0 ** (seed % 7 - 3))) for seed in range(SEEDS)]
    assert sum(map(len, told)) == 0


@pytest.mark.parametrize(("times", "severity"), [(120.0, "info"), (1500.0, "warning")])
def test_norms_that_drift_apart_are_found_where_they_did(times: float, severity: str) -> None:
    hits, places = 0, []
    for seed in range(SEEDS):
        told = found(norms(seed, 200, times))
        hits += [f.severity for f in told] == [severity]
        places += [f.first_step for f in told]
    assert hits >= 0.96 * SEEDS
    assert np.median(np.abs(np.array(places) - 100)) <= 4, "two records in a hundred"


def test_a_drift_that_passes_is_silent() -> None:
    for seed in range(SEEDS):
        values = norms(seed, 200)
        values["grad_norm_d"][80:120] /= 1000
        assert found(values) == []


def test_ratios_come_of_the_log_and_else_of_the_configuration() -> None:
    values = {**norms(0, 60), "lr_g": np.full(60, 1e-4), "lr_d": np.full(60, 4e-4)}
    values |= {"adv_loss": np.full(60, 2.0), "loss_fm": np.full(60, 6.0), "d_loss": np.full(60, 1.2)}
    logged = gan(run_of(values, config={"n_critic": 5})).ratios
    assert logged["learning_rate_ratio"] == pytest.approx(0.25) and logged["discriminator_updates"] == 5
    assert logged["feature_matching_share"] == pytest.approx(0.75)
    configured = gan(run_of(norms(0, 60), config={"generator_lr": 1e-3, "optim": {"discriminator_lr": 2e-3}})).ratios
    assert configured["learning_rate_ratio"] == pytest.approx(0.5)
    assert "feature_matching_share" not in configured


def test_a_player_without_a_gradient_has_no_ratio() -> None:
    values = norms(0, 60)
    values["grad_norm_d"][:] = 0.0
    result = gan(run_of(values))
    assert "gradient_norm_ratio" not in result.ratios
    assert "player-imbalance" in {n.kind for n in result.not_applicable}


@pytest.mark.parametrize(("name", "late", "kinds"), [
    ("Loss/signs/real", 0.6, []),
    ("Loss/signs/real", 0.97, ["discriminator-overfitting"]),
    ("ada_rt", 0.97, ["discriminator-overfitting"]),
    ("r_t", 0.85, []),
])  # fmt: skip
def test_a_discriminator_that_knows_its_data_by_heart_is_found(name: str, late: float, kinds: list[str]) -> None:
    rng = np.random.default_rng(0)
    r_t = np.clip(late * np.minimum(np.arange(200) / 60, 1) + 0.02 * rng.normal(size=200), -1, 1)
    assert [f.kind for f in gan(run_of({name: r_t})).findings] == kinds


def test_what_is_missing_is_said_with_what_to_record() -> None:
    reasons = {n.kind: n.reason for n in gan(run_of({"g_loss": np.ones(50), "d_loss": np.ones(50)})).not_applicable}
    assert "record both" in reasons["player-imbalance"] and "no r_t" in reasons["discriminator-overfitting"]


def subs(winners: int, n: int = 120, level: float = 0.5) -> dict[str, np.ndarray]:
    """Losses of five LSGAN sub-discriminators, of which the first few win at the half."""
    rng = np.random.default_rng(0)
    falls = np.where(np.arange(n) < n // 2, 1.0, 0.01)
    made = {f"d_loss/mpd.{i}": level * np.exp(0.1 * rng.normal(size=n)) for i in range(5)}
    return {name: values * falls if i < winners else values for i, (name, values) in enumerate(made.items())}


@pytest.mark.parametrize(("winners", "severity"), [(0, []), (2, ["info"]), (4, ["warning"])])
def test_sub_discriminators_that_won_are_named_by_their_losses_too(winners: int, severity: list[str]) -> None:
    told = [f for f in gan(run_of(subs(winners)), family="lsgan").findings if f.kind == "discriminator-dominance"]
    assert [f.severity for f in told] == severity
    for finding in told:
        assert (
            f"{winners} of 5 sub-discriminators" in finding.message and "mpd.0 (0.01 since step 60)" in finding.message
        )


def test_critics_of_a_wasserstein_gan_have_no_equilibrium_to_fall_below() -> None:
    assert gan(run_of(subs(4)), family="wgan").findings == ()
