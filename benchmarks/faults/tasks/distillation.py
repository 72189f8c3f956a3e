"""Distillation of a classifier under a curriculum: five components whose weights change with the phase."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.faults.tasks.base import Batch, Task, stack
from benchmarks.faults.tasks.classifier import CLASSES, INPUTS, drawn_labels
from data.training.curriculum import phase_at, weights_at

__all__ = ["COMPONENTS", "Distillation", "curriculum_of"]

COMPONENTS = ("hard", "kd", "feature", "contrastive", "routing_balance")
HEAT = 2.0


def curriculum_of(steps: int) -> dict[str, Any]:
    """Three phases of a third each; the second ramps in, the third jumps."""
    third = max(2, steps // 3)
    first = {"hard": 0.5, "kd": 0.5, "feature": 0.0, "contrastive": 0.0, "routing_balance": 0.0}
    second = first | {"hard": 0.3, "kd": 0.5, "feature": 0.2}
    last = second | {"kd": 0.4, "contrastive": 0.05, "routing_balance": 0.1}
    phases = [
        {"name": "warm", "start": 0, "weights": first},
        {"name": "align", "start": third, "weights": second, "ramp": "linear", "ramp_length": max(1, third // 4)},
        {"name": "route", "start": 2 * third, "weights": last, "ramp": "constant"},
    ]
    return {"axis": "step", "phases": phases}


class _Student(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = stack([INPUTS, width, width])
        self.gate = nn.Linear(width, 4)
        self.feature = nn.Linear(width, 24)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.trunk(x))
        return self.head(hidden), self.feature(hidden), self.gate(hidden)


class Distillation(Task):
    """`accounts` keeps raw, weight, weighted and total of the last batch; `bend` lets a fault change them."""

    def build(self) -> None:
        self.body, self.top = stack([INPUTS, 24], "tanh"), nn.Linear(24, CLASSES)
        with torch.no_grad():
            for parameter in [*self.body.parameters(), *self.top.parameters()]:
                parameter.mul_(2.0)
        both = torch.randn(self.count + self.eval_examples, INPUTS)
        self.x, self.eval_x = both[: self.count], both[self.count :]
        teacher = nn.Sequential(self.body, nn.Tanh(), self.top)
        labels = drawn_labels(both, teacher, 4.0)
        self.y, self.eval_y = labels[: self.count], labels[self.count :]
        self.model = _Student(40)
        self.curriculum = curriculum_of(self.recipe.steps)
        self.accounts: dict[str, Any] = {}
        self.bend: Any = None
        self.shift = 0  # steps by which the curriculum is late

    def weights(self, step: int) -> dict[str, float]:
        """Weight of each component at a step."""
        return weights_at(max(0, step - self.shift), self.curriculum)

    def phase(self, step: int) -> str:
        """Name of the phase at a step."""
        return str(self.curriculum["phases"][phase_at(max(0, step - self.shift), self.curriculum)]["name"])

    def loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Sum of the weighted components; on eval the plain cross-entropy."""
        logits, feature, gate = self.model(batch[0])
        hard = functional.cross_entropy(logits, batch[1])
        if not self.model.training:
            right = (logits.argmax(-1) == batch[1]).to(torch.float32).mean().item()
            return hard, {"accuracy": right}
        raw = {"hard": hard, **self._taught(batch[0], logits, feature, gate)}
        account = {"raw": raw, "weight": self.weights(step), "applied": None, "extra": None}
        if self.bend is not None:
            self.bend(step, account)
        applied = account["applied"] or account["weight"]
        weighted = {name: raw[name] * applied[name] for name in COMPONENTS}
        total = torch.stack(list(weighted.values())).sum()
        if account["extra"] is not None:
            total = total + account["extra"]
        self.accounts = {**account, "weighted": weighted, "total": total}
        return total, {}

    def _taught(
        self, x: torch.Tensor, logits: torch.Tensor, feature: torch.Tensor, gate: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            hidden = torch.tanh(self.body(x))
            target = self.top(hidden)
        soft = functional.kl_div(
            (logits / HEAT).log_softmax(-1), (target / HEAT).log_softmax(-1), reduction="batchmean", log_target=True
        )
        similar = functional.normalize(feature, dim=-1) @ functional.normalize(hidden, dim=-1).T
        gates = gate.softmax(-1).mean(0)
        return {
            "kd": soft * HEAT**2,
            "feature": functional.mse_loss(feature, hidden),
            "contrastive": functional.cross_entropy(similar / 0.2, torch.arange(len(x))),
            "routing_balance": (gates * gates).sum() * 4,
        }

    def account_numbers(self) -> dict[str, dict[str, float]]:
        """The last batch's components as plain numbers."""
        a = self.accounts
        return {
            name: {"raw": a["raw"][name].item(), "weight": a["weight"][name], "weighted": a["weighted"][name].item()}
            for name in COMPONENTS
        }
