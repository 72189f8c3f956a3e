"""Regression on a smooth function; without noise in the targets its loss falls to nearly zero."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from benchmarks.faults.tasks.base import Batch, Task, stack

__all__ = ["Regression"]

INPUTS = 6


class Regression(Task):
    """Mean squared error of two targets; `target_noise` is its standard deviation (targets have 1)."""

    peaks: ClassVar[dict[str, float]] = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3}

    def build(self) -> None:
        noise = float(self.recipe.get("target_noise", 0.3))
        teacher = stack([INPUTS, 16, 2], "tanh")
        both = torch.randn(self.count + self.eval_examples, INPUTS)
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(3.0)
            targets = teacher(both)
        targets = (targets - targets.mean(0)) / targets.std(0) + noise * torch.randn_like(targets)
        self.x, self.eval_x = both[: self.count], both[self.count :]
        self.y, self.eval_y = targets[: self.count], targets[self.count :]
        widths = self.recipe.get("widths", [40, 40])
        self.model = stack([INPUTS, *widths, 2], self.recipe.get("activation", "relu"), self.recipe.get("dropout", 0.0))

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean squared error."""
        return functional.mse_loss(self.model(batch[0]), batch[1]), {}
