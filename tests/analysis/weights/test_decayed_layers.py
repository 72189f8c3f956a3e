"""Whole layers that only weight decay moves are found, and those that are frozen, or learn slowly, are not blamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from analysis.findings import Finding
from tests.analysis.weights.test_dead_units import DECAYING, training
from tests.analysis.weights.trained import Training, loud, story

WHAT = "still, but for weight decay"


def told(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.evidence.get("what") == WHAT]


def stopped(made: Training, layer: str, at: int = 10) -> Training:
    """The same, with gradients of exactly 0 for one layer from a step on."""
    named = dict(made.model.named_parameters())

    def stop(now: Training) -> None:
        if now.step == at:
            for name in (f"{layer}.weight", f"{layer}.bias"):
                named[name].register_hook(torch.zeros_like)

    made.after_step = stop
    return made


@pytest.mark.parametrize(
    ("model", "layer", "optimizer"),
    [
        ("mlp", "4", "adamw"),
        ("mlp", "4", "sgd"),
        ("conv", "conv2", "adamw weakly"),
        ("conv", "conv2", "sgd"),
        ("transformer", "blocks.1.up", "adamw"),
    ],
)
def test_a_layer_without_a_gradient_that_decays_is_a_warning(
    model: str, layer: str, optimizer: str, tmp_path: Path
) -> None:
    stopped(training(tmp_path, model, optimizer), layer).run(5)
    (one,) = told(story(tmp_path))
    assert (one.kind, one.severity, one.metric) == ("frozen-layer", "warning", f"{layer}.weight")
    assert (one.evidence["count"], one.last_step) == (1, 300) and float(one.evidence["rows_still"] or 0) >= 120
    decayed = {"adamw": 2e-4, "adamw weakly": 1e-5, "sgd": 5e-5}[optimizer] * float(one.evidence["rows_still"] or 0)
    assert 1 - float(one.evidence["factor"] or 0) == pytest.approx(decayed, rel=0.03)


def test_a_layer_all_of_whose_units_are_dead_takes_those_before_it_along(tmp_path: Path) -> None:
    made = training(tmp_path, "mlp", "adamw")

    def kill(now: Training) -> None:
        if now.step == 10:
            with torch.no_grad():
                dict(now.model.named_parameters())["4.bias"].fill_(-100)

    made.after_step = kill
    made.run(5)
    (one,) = told(story(tmp_path))
    assert (one.severity, one.evidence["layers"], one.evidence["count"]) == ("warning", "0, 2, 4, 6", 4)
    assert "dead" in one.causes[0]


def test_the_plan_makes_it_critical_and_what_it_freezes_is_told_as_moved_though_frozen(tmp_path: Path) -> None:
    stopped(training(tmp_path, "mlp", "adamw"), "4").run(4)
    assert told(story(tmp_path, plan={"trainable": ["*"]}))[0].severity == "critical"
    frozen = story(tmp_path, plan={"freeze": ["4"]})
    assert told(frozen) == []
    assert [f.evidence["what"] for f in frozen if f.kind == "frozen-layer"] == ["moved though frozen"]


def test_moments_that_were_zero_from_the_beginning_are_told_by_themselves(tmp_path: Path) -> None:
    made = Training.of(tmp_path, "mlp", "adamw", every=60)
    for parameter in made.model[4].parameters():
        parameter.register_hook(torch.zeros_like)
    made.run(3)
    assert [f.evidence["what"] for f in story(tmp_path) if f.kind == "frozen-layer"] == ["moments of zero"]


def test_a_layer_that_was_let_go_again_is_not_told(tmp_path: Path) -> None:
    made = training(tmp_path, "mlp", "adamw")
    handles = [p.register_hook(torch.zeros_like) for p in made.model[4].parameters()]
    made.run(3)
    for handle in handles:
        handle.remove()
    made.run(2)
    assert told(story(tmp_path)) == []


@pytest.mark.parametrize("optimizer", DECAYING)
def test_layers_that_are_frozen_or_learn_a_thousand_times_slower_are_no_fault(optimizer: str, tmp_path: Path) -> None:
    made = training(tmp_path, "mlp", optimizer)
    slow, others = list(made.model[2].parameters()), list(made.model[4:].parameters())
    for parameter in made.model[0].parameters():
        parameter.requires_grad_(False)
    group = made.optimizer.param_groups[0]
    rate = float(group["lr"])
    settings = {key: group[key] for key in ("weight_decay", "momentum") if key in group}
    groups = [{"params": slow, "lr": rate / 1000}, {"params": others, "lr": rate}]
    made.optimizer = type(made.optimizer)(groups, **settings)
    made.run(4)
    found = story(tmp_path)
    assert told(found) == [] and loud(found) == []


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_a_schedule_that_ends_at_zero_is_no_decay(model: str, tmp_path: Path) -> None:
    made = Training.of(tmp_path, model, "adamw", "cosine", total=200, every=50)
    made.run(4)
    assert told(story(tmp_path)) == []
