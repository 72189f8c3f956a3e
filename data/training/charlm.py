"""A character language model (GRU) on grammar-made text: healthy, with one poisoned batch, or on too little text."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .grammar import characters, write
from .loop import Meter, descend, lr_at, progress, seed_all
from .recording import Recording

__all__ = ["Options", "config", "plan", "train"]

BATCH, WINDOW, WIDTH = 16, 48, 96
EVAL_EVERY, EVAL_CHARACTERS = 20, 6_000


@dataclass(frozen=True)
class Options:
    """How one run differs from its siblings.

    `poison_step` gets random targets and `poison_lr_factor` times the learning rate; at `kill_step` the process sends
    itself SIGKILL.
    """

    seed: int = 0
    steps: int = 800
    text_characters: int = 60_000
    poison_step: int | None = None
    poison_lr_factor: float = 20.0
    kill_step: int | None = None


class Model(nn.Module):
    """Embedding, one GRU layer, linear output."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 32)
        self.gru = nn.GRU(32, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, symbols)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(self.embed(text))[0])


def plan(options: Options) -> dict[str, Any]:
    """A constant learning rate after warm-up, and what a batch holds."""
    lr = {"schedule": "constant", "peak": 3e-3, "warmup_steps": 40, "total_steps": options.steps}
    return {"max_steps": options.steps, "lr": lr, "inputs": {"forward": {"require": ["input_ids"]}}}


def config(options: Options) -> dict[str, Any]:
    """Hyper-parameters. What is planted is not among them: a run does not know its own faults."""
    known = {k: v for k, v in asdict(options).items() if k in ("seed", "steps", "text_characters")}
    return {
        "task": "character language model",
        "dataset": "sentences of a small grammar",
        "batch_size": BATCH,
        "window": WINDOW,
        "width": WIDTH,
        "optimizer": "Adam",
        "clip_grad_norm": 1.0,
    } | known


def train(rec: Recording, options: Options) -> float:
    """Trains one model and records it; returns the last eval loss (nats a character)."""
    rng, meter, planned = seed_all(options.seed), Meter(), plan(options)
    text = _encode(write(options.text_characters, seed=101))
    held_out = _encode(write(EVAL_CHARACTERS, seed=202))
    model = Model(len(characters()))
    optimizer = torch.optim.Adam(model.parameters())
    evaluated = float("nan")
    for step in range(1, options.steps + 1):
        batch = _batch(text, rng)
        if step == 1:
            rec.inputs(step, "forward", {"input_ids": batch[:, :-1]})
        inputs, targets, lr = batch[:, :-1], batch[:, 1:], lr_at(step, planned["lr"])
        if step == options.poison_step:
            targets = torch.from_numpy(rng.integers(0, len(characters()), tuple(targets.shape)))
            lr *= options.poison_lr_factor
        loss = _loss(model, inputs, targets)
        norm = descend(loss, optimizer, lr, model.parameters(), clip=1.0)
        meter.count(BATCH * WINDOW)
        rec.log(step, {"loss": loss.item(), "lr": lr, "grad_norm": norm}, split="train")
        if step % EVAL_EVERY == 0 or step == options.steps:
            evaluated = _evaluate(rec, step, model, held_out)
            rec.data(step, files=1, windows=step * BATCH)
            meter.record(rec, step)
            progress("charlm", step, options.steps, f"eval loss {evaluated:.3f}")
        if step == options.kill_step:
            os.kill(os.getpid(), signal.SIGKILL)
    return evaluated


def _encode(text: str) -> torch.Tensor:
    index = {symbol: i for i, symbol in enumerate(characters())}
    return torch.tensor([index[symbol] for symbol in text])


def _batch(text: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    starts = torch.from_numpy(rng.integers(0, len(text) - WINDOW, BATCH))
    return text[starts[:, None] + torch.arange(WINDOW + 1)[None, :]]


def _loss(model: Model, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def _evaluate(rec: Recording, step: int, model: Model, text: torch.Tensor) -> float:
    """Mean loss over windows side by side of the held-out text, of the same length as in training."""
    count = (len(text) - 1) // WINDOW * WINDOW
    inputs, targets = text[:count].view(-1, WINDOW), text[1 : count + 1].view(-1, WINDOW)
    loss = _loss(model, inputs, targets).item()
    rec.log(step, {"loss": loss, "perplexity": float(np.exp(loss))}, split="eval")
    return loss
