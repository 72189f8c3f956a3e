"""Saves of sound trainings bring no warning, whatever the model, the optimizer, the schedule and what is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.analysis.weights.trained import MODELS, OPTIMIZERS, SCHEDULES, Training, loud, story

#: Every model with every optimizer, each with a schedule, a seed and a beginning of its own.
GRID = [
    (model, optimizer, list(SCHEDULES)[(m + o) % len(SCHEDULES)], 5 * m + o)
    for m, model in enumerate(MODELS)
    for o, optimizer in enumerate(OPTIMIZERS)
]


@pytest.mark.parametrize(("model", "optimizer", "schedule", "seed"), GRID)
def test_a_sound_training_is_left_in_peace(
    model: str, optimizer: str, schedule: str, seed: int, tmp_path: Path
) -> None:
    Training.of(tmp_path, model, optimizer, schedule, seed=seed).run(5, at_start=seed % 2 == 0)
    assert loud(story(tmp_path)) == []


@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
@pytest.mark.parametrize("model", ["mlp", "conv", "transformer"])
def test_first_layers_that_were_frozen_are_told_and_not_blamed(model: str, optimizer: str, tmp_path: Path) -> None:
    training = Training.of(tmp_path, model, optimizer)
    first = list(training.model.parameters())[:4]
    for parameter in first:
        parameter.requires_grad_(False)
    training.run(4)
    found = story(tmp_path)
    assert loud(found) == []
    assert [f.kind for f in found if f.kind == "frozen-layer"] == ["frozen-layer"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_the_plan_freezes_may_stand_still(optimizer: str, tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", optimizer)
    for parameter in training.model[4].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    training.run(4)
    assert [f for f in story(tmp_path, plan={"freeze": ["4"]}) if f.kind == "frozen-layer"] == []


def test_only_the_head_that_trains_on_a_frozen_backbone_is_no_fault(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "conv", "adam")
    for name, parameter in training.model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    training.optimizer = torch.optim.Adam(training.model.head.parameters(), lr=1e-2)  # type: ignore[union-attr]
    training.run(4)
    assert loud(story(tmp_path)) == []


def test_a_layer_that_is_unfrozen_on_the_way_is_no_leap(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer", "adamw", every=10)
    for parameter in training.model.wte.parameters():  # type: ignore[union-attr]
        parameter.requires_grad_(False)
    training.run(3)
    for parameter in training.model.parameters():
        parameter.requires_grad_(True)
    training.run(3)
    assert loud(story(tmp_path)) == []


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_an_average_that_follows_its_weights_is_sound(decay: float, tmp_path: Path) -> None:
    assert loud(averaged(tmp_path, decay, stated=decay)) == []


def averaged(folder: Path, decay: float, *, stated: float, every: int = 1) -> list[Any]:
    """What is found in a training with an average of `decay`, updated every so many steps, that states another."""
    training = Training.of(folder, "mlp", "adamw")
    average = {key: value.clone() for key, value in training.model.state_dict().items()}

    def update(now: Training) -> None:
        if now.step % every == 0:
            for key, value in now.model.state_dict().items():
                average[key] = decay * average[key] + (1 - decay) * value

    training.after_step = update
    training.extra = lambda _: {"ema": {key: value.clone() for key, value in average.items()}, "ema_decay": stated}
    training.run(5)
    return story(folder)


def test_two_players_of_a_game_in_one_save_are_two_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    players = nn.ModuleDict(
        {
            "generator": nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8)),
            "discriminator": nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)),
        }
    )
    generator, discriminator = players["generator"], players["discriminator"]
    optimizers = [torch.optim.Adam(p.parameters(), lr=2e-4, betas=(0.5, 0.999)) for p in (generator, discriminator)]
    for step in range(1, 121):
        for player in (1, 0):
            real, fake = torch.randn(16, 8) * 0.5 + 1, generator(torch.randn(16, 4))
            apart = (1 - discriminator(real)).relu().mean() + (1 + discriminator(fake.detach())).relu().mean()
            optimizers[player].zero_grad()
            (apart if player else -discriminator(fake).mean()).backward()
            optimizers[player].step()
        if step % 30 == 0:
            state = {"model": players.state_dict(), "optimizer_g": optimizers[0].state_dict()}
            state |= {"optimizer_d": optimizers[1].state_dict(), "global_step": 2 * step}
            torch.save(state, tmp_path / f"checkpoint-{2 * step}.pt")
    assert loud(story(tmp_path)) == []


def test_a_target_network_that_is_made_equal_now_and_then_is_no_lost_tie(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adam")
    target = {f"q_target.{key}": value.clone() for key, value in training.model.state_dict().items()}
    training.extra = lambda t: {"model": {**{f"q.{k}": v for k, v in t.model.state_dict().items()}, **target}}

    def synchronise(now: Training) -> None:
        if now.step in (20, 60):
            target.update({f"q_target.{key}": value.clone() for key, value in now.model.state_dict().items()})

    training.after_step = synchronise
    training.run(5)
    assert loud(story(tmp_path)) == []


def test_an_export_in_half_the_width_after_the_training_is_no_fault(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer", "adamw").run(3)
    half = {key: value.bfloat16() for key, value in training.model.state_dict().items()}
    torch.save({"model": half, "global_step": 61}, tmp_path / "checkpoint-61.pt")
    found = story(tmp_path)
    assert loud(found) == []
    assert {f.evidence.get("what") for f in found if f.kind == "checkpoint-mismatch"} == {"types"}


def test_updates_of_four_batches_each_are_information(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adamw", extra=lambda t: {"global_step": 4 * t.step}).run(3)
    assert training.step == 60
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / f"checkpoint-{4 * int(path.stem.split('-')[1])}.pt")
    found = story(tmp_path)
    assert loud(found) == []
    assert [f.evidence["factor"] for f in found if f.kind == "checkpoint-mismatch"] == [4]
