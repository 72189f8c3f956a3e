"""The nine losses of the distillation, each raw and unweighted, from what teacher and student computed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .students import Seen

__all__ = ["COMPONENTS", "ROUTING", "Distiller"]

ROUTING = ("routing_load_balance", "routing_expert_importance", "routing_feature_matching")
COMPONENTS = ("hard", "kd", "feature", "attention", "layerwise", "contrastive", *ROUTING)
TEMPERATURE = 2.0
CONTRASTIVE_TEMPERATURE = 0.2


class Distiller(nn.Module):
    """Projections from the student's width to the teacher's, and the losses that compare the two.

    `pairs` says which teacher layer each student layer follows.
    """

    def __init__(self, student_width: int, teacher_width: int, pairs: dict[int, int]) -> None:
        super().__init__()
        self.pairs = pairs
        self.feature = nn.Linear(student_width, teacher_width)
        self.layers = nn.ModuleList(nn.Linear(student_width, teacher_width) for _ in pairs)
        self.routed = nn.Linear(student_width, teacher_width)

    def forward(self, student: Seen, teacher: Seen, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Component name -> raw loss, a scalar tensor."""
        last = max(self.pairs)
        return {
            "hard": functional.cross_entropy(student.logits, labels),
            "kd": _soft_targets(student.logits, teacher.logits),
            "feature": functional.mse_loss(self.feature(student.pooled), teacher.pooled),
            "attention": _attention(student, teacher, self.pairs),
            "layerwise": torch.stack(
                [
                    functional.mse_loss(project(student.hidden[i]), teacher.hidden[j])
                    for project, (i, j) in zip(self.layers, self.pairs.items(), strict=True)
                ]
            ).mean(),
            "contrastive": _contrastive(self.feature(student.pooled), teacher.pooled),
            "routing_load_balance": torch.stack([_load_balance(gates) for gates in student.gates]).mean(),
            "routing_expert_importance": torch.stack([_importance(gates) for gates in student.gates]).mean(),
            "routing_feature_matching": functional.mse_loss(
                self.routed(student.routed[-1]), teacher.hidden[self.pairs[last]]
            ),
        }


def _soft_targets(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Hinton, Vinyals and Dean 2015: KL between softened distributions, times the temperature squared."""
    target = (teacher / TEMPERATURE).log_softmax(-1)
    guess = (student / TEMPERATURE).log_softmax(-1)
    return functional.kl_div(guess, target, reduction="batchmean", log_target=True) * TEMPERATURE**2


def _attention(student: Seen, teacher: Seen, pairs: dict[int, int]) -> torch.Tensor:
    """Mean KL between the attention maps of paired layers, per query."""
    terms = [
        functional.kl_div(
            (student.attention[i].flatten(0, 1) + 1e-8).log(), teacher.attention[j].flatten(0, 1), reduction="batchmean"
        )
        for i, j in pairs.items()
    ]
    return torch.stack(terms).mean()


def _contrastive(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """InfoNCE: of all the teacher's vectors in the batch, the student's should be nearest to that of its own image."""
    similar = functional.normalize(student, dim=-1) @ functional.normalize(teacher, dim=-1).T
    return functional.cross_entropy(similar / CONTRASTIVE_TEMPERATURE, torch.arange(student.shape[0]))


def _load_balance(gates: torch.Tensor) -> torch.Tensor:
    """Fedus, Zoph and Shazeer 2021 (Switch Transformer), equation 4: 1 when experts share the tokens evenly."""
    flat = gates.flatten(0, 1)
    experts = flat.shape[1]
    chosen = functional.one_hot(flat.argmax(-1), experts).to(flat.dtype).mean(0)
    return experts * (chosen * flat.mean(0)).sum()


def _importance(gates: torch.Tensor) -> torch.Tensor:
    """Shazeer et al. 2017, equation 7: squared coefficient of variation of the experts' summed gates."""
    importance = gates.flatten(0, 1).sum(0)
    return importance.var(unbiased=False) / importance.mean() ** 2
