"""A classifier on labels that a random network draws: it learns for long, and some noise stays."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from benchmarks.faults.tasks.base import Batch, Task, stack

__all__ = ["Classifier", "drawn_labels"]

INPUTS, CLASSES = 16, 8


def drawn_labels(x: torch.Tensor, teacher: torch.nn.Module, sharpness: float) -> torch.Tensor:
    """Labels drawn from the teacher's softmax: `sharpness` scales its standardised logits."""
    with torch.no_grad():
        logits = teacher(x)
        logits = sharpness * (logits - logits.mean(0)) / logits.std(0)
        return torch.multinomial(logits.softmax(-1), 1).squeeze(1)


class Classifier(Task):
    """An MLP of ReLUs (or of what `activation` names) under cross-entropy."""

    peaks: ClassVar[dict[str, float]] = {"sgd": 0.1, "adam": 3e-3, "adamw": 3e-3}

    def build(self) -> None:
        get = self.recipe.get
        teacher = stack([INPUTS, 24, CLASSES], "tanh")
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(2.0)
        sharpness = float(get("sharpness", 4.0))
        self.x = torch.randn(self.count, INPUTS)
        self.y = drawn_labels(self.x, teacher, sharpness)
        self.eval_x = torch.randn(self.eval_examples, INPUTS)
        self.eval_y = drawn_labels(self.eval_x, teacher, sharpness)
        widths = get("widths", [48, 48])
        self.model = stack([INPUTS, *widths, CLASSES], get("activation", "relu"), get("dropout", 0.0))

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross-entropy, with the accuracy of the batch."""
        logits = self.model(batch[0])
        loss = functional.cross_entropy(logits, batch[1])
        if not self.recipe.get("accuracy", False) and self.model.training:
            return loss, {}
        right = (logits.argmax(-1) == batch[1]).to(torch.float32).mean().item()
        return loss, {"accuracy": right}
