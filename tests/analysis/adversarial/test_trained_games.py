"""Trained GANs of three families: a discriminator that learned nothing is found, a balanced game is silent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.diagnose import diagnose
from analysis.gan import GanHealth, gan
from tests.analysis.adversarial.games import FAMILIES, Fault, run_of, trained


def judged(family: str, seed: int = 0, fault: Fault = "", **more: Any) -> GanHealth:
    return gan(run_of(trained(family, seed, fault), config={"gan_loss": family}, **more))


def warned(result: Any) -> set[str]:
    return {f.kind for f in result.findings if f.severity != "info"}


@pytest.mark.parametrize("family", FAMILIES)
def test_healthy_games_are_silent_in_every_check(family: str) -> None:
    for seed in range(2):
        run = run_of(trained(family, seed), config={"gan_loss": family})
        told = diagnose(run)
        assert not told.findings, (seed, told.findings)
        assert {"discriminator-idle", "player-imbalance", "adversarial-phase"} <= set(told.judged)


@pytest.mark.parametrize("family", FAMILIES)
def test_idle_discriminators_are_found_and_healthy_ones_never(family: str) -> None:
    idle = [judged(family, 10, "alike"), judged(family, 11, "alike"), judged(family, 12, "blind")]
    assert [warned(result) for result in idle] == [{"discriminator-idle"}] * 3
    healthy = [judged(family, seed).skill for seed in range(2)]
    best = [abs(skill.best) for skill in healthy if skill is not None]
    worst = max(abs(result.skill.best) for result in idle if result.skill is not None)
    assert len(best) == 2 and min(best) > 2 * 0.02 > 2 * worst, "the limit lies between the two, far from the healthy"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_discriminator_that_never_steps_loses_and_is_not_called_idle(family: str) -> None:
    """Its outputs are those of a random network, which the generator soon fools."""
    result = judged(family, 11, "frozen")
    assert "generator-dominance" in warned(result)
    assert "discriminator-idle" not in {f.kind for f in result.findings}


def test_the_cause_is_told_by_the_gradient_norm() -> None:
    alike, blind = (judged("bce", seed, fault).findings[0] for seed, fault in ((10, "alike"), (12, "blind")))  # type: ignore[arg-type]
    assert "are alike" in alike.causes[0] and "has something to follow" in alike.causes[0]
    assert blind.evidence["gradient_norm"] is not None
    values = {k: v for k, v in trained("bce", 10, "alike").items() if "grad" not in k}
    (unknown,) = gan(run_of(values)).findings
    assert "not logged and would tell" in unknown.causes[0] and unknown.evidence["gradient_norm"] is None


def test_by_the_loss_alone_an_idle_discriminator_is_an_info_that_says_what_to_record() -> None:
    values = {k: v for k, v in trained("bce", 12, "blind").items() if k in ("step", "d_loss", "g_loss")}
    (finding,) = gan(run_of(values), family="bce").findings
    assert (finding.kind, finding.severity) == ("discriminator-idle", "info")
    assert "record d_real and d_fake" in finding.suggestions[-1]


def test_a_game_that_came_back_to_balance_is_no_idle_one() -> None:
    rng = np.random.default_rng(0)
    apart = 0.4 * np.exp(-np.arange(2000) / 10) + 0.002 * rng.normal(size=2000)
    series = {"d_real": 0.5 + apart / 2, "d_fake": 0.5 - apart / 2}
    result = gan(run_of(series))
    assert not result.findings and result.skill is not None
    assert abs(result.skill.late) < 0.02 < result.skill.best, "at balance for 98 % of the run, after it had learned"


def test_a_log_that_begins_late_cannot_tell() -> None:
    values = {k: v for k, v in trained("bce", 10, "alike").items() if k != "step"}
    reasons = {n.kind: n.reason for n in gan(run_of(values, first=50_000)).not_applicable}
    assert "begins at step 50000" in reasons["discriminator-idle"]


def test_the_scale_of_outputs_follows_the_family() -> None:
    rng = np.random.default_rng(1)
    outputs = {"d_real": 0.5 + 0.01 * rng.normal(size=60), "d_fake": -0.5 + 0.01 * rng.normal(size=60)}
    hinge = gan(run_of({**outputs, "d_loss": np.full(60, 1.0)}), family="hinge").skill
    lsgan = gan(run_of({**outputs, "d_loss": np.full(60, 0.5)}), family="lsgan").skill
    logits = gan(run_of({**outputs, "d_loss": np.full(60, 1.0)}), family="bce").skill
    assert hinge is not None and lsgan is not None and logits is not None
    levels = (hinge.best, lsgan.best, logits.best)
    assert levels == pytest.approx((0.5, 1.0, 0.5), abs=0.02)
    assert gan(run_of(outputs)).skill is None, "outputs without a family may be those of a Wasserstein critic"
    assert gan(run_of({**outputs, "d_loss": np.full(60, 1.0)}), family="wgan").skill is None
