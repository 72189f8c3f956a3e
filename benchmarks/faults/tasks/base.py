"""What a training loop needs of a family: batches, a loss with its parts, an eval, and a way to spoil a batch."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from benchmarks.faults.recipe import Recipe

__all__ = ["Batch", "Task", "stack"]

Batch = tuple[torch.Tensor, torch.Tensor]


class Task:
    """Data and model of one family.

    `x` and `y` are the examples of training, in epochs of their own order (`order`) or drawn anew each step. `peak` is
    a learning rate that suits the family, by optimiser. `harder` spoils a share of a batch, as a bad shard does.
    """

    peaks: ClassVar[dict[str, float]] = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3}
    examples = 16384
    eval_examples = 1024
    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    eval_x: torch.Tensor
    eval_y: torch.Tensor

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng([recipe.seed, 77])
        self.count = int(recipe.get("examples", self.examples))
        self.build()
        scale = float(recipe.get("init_scale", 1.0))
        if scale != 1.0:
            with torch.no_grad():
                list(self.model.parameters())[-2].mul_(scale)

    def build(self) -> None:
        """Draws the data and the model."""
        raise NotImplementedError

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the data."""
        return max(1, self.count // self.recipe.batch)

    def order(self, step: int) -> torch.Tensor:
        """The examples of a step (1 is the first): every epoch passes over the data in an order of its own."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            rng = np.random.default_rng([self.recipe.seed, 991, epoch])
            self._order = torch.from_numpy(rng.permutation(self.count))
        return self._order[place * self.recipe.batch : (place + 1) * self.recipe.batch]

    def batch(self, step: int) -> Batch:
        """Inputs and targets of a step."""
        chosen = self.order(step)
        return self.x[chosen], self.y[chosen]

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss that is optimised, and further numbers of the batch."""
        raise NotImplementedError

    def harder(self, batch: Batch, share: float, rng: np.random.Generator) -> Batch:
        """The batch with wrong targets for a share of its examples: targets of other examples."""
        x, y = batch
        wrong = torch.from_numpy(rng.random(len(y)) < share)
        other = self.y[torch.from_numpy(rng.integers(0, self.count, len(y)))]
        shape = (len(y),) + (1,) * (y.dim() - 1)
        return x, torch.where(wrong.view(shape), other, y)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Numbers on the held-out examples."""
        self.model.eval()
        loss, others = self.loss((self.eval_x, self.eval_y), step)
        self.model.train()
        return {"loss": loss.item(), **{k: v for k, v in others.items() if k in ("accuracy",)}}

    def config(self) -> dict[str, Any]:
        """What the configuration says of the model."""
        return {"task": type(self).__name__.lower()}

    def layers(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by layer: the modules that own some, from input to output."""
        owners = ((name, list(module.parameters(recurse=False))) for name, module in self.model.named_modules())
        return {name or "model": parameters for name, parameters in owners if parameters}


_UNITS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


def stack(sizes: list[int], activation: str = "relu", dropout: float = 0.0) -> nn.Sequential:
    """Fully connected layers with an activation (and dropout) between them."""
    parts: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        parts.append(nn.Linear(before, after))
        if i < len(sizes) - 2:
            parts.append(_UNITS[activation]())
            if dropout:
                parts.append(nn.Dropout(dropout))
    return nn.Sequential(*parts)
