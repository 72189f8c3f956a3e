"""Configurations written by the real libraries, and the learning rates that the real schedulers then give."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import aftertrain as at
from parsers.lr_schedule import schedule_of
from parsers.plan import Plan
from parsers.plans.understanding import Declared, read_plan


def of_file(name: str, content: dict[str, Any]) -> Plan:
    return read_plan(Declared({}), {name: content})


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("polynomial", {"lr_end": 1e-6, "power": 2.0}),
        ("constant", {}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 60}),
    ],
)
@pytest.mark.parametrize("warmup", [0, 20, 0.05])
def test_transformers_arguments_are_understood_and_give_its_own_rates(
    kind: str, more: dict[str, Any], warmup: float, tmp_path: Path
) -> None:
    import torch
    from transformers import TrainingArguments, get_scheduler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, about its own future
        arguments = TrainingArguments(
            output_dir=str(tmp_path), learning_rate=3e-4, lr_scheduler_type=kind, lr_scheduler_kwargs=more,
            warmup_steps=warmup, max_steps=300, gradient_accumulation_steps=4, max_grad_norm=0.5, report_to=[],
        )  # fmt: skip
    plan = of_file("training_args.json", json.loads(arguments.to_json_string()))
    assert (plan.max_steps, plan.accumulation, plan.clip_norm, plan.not_understood) == (300, 4, 0.5, ())
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    first = arguments.get_warmup_steps(300)
    scheduler = get_scheduler(kind, optimiser, first, 300, scheduler_specific_kwargs=dict(more))
    rates = []
    for _ in range(300):
        rates.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    schedule, odd = schedule_of(plan.lr, plan.max_steps)
    assert schedule is not None and odd == ()
    start = first if kind == "constant" else 0  # of these, `constant` alone has no warm-up whatever is said
    if kind != "constant":
        np.testing.assert_allclose(schedule.at_steps(np.arange(300))[start:], rates[start:], atol=3e-4 * 1e-6)


def test_hparams_of_lightning_are_the_plan_of_the_csv_beside(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(tmp_path), name="exp", version=0)
    logger.log_hyperparams({"optimizer": {"lr": 1e-3}, "lr_scheduler": {"name": "cosine"}, "max_steps": 40})
    for step in range(0, 40, 2):
        logger.log_metrics({"train_loss": 1.0 / (step + 1)}, step)
    logger.save()
    run = at.load(tmp_path)
    assert run.planned.lr == {"schedule": "cosine", "peak": 1e-3, "total_steps": 40}
    assert run.planned.sources["lr.peak"] == "hparams.yaml: optimizer.lr"
    assert run.beside == {} and at.plan(run).findings == ()


def test_hparams_of_tensorboard_are_the_plan_of_its_events(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "run")) as writer:
        writer.add_hparams({"lr": 0.01, "lr_scheduler": "linear", "max_steps": 60}, {"final": 1.0}, run_name=".")
        for step in range(0, 60, 5):
            writer.add_scalar("train/loss", 1.0, step)
    planned = at.load(tmp_path / "run").planned
    assert planned.lr == {"schedule": "linear", "peak": 0.01, "total_steps": 60}
    assert planned.sources["max_steps"] == "hparams of the event files: max_steps"


def test_arguments_of_a_script_are_found_beside_its_text_log(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("--lr", 0.1), ("--epochs", 90), ("--step-size", 30), ("--gamma", 0.1)):
        parser.add_argument(name, default=default, type=type(default))
    parser.add_argument("--lr-scheduler", default="step")
    (tmp_path / "args.json").write_text(json.dumps(vars(parser.parse_args([]))))
    (tmp_path / "train.log").write_text("".join(f"step: {s} loss: {2 / (s + 1):.4f}\n" for s in range(20)))
    run = at.load(tmp_path)
    assert run.planned.lr == {"schedule": "step", "peak": 0.1, "unit": "epoch", "step_size": 30, "gamma": 0.1}
    assert run.planned.sources["epochs"] == "args.json: epochs"


def test_a_configuration_of_hydra_is_found_below_the_folder_of_the_job(tmp_path: Path) -> None:
    content = {
        "trainer": {"max_steps": 50},
        "optim": {"lr": 0.2},
        "scheduler": {"params": {"warmup": 5}, "name": "linear"},
    }
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {s}, "loss": 1.0}}\n' for s in range(50)))
    planned = at.load(tmp_path).planned
    assert planned.lr == {"schedule": "linear", "peak": 0.2, "total_steps": 50, "warmup_steps": 5}
    assert planned.sources["lr.warmup_steps"] == ".hydra/config.yaml: scheduler.params.warmup"
