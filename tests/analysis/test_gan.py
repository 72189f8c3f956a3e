"""GAN health: planted collapse and dominance are found in every loss family, the normal game is silent."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from analysis.adversarial.gan_signals import EQUILIBRIA, equilibrium_of, find_signals
from analysis.gan import gan
from parsers.finish import finish
from parsers.run import Run

Floats = NDArray[np.float64]
SEEDS = 50
BALANCE = {"bce": (2 * math.log(2), math.log(2)), "lsgan": (0.5, 0.25), "hinge": (2.0, 0.7)}


def run_of(series: dict[str, Floats], **more: object) -> Run:
    frames = [
        pl.DataFrame({"tag": [tag] * len(v), "step": np.arange(len(v)) * 10, "value": v}) for tag, v in series.items()
    ]
    return finish("r", "r.jsonl", "jsonl", pl.concat(frames), **more)  # type: ignore[arg-type]


def game(seed: int, family: str = "bce", n: int = 300, noise: float = 0.15) -> dict[str, Floats]:
    """Two players that swing around some balance, never settling: what a healthy GAN logs."""
    rng = np.random.default_rng(seed)
    d, g = BALANCE[family]
    t = np.arange(n) / n
    swing = 0.35 * np.sin(2 * np.pi * (rng.uniform(3, 12) * t + rng.uniform()))
    return {
        "d_loss": d * rng.uniform(0.5, 1.0) * (1 + swing) * np.exp(noise * rng.normal(size=n)),
        "g_loss": g * rng.uniform(1.0, 3.0) * (1 - swing) * np.exp(noise * rng.normal(size=n)),
        "diversity": np.minimum(0.3 + 2 * t, 0.9) * np.exp(noise * rng.normal(size=n)),
    }


def found(run: Run) -> dict[str, str]:
    return {f.kind: f.severity for f in gan(run).findings}


@pytest.mark.parametrize("noise", [0.05, 0.3])
@pytest.mark.parametrize("family", BALANCE)
def test_the_normal_game_is_silent(family: str, noise: float):
    for seed in range(SEEDS):
        assert found(run_of(game(seed, family, n=50 + 20 * seed, noise=noise))) == {}


def test_a_short_win_of_either_side_is_part_of_the_game():
    for seed in range(SEEDS):
        values = game(seed)
        values["d_loss"][100:150] *= 0.01
        values["g_loss"][100:150] *= 5
        values["diversity"][180:200] *= 0.1
        assert found(run_of(values)) == {}


@pytest.mark.parametrize(("left", "severity"), [(0.2, "warning"), (0.04, "critical")])
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_collapse_of_diversity_is_found_where_it_was_planted(left: float, severity: str, noise: float):
    hits, places = Counter[str | None](), []
    for seed in range(SEEDS):
        values = game(seed, noise=noise)
        values["diversity"][200:] *= left
        result = gan(run_of(values))
        hits[{f.kind: f.severity for f in result.findings}.get("mode-collapse")] += 1
        places += [f.first_step for f in result.findings]
    assert hits[severity] >= 0.96 * SEEDS and hits[None] == 0
    assert np.median(np.abs(np.array(places) - 2000)) <= 50


def test_diversity_that_falls_by_a_third_is_no_collapse():
    for seed in range(SEEDS):
        values = game(seed)
        values["diversity"][150:] *= 0.65
        assert found(run_of(values)) == {}


@pytest.mark.parametrize("family", BALANCE)
def test_a_discriminator_that_wins_outright_is_found(family: str):
    for seed in range(SEEDS):
        values = game(seed, family)
        fade = np.minimum(np.exp(-(np.arange(300) - 120) / 15.0), 1.0)
        values["d_loss"] *= fade
        values["g_loss"] *= 1 + 5 * (1 - fade)
        assert found(run_of(values)) == {"discriminator-dominance": "critical"}


def test_outputs_at_their_extremes_are_the_second_sign_of_dominance():
    values = game(0)
    values["d_loss"][150:] *= 0.02
    values["g_loss"] = np.full(300, 2.0)
    assert found(run_of(values)) == {"discriminator-dominance": "info"}, "a small loss alone proves little"
    values["d_real"], values["d_fake"] = np.full(300, 0.99), np.full(300, 0.01)
    assert found(run_of(values)) == {"discriminator-dominance": "warning"}


@pytest.mark.parametrize("family", ["bce", "lsgan"])
def test_a_generator_that_fools_the_discriminator_outright_is_found(family: str):
    for seed in range(SEEDS):
        values = game(seed, family)
        d, g = BALANCE[family]
        rng = np.random.default_rng(seed)
        values["g_loss"][150:] = 0.03 * g * np.exp(0.2 * rng.normal(size=150))
        values["d_loss"][150:] = 2.0 * d * np.exp(0.2 * rng.normal(size=150))
        assert set(found(run_of(values, config={"gan_loss": family}))) == {"generator-dominance"}


def test_a_hinge_generator_that_fools_the_discriminator_is_found_and_a_loss_below_0_alone_is_none():
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        values = game(seed, "hinge")
        values["g_loss"][150:] = -2.0 + 0.3 * rng.normal(size=150)
        assert found(run_of(values, config={"gan_loss": "hinge"})) == {}, "D(fake) above its margin, D at balance"
        values["d_loss"][150:] = 4.5 * np.exp(0.2 * rng.normal(size=150))
        told = gan(run_of(values, config={"gan_loss": "hinge"})).findings
        assert [f.kind for f in told] == ["generator-dominance"] and abs((told[0].first_step or 0) - 1500) <= 50


def test_losses_at_balance_are_shown_beside_it_and_not_judged():
    rng = np.random.default_rng(0)
    for family in ("bce", "lsgan", "hinge"):
        d, g = BALANCE[family]
        values = {"d_loss": d + 0.01 * rng.normal(size=100), "g_loss": g + 0.01 * rng.normal(size=100)}
        result = gan(run_of(values))
        row = result.frame.filter(pl.col("role") == "discriminator_loss").row(0, named=True)
        assert result.status == "healthy" and row["family"] == family and row["equilibrium"] == pytest.approx(d)


def test_equilibria_follow_from_the_losses_themselves():
    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    table = {e.family: e for e in EQUILIBRIA}
    assert table["bce"].discriminator == pytest.approx(softplus(0) + softplus(0))
    assert table["bce"].generator == pytest.approx(softplus(0))
    assert table["lsgan"].discriminator == pytest.approx((0.5 - 1) ** 2 + 0.5**2)
    assert table["lsgan"].generator == pytest.approx((0.5 - 1) ** 2)
    assert table["hinge"].discriminator == pytest.approx(max(0, 1 - 0) + max(0, 1 + 0))
    for family in ("bce", "lsgan", "hinge"):
        assert table[f"{family}-mean"].discriminator == pytest.approx(table[family].discriminator / 2)


def test_sub_discriminators_scale_the_equilibrium():
    assert equilibrium_of(4.0, "lsgan", 8).generator == 2.0
    values = {"d_loss": np.full(50, 0.5), "g_loss": np.full(50, 2.0)}
    frame = gan(run_of(values), family="lsgan", discriminators=8).frame
    assert frame.filter(pl.col("role") == "generator_loss")["equilibrium"].item() == 2.0


def test_the_names_of_pix2pix_are_losses():
    values = {"G_GAN": np.full(60, 1.2), "D_real": np.full(60, 0.45), "D_fake": np.full(60, 0.55)}
    signals = find_signals(run_of(values))
    assert set(signals) == {"generator_loss", "discriminator_loss"}
    assert signals["discriminator_loss"].value == pytest.approx(np.ones(60))


def test_a_wasserstein_gan_is_judged_by_diversity_only():
    values = game(0)
    values["d_loss"] = -values["d_loss"]
    result = gan(run_of(values))
    unjudged = {n.kind for n in result.not_applicable}
    assert unjudged >= {"discriminator-dominance", "generator-dominance", "discriminator-idle"}
    assert "mode-collapse" not in unjudged and "Wasserstein" in result.not_applicable[0].reason
    assert {n.kind for n in gan(run_of(game(0), config={"gan_mode": "wgan-gp"})).not_applicable} == unjudged


def test_what_cannot_be_judged_is_said():
    nothing = gan(run_of({"loss": np.ones(50)}))
    assert len(nothing.not_applicable) == 7 and "no GAN series" in nothing.not_applicable[0].reason
    short = gan(run_of({k: v[:10] for k, v in game(0).items()}))
    assert sum("10 points; 20 are needed" in n.reason for n in short.not_applicable) == 3
    half = {n.kind: n.reason for n in gan(run_of({"g_loss": np.ones(50)})).not_applicable}
    assert half["discriminator-dominance"] == "no discriminator loss was logged"


def test_wrong_options_are_refused():
    run = run_of(game(0))
    with pytest.raises(ValueError, match="did you mean 'lsgan'"):
        gan(run, family="lsgann")
    with pytest.raises(ValueError, match="discriminators is 0"):
        gan(run, discriminators=0)


def test_values_that_are_not_finite_are_left_out():
    values = game(0)
    values["d_loss"][::5], values["diversity"][::3] = np.nan, np.inf
    assert found(run_of(values)) == {}


def test_the_plot_shows_both_losses_and_diversity():
    values = game(0)
    values["diversity"][200:] *= 0.04
    ax = gan(run_of(values)).plot()
    labels = {line.get_label() for line in ax.get_lines()}
    assert {"d_loss", "g_loss", "diversity"} <= labels
    assert "diversity fell" in ax.get_title(loc="left") + ax.get_title()
