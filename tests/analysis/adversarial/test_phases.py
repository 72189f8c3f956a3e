"""Adversarial terms that are exactly 0: when their phase began, and whether it was to begin at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.adversarial.phases import planned_starts, starts_of
from analysis.findings import Finding
from analysis.gan import gan
from tests.analysis.adversarial.games import run_of

N, EVERY = 200, 50


def vocoder(begin: int, seed: int = 0) -> dict[str, Any]:
    """A vocoder's log, a row every 50 steps, whose adversarial phase begins at row `begin` (never at 200)."""
    rng = np.random.default_rng(seed)
    on = np.arange(N) >= begin
    noise = np.exp(0.1 * rng.normal(size=(5, N)))
    mel = (40 * np.exp(-np.arange(N) / 40) + 15) * noise[0]
    adversarial = np.where(on, 2.4 * noise[1], 0.0)
    matching = np.where(on, 1.2 * noise[2], 0.0)
    return {
        "step": np.arange(N) * EVERY,
        "mel_loss": mel,
        "adversarial_loss": adversarial,
        "feature_matching_loss": matching,
        "generator_loss": mel + adversarial + 2 * matching,
        "discriminator_loss": np.where(on, 0.42 * noise[3], 0.0),
    }


def phases(begin: int, **config: Any) -> list[Finding]:
    return [f for f in gan(run_of(vocoder(begin), config=config)).findings if f.kind == "adversarial-phase"]


def test_a_phase_that_begins_later_is_an_info_with_its_step() -> None:
    (finding,) = phases(60)
    assert (finding.severity, finding.first_step) == ("info", 60 * EVERY)
    assert "until step 3,000" in finding.message and finding.evidence["terms"] == 3
    assert finding.evidence["zero_records"] == 60 and finding.evidence["planned"] is None


def test_a_phase_that_never_begins_is_an_info_unless_a_start_was_planned() -> None:
    (open_ended,) = phases(N)
    assert open_ended.severity == "info" and "no plan says which" in open_ended.causes[0]
    (overdue,) = phases(N, discriminator_train_start_steps=5000)
    assert overdue.severity == "warning" and "planned from step 5,000 on" in overdue.message
    assert overdue.evidence["planned"] == 5000 and overdue.suggestions
    (waiting,) = phases(N, discriminator_train_start_steps=50_000)
    assert waiting.severity == "info", "the log ends before the planned step"


def test_a_phase_that_began_as_planned_or_was_there_at_once_is_no_fault() -> None:
    (planned,) = phases(100, disc_start=5000)
    assert planned.severity == "info" and planned.evidence["began_step"] == 5000
    assert phases(0) == [] and phases(0, disc_start=5000) == []


def test_single_zeros_are_values_and_no_phase() -> None:
    assert phases(2) == [] and len(phases(3)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "discriminator_start", "start_discriminator", "disc_start", "adv_start", "discriminator_train_start_steps",
        "steps_to_start_discriminator", "gan_start_step", "discriminatorStart", "loss.params.disc_start",
    ],
)  # fmt: skip
def test_the_names_that_people_use_for_the_start_are_known(name: str) -> None:
    (found,) = planned_starts(run_of({"g_loss": np.ones(5)}, config={name: 700}))
    assert (found.at, found.epochs) == (700.0, False)


@pytest.mark.parametrize("name", ["restart", "warmup_start_lr", "start_step", "discriminator_lr", "disc_conditional"])
def test_other_names_are_not_taken_for_it(name: str) -> None:
    assert planned_starts(run_of({"g_loss": np.ones(5)}, config={name: 700})) == []


@pytest.mark.parametrize("value", [0, -1, True, None, "5000", float("nan"), float("inf")])
def test_values_that_are_no_later_start_are_left(value: Any) -> None:
    assert planned_starts(run_of({"g_loss": np.ones(5)}, config={"disc_start": value})) == []


def test_a_start_in_epochs_is_held_against_epochs() -> None:
    values = vocoder(N)
    run = run_of(values, config={"disc_start_epoch": 3})
    assert planned_starts(run)[0].epochs
    (unknown,) = [f for f in gan(run).findings if f.kind == "adversarial-phase"]
    assert unknown.severity == "info", "the log has no epochs: step 9,950 says nothing of epoch 3"
    with_epochs = run.scalars.with_columns(epoch=pl.col("step") / 1000)
    from parsers.finish import finish

    rows = with_epochs.select("tag", "step", "epoch", "value")
    told = gan(finish("r", "r.jsonl", "jsonl", rows, config={"disc_start_epoch": 3})).findings
    assert [f.severity for f in told if f.kind == "adversarial-phase"] == ["warning"]


def test_the_game_is_judged_from_its_beginning_on() -> None:
    result = gan(run_of(vocoder(60)), family="lsgan")
    rows = {row["role"]: row for row in result.frame.iter_rows(named=True)}
    assert rows["discriminator_loss"]["begins"] == 3000 and rows["discriminator_loss"]["points"] == N - 60
    assert rows["discriminator_loss"]["equilibrium"] == 0.5
    assert not [f for f in result.findings if f.severity != "info"]


def test_a_game_that_never_began_is_not_called_lost() -> None:
    result = gan(run_of(vocoder(N)))
    reasons = {n.kind: n.reason for n in result.not_applicable}
    assert "no game has begun" in reasons["discriminator-dominance"]
    assert {f.kind for f in result.findings} == {"adversarial-phase"}


def test_starts_tell_each_term_of_its_own() -> None:
    values = vocoder(60)
    values["feature_matching_loss"] = np.where(np.arange(N) >= 120, 1.0, 0.0)
    starts = {start.metric: start.began for start in starts_of(run_of(values))}
    assert starts["adversarial_loss"] == 3000 and starts["feature_matching_loss"] == 6000
    assert starts["generator_loss"] == 0
    assert len([f for f in gan(run_of(values)).findings if f.kind == "adversarial-phase"]) == 2
