"""A schedule that is stepped several times a step is a warning, unless processes or batches explain it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from analysis.findings import Finding
from analysis.weights.counters import counters_within
from analysis.weights.saved import Saved
from analysis.weights.statistics import STATISTICS, statistics
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.tensors import Tensor
from tests.analysis.weights.trained import Training, loud, story


def saved(step: int, schedule: float, *, files: tuple[str, ...] = (), weight: str = "w", **values: Any) -> Saved:
    """A save whose optimizer counts its steps, with a schedule at another one; `values` stand beside them."""
    told = {"scheduler.last_epoch": schedule, "optimizer.state.0.step": step, **values}
    tensor = Tensor(weight, "float32", (2, 2), None)
    paths = tuple(Path(name) for name in files)
    checkpoint = Checkpoint(Path("x"), "torch", (tensor,), values=told, step=step, files=paths)
    return Saved("x", checkpoint, STATISTICS.to_frame(), step)


def severities(one: Saved) -> list[str]:
    return [f.severity for f in counters_within(one, "r")]


def doubled(folder: Path, *, total: int, **entries: Any) -> list[Finding]:
    made = Training.of(folder, "mlp", "adamw", "cosine", total=total, every=30)
    made.after_step = lambda t: t.scheduler.step()
    made.extra = lambda _: entries
    made.run(3)
    return [f for f in story(folder) if f.kind == "checkpoint-mismatch"]


def test_a_schedule_that_is_stepped_twice_a_step_is_a_warning_with_its_cause_and_its_remedy(tmp_path: Path) -> None:
    (one,) = doubled(tmp_path, total=1000)
    assert (one.severity, one.evidence["factor"], one.evidence["saves"]) == ("warning", 2, 3)
    assert (one.evidence["counted"], one.evidence["saved_step"], one.evidence["schedule_ends"]) == (60, 30, 1000)
    assert "it is stepped 2 times a step" in one.message and "in the loop, and by the trainer" in one.causes[0]
    assert one.suggestions[0].startswith("call scheduler.step() once for each optimizer.step()")


def test_a_cosine_that_ended_in_the_middle_of_the_training_is_a_warning_whatever_explains_it(tmp_path: Path) -> None:
    (one,) = doubled(tmp_path, total=100, world_size=2)
    assert (one.severity, one.last_step) == ("warning", 90)
    assert "made for 100 and has ended" in one.message and "2 processes" in one.causes[0]


@pytest.mark.parametrize("told", [{"world_size": 2}, {"args": {"num_processes": 2, "seed": 0}}])
def test_as_many_steps_as_processes_are_information_with_advice(told: dict[str, Any], tmp_path: Path) -> None:
    (one,) = doubled(tmp_path, total=1000, **told)
    assert (one.severity, one.causes) == (
        "info",
        ("each of 2 processes steps it, as accelerate's does unless split_batches is set",),
    )
    assert one.suggestions[0] == "where 2 steps at a time are meant, make the schedule 2 times as long as the training"


@pytest.mark.parametrize(
    ("one", "severity"),
    [
        (saved(500, 1000), "warning"),
        (saved(500, 1000, **{"args.gradient_accumulation_steps": 2}), "info"),
        (saved(500, 1000, **{"args.gradient_accumulation_steps": 4}), "warning"),
        (saved(500, 4000, files=tuple(f"random_states_{n}.pkl" for n in range(8))), "info"),
        (saved(500, 8000, files=tuple(f"a/rng_state_{n}.pth" for n in range(8))), "info"),  # two machines of eight
        (saved(500, 1500, files=tuple(f"random_states_{n}.pkl" for n in range(8))), "warning"),
        (saved(500, 1000, files=("random_states_0.pkl",)), "warning"),
        (saved(500, 1000, weight="model.module.fc.weight"), "info"),
        (saved(6, 12), "warning"),
        (saved(500, 750), "warning"),  # no whole factor: another run's
    ],
)
def test_what_explains_a_factor_decides(one: Saved, severity: str) -> None:
    assert severities(one) == [severity]
    (found,) = counters_within(one, "r")
    assert found.causes and found.suggestions


@pytest.mark.parametrize(
    "one",
    [
        saved(500, 500),
        saved(500, 501),
        saved(500, 12, epoch=12),  # one step an epoch
        saved(500, 498),  # a scaler skipped two
    ],
)
def test_a_schedule_that_follows_steps_or_epochs_is_sound(one: Saved) -> None:
    assert counters_within(one, "r") == []


def test_a_schedule_that_follows_its_optimizer_is_sound_whatever_the_save_counts() -> None:
    one = saved(2000, 500, **{"optimizer.state.0.step": 500})  # updates of four batches
    assert [(f.evidence["counter"], f.severity) for f in counters_within(one, "r")] == [("optimizer", "info")]


def test_without_a_count_of_the_optimizer_the_unit_of_the_save_may_be_another() -> None:
    one = saved(500, 1000)
    bare = one.checkpoint.but(values={"scheduler.last_epoch": 1000})
    assert severities(Saved("x", bare, STATISTICS.to_frame(), 500)) == ["info"]


def test_accelerate_with_one_process_is_sound_and_a_second_step_is_found(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    model = nn.Linear(4, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    found = []
    for times in (1, 3):
        for _ in range(20):
            model(torch.randn(2, 4)).pow(2).sum().backward()
            optimizer.step()
            for _ in range(times):
                scheduler.step()
            optimizer.zero_grad()
        folder = tmp_path / f"checkpoint-{20 if times == 1 else 40}"
        accelerator.save_state(str(folder))
        with open_checkpoint(folder) as checkpoint:
            one = Saved(folder.name, checkpoint, statistics(checkpoint))
            found.append(loud(counters_within(one, "r")))
    assert found[0] == []
    assert len(found[1]) == 1 and "stands at step 80 and the optimizer at 40" in found[1][0]
