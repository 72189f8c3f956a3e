"""A small perceptron on the digits whose checkpoints are kept: healthy, with a layer left out, with units born dead."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .digits import augment, load_digits
from .loop import Meter, descend, lr_at, progress, seed_all
from .recording import Recording

__all__ = ["Options", "config", "plan", "train"]

BATCH, WIDTH = 64, 48
LOG_EVERY, EVAL_EVERY = 5, 50
#: Early saves lie close to one another: most of the way through weight space is made there.
SAVES = (0, 100, 250, 500, 750, 1000)
EMA_DECAY = 0.99


@dataclass(frozen=True)
class Options:
    """How one run differs from its siblings.

    `left_out` names a layer that the optimizer is not given, though the plan trains all; of `dead_units` units of the
    first layer the bias begins at -10, so that their ReLU never opens.
    """

    seed: int = 0
    steps: int = 1000
    left_out: str | None = None
    dead_units: int = 0


class Model(nn.Module):
    """Two hidden layers and a readout, all named."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.readout = nn.Linear(WIDTH, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.first(images.flatten(1)))
        return self.readout(functional.relu(self.second(hidden)))


def plan(options: Options) -> dict[str, Any]:
    """Cosine decay after warm-up, and that every layer is trained."""
    lr = {"schedule": "cosine", "peak": 3e-3, "warmup_steps": 50, "total_steps": options.steps}
    return {"max_steps": options.steps, "lr": lr, "trainable": ["first", "second", "readout"]}


def config(options: Options) -> dict[str, Any]:
    """Hyper-parameters. What is planted is not among them: a run does not know its own faults."""
    known = {k: v for k, v in asdict(options).items() if k in ("seed", "steps")}
    return {
        "task": "classification",
        "dataset": "scikit-learn digits, 8 x 8",
        "batch_size": BATCH,
        "width": WIDTH,
        "optimizer": "Adam",
        "clip_grad_norm": 1.0,
        "ema_decay": EMA_DECAY,
    } | known


def train(rec: Recording, options: Options, folder: Path) -> float:
    """Trains one model and records it, checkpoints below `folder`/checkpoints; returns the last held-out accuracy."""
    rng, meter, planned = seed_all(options.seed), Meter(), plan(options)
    digits, model = load_digits(), Model()
    held_out = augment(digits.eval, np.random.default_rng(77)), digits.eval_labels
    if options.dead_units:
        with torch.no_grad():
            model.first.bias[: options.dead_units] = -10.0
    trained = [p for name, p in model.named_parameters() if name.partition(".")[0] != options.left_out]
    optimizer = torch.optim.Adam(trained)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    accuracy = float("nan")
    _save(rec, folder, 0, model, optimizer, average)
    for step in range(1, options.steps + 1):
        chosen = torch.from_numpy(rng.integers(0, digits.train.shape[0], BATCH))
        images, labels = augment(digits.train[chosen], rng), digits.train_labels[chosen]
        loss, lr = functional.cross_entropy(model(images), labels), lr_at(step, planned["lr"])
        norm = descend(loss, optimizer, lr, trained, clip=1.0)
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1.0 - EMA_DECAY)
        meter.count(BATCH)
        if step % LOG_EVERY == 0:
            rec.log(step, {"loss": loss.item(), "lr": lr, "grad_norm": norm}, split="train")
        if step % EVAL_EVERY == 0:
            accuracy = _evaluate(rec, step, model, held_out)
            meter.record(rec, step)
            progress("classifier", step, options.steps, f"accuracy {accuracy:.3f}")
        if step in SAVES or step == options.steps:
            _save(rec, folder, step, model, optimizer, average)
    return accuracy


@torch.no_grad()
def _evaluate(rec: Recording, step: int, model: Model, held_out: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Loss and accuracy on held-out images, moved and made noisy once as those of training are: the two compare."""
    images, labels = held_out
    out = model(images)
    accuracy = (out.argmax(1) == labels).float().mean().item()
    loss = functional.cross_entropy(out, labels).item()
    rec.log(step, {"loss": loss, "accuracy": accuracy}, split="eval")
    return accuracy


def _save(
    rec: Recording,
    folder: Path,
    step: int,
    model: Model,
    optimizer: torch.optim.Optimizer,
    average: dict[str, torch.Tensor],
) -> None:
    """What a training needs to go on: weights, their average, the optimizer's state and the step."""
    path = folder / "checkpoints" / f"step_{step:06d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "ema": average, "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path)
    rec.checkpoint(step, path)
