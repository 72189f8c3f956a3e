"""Stacks whose early layers have next to no gradient, all along or at first, beside losses that fall or stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from analysis.findings import Finding
from analysis.gradient.levels import LossLevels
from analysis.gradients import gradients
from tests.analysis.gradient.build import mlp, run_of, train

N = 300
X = np.arange(N) / N
RNG = np.random.default_rng(11)
NOISE = np.exp(0.3 * RNG.normal(size=N))
#: A loss of small batches: rows vary by a third around where it stands.
STANDS = 1.1 * np.exp(0.3 * RNG.normal(size=N))
FALLING = STANDS * (0.2 + 0.8 * np.exp(-5 * X))


def stack(decades: np.ndarray | float, *, whole: str = "grad_norm", layers: int = 6) -> dict[str, np.ndarray]:
    """Norms of six layers, so many decades from the first to the last, and that of all."""
    norms = {
        f"grad_norm/{i}": 0.5 * NOISE * 10.0 ** (-np.asarray(decades) * (1 - i / (layers - 1))) for i in range(layers)
    }
    return norms | {whole: np.sqrt(sum(np.square(norm) for norm in norms.values()))}


def vanished(columns: dict[str, np.ndarray]) -> list[Finding]:
    return [f for f in gradients(run_of(columns)).findings if f.kind == "vanishing-gradient"]


@pytest.mark.parametrize("whole", ["grad_norm", "grad_2.0_norm_total"])
def test_a_stack_that_vanishes_under_a_noisy_loss_that_stands_is_a_warning_however_its_norm_is_named(
    whole: str,
) -> None:
    (finding,) = vanished({"loss": STANDS, **stack(6.0, whole=whole)})
    assert (finding.severity, finding.evidence["share_of_the_run"]) == ("warning", 1.0)
    assert finding.evidence["decades"] == pytest.approx(6.0, abs=0.2)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_layers_that_woke_late_are_a_warning_where_the_loss_stood_until_then(share: float) -> None:
    asleep = np.clip(6.0 - 6.0 * np.maximum(X - share, 0) / 0.1, 0.5, None)
    loss = STANDS * np.where(share > X, 1.0, 0.5)
    (finding,) = vanished({"loss": loss, **stack(asleep)})
    assert finding.severity == "warning" and "the loss does not fall until then" in finding.message
    assert (finding.last_step or 0) / N == pytest.approx(share, abs=0.1) and finding.first_step == 0


def test_layers_that_woke_soon_or_while_the_loss_fell_are_no_finding() -> None:
    for loss, share in ((STANDS, 0.2), (FALLING, 0.6)):
        asleep = np.where(share > X, 6.0, 0.5)
        assert vanished({"loss": loss * np.where(share > X, 1.0, 0.5), **stack(asleep)}) == []


def test_a_stack_that_learns_all_the_same_is_information() -> None:
    assert [f.severity for f in vanished({"loss": FALLING, **stack(3.5)})] == ["info"]
    assert vanished({"loss": FALLING, **stack(2.0)}) == [] == vanished({"loss": STANDS, **stack(2.0)})


def test_layers_that_move_without_any_effect_are_a_warning_where_their_gradient_is_lost() -> None:
    moves = {"update_ratio/0": np.full(N, 1e-3)}
    assert [f.severity for f in vanished({"loss": STANDS, **stack(6.0), **moves})] == ["warning"]
    assert [f.severity for f in vanished({"loss": STANDS, **stack(3.3), **moves})] == ["info"]
    assert [f.severity for f in vanished({"loss": FALLING, **stack(6.0), **moves})] == ["info"]


def test_a_real_stack_of_sigmoids_vanishes_and_one_of_relus_does_not(tmp_path: Path) -> None:
    def found(name: str, activation: type[nn.Module]) -> list[str]:
        run = train(tmp_path / name, lambda: mlp(activation, 8), optimizer="sgd", lr=0.1)
        return [f.severity for f in gradients(run).findings if f.kind == "vanishing-gradient"]

    assert found("sigmoid", nn.Sigmoid) == ["warning"]
    assert found("relu", nn.ReLU) == []


def test_a_loss_has_fallen_only_by_more_than_its_noise_and_the_share_asked_for() -> None:
    steps = np.arange(float(N))
    assert LossLevels(steps, FALLING).fell_by(0.5) and not LossLevels(steps, STANDS).fell_by(0.05)
    assert not LossLevels(steps, np.linspace(1.0, 0.97, N)).fell_by(0.05)
    late = np.where(steps < 200, 2.0, 1.0)
    assert LossLevels(steps, late).fell_by(0.05) and not LossLevels(steps, late).fell_by(0.05, until=199.0)
    assert LossLevels(steps, -2.0 + late).fell_by(0.05)
    assert not LossLevels(np.empty(0), np.empty(0)).fell_by(0.05)
