"""An encoder of short utterances, trained to tell speakers apart (features are drawn, not recorded)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.faults.tasks.base import Batch, Task, stack

__all__ = ["Speakers", "equal_error_rate"]

FEATURES, SPEAKERS, HELD_OUT, WIDTH, SCALE = 24, 48, 24, 16, 12.0


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """The rate at which as many same pairs lie below a threshold as different ones above it."""
    thresholds = np.sort(np.concatenate([same, different]))
    missed = np.searchsorted(np.sort(same), thresholds) / len(same)
    passed = 1 - np.searchsorted(np.sort(different), thresholds) / len(different)
    place = int(np.argmin(np.abs(missed - passed)))
    return float((missed[place] + passed[place]) / 2)


class Speakers(Task):
    """Softmax over cosines to speaker centres, scaled. Eval: new utterances, and the EER of new speakers."""

    peaks: ClassVar[dict[str, float]] = {"sgd": 0.1, "adam": 3e-3, "adamw": 3e-3}
    examples = 8192

    def build(self) -> None:
        self.voices = torch.randn(SPEAKERS + HELD_OUT, 10)
        self.throat = stack([10, 24, FEATURES], "tanh")
        self.y = torch.randint(0, SPEAKERS, (self.count,))
        self.x = self._utter(self.y)
        self.eval_y = torch.randint(0, SPEAKERS, (self.eval_examples,))
        self.eval_x = self._utter(self.eval_y)
        self.others = torch.arange(HELD_OUT).repeat_interleave(6) + SPEAKERS
        self.others_x = self._utter(self.others)
        self.model = nn.ModuleDict(
            {"encoder": stack([FEATURES, 48, WIDTH], "relu", self.recipe.get("dropout", 0.0)),
             "centres": nn.Linear(WIDTH, SPEAKERS, bias=True)}
        )  # fmt: skip

    @torch.no_grad()
    def _utter(self, speakers: torch.Tensor) -> torch.Tensor:
        clean = self.throat(self.voices[speakers])
        return 3.0 * clean + 0.8 * torch.randn(len(speakers), FEATURES)

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross-entropy over scaled cosines."""
        found = functional.normalize(self.model["encoder"](batch[0]), dim=-1)
        centres = functional.normalize(self.model["centres"].weight, dim=-1)
        logits = SCALE * found @ centres.T + self.model["centres"].bias
        loss = functional.cross_entropy(logits, batch[1])
        if not self.recipe.get("accuracy", False):
            return loss, {}
        return loss, {"accuracy": (logits.argmax(-1) == batch[1]).to(torch.float32).mean().item()}

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Loss on new utterances, and the equal error rate on speakers that were never trained on."""
        said = super().evaluate(step)
        self.model.eval()
        vectors = functional.normalize(self.model["encoder"](self.others_x), dim=-1)
        self.model.train()
        cosines = (vectors @ vectors.T).numpy()
        alike = (self.others[:, None] == self.others[None, :]).numpy()
        upper = np.triu(np.ones_like(alike), 1).astype(bool)
        return {**said, "eer": equal_error_rate(cosines[alike & upper], cosines[~alike & upper])}
