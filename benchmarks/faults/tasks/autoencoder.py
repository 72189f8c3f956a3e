"""An autoencoder on points near a curved surface of few dimensions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from benchmarks.faults.tasks.base import Batch, Task, stack

__all__ = ["Autoencoder"]

INPUTS, INNER = 24, 6


class Autoencoder(Task):
    """Mean squared error of the reconstruction; the noise of the data is what remains."""

    peaks: ClassVar[dict[str, float]] = {"sgd": 0.1, "adam": 3e-3, "adamw": 3e-3}

    def build(self) -> None:
        surface = stack([INNER, 32, INPUTS], "tanh")
        with torch.no_grad():
            for parameter in surface.parameters():
                parameter.mul_(2.5)
            both = surface(torch.randn(self.count + self.eval_examples, INNER))
        both = both + 0.15 * torch.randn_like(both)
        self.x, self.eval_x = both[: self.count], both[self.count :]
        self.y, self.eval_y = self.x, self.eval_x
        self.model = stack([INPUTS, 40, INNER, 40, INPUTS], self.recipe.get("activation", "tanh"))

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean squared error against the targets (the inputs, where nothing spoiled them)."""
        return functional.mse_loss(self.model(batch[0]), batch[1]), {}
