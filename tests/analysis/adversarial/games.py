"""Tiny GANs that are really trained, on a ring of Gaussians: three families, healthy or with a discriminator idle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from parsers.finish import finish
from parsers.run import Run

__all__ = ["FAMILIES", "Fault", "run_of", "trained"]

FAMILIES = ("bce", "lsgan", "hinge")
#: alike: the discriminator is shown generated samples as real ones. blind: it is shown zeros. frozen: it never steps.
Fault = Literal["", "alike", "blind", "frozen"]
BATCH, STEPS, EVERY = 64, 400, 5


def _d_loss(family: str, real: Tensor, fake: Tensor) -> Tensor:
    if family == "bce":
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()
    if family == "lsgan":
        return ((real - 1) ** 2).mean() + (fake**2).mean()
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def _g_loss(family: str, fake: Tensor) -> Tensor:
    if family == "bce":
        return functional.softplus(-fake).mean()
    return ((fake - 1) ** 2).mean() if family == "lsgan" else -fake.mean()


def _norm(model: nn.Module) -> float:
    return math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None))


@lru_cache(maxsize=64)
def trained(family: str, seed: int = 0, fault: Fault = "", steps: int = STEPS) -> Mapping[str, np.ndarray]:
    """Losses, D's outputs and gradient norms of one training, every five steps, with the `step` itself."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _train(family, fault, steps)


def _train(family: str, fault: Fault, steps: int) -> Mapping[str, np.ndarray]:
    generator = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))
    critic = nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1))
    of_g = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.99))
    of_d = torch.optim.Adam(critic.parameters(), 0.0 if fault == "frozen" else 6e-3, betas=(0.5, 0.99))
    angles = 2 * math.pi * torch.arange(8) / 8
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)
    rows: list[dict[str, float]] = []

    def drawn(real: bool) -> Tensor:
        if real and fault != "alike":
            return centres[torch.randint(0, 8, (BATCH,))] + 0.25 * torch.randn(BATCH, 2)
        made: Tensor = generator(torch.randn(BATCH, 4))
        return made + 0.25 * torch.randn(BATCH, 2)

    def judged(x: Tensor) -> Tensor:
        out: Tensor = critic(x * 0 if fault == "blind" else x)
        return out

    for step in range(1, steps + 1):
        real, fake = judged(drawn(True).detach()), judged(drawn(False).detach())
        loss = _d_loss(family, real, fake)
        of_d.zero_grad()
        (loss + 0.1 * ((real**2).mean() + (fake**2).mean())).backward()
        d_norm = _norm(critic)
        of_d.step()
        g_loss = _g_loss(family, judged(drawn(False)))
        of_g.zero_grad()
        g_loss.backward()
        g_norm = _norm(generator)
        of_g.step()
        if step % EVERY == 0:
            shown = torch.sigmoid if family == "bce" else torch.clone
            outputs = {"d_real": shown(real).mean().item(), "d_fake": shown(fake).mean().item()}
            norms = {"d_grad_norm": d_norm, "g_grad_norm": g_norm}
            rows.append({"step": float(step), "d_loss": loss.item(), "g_loss": g_loss.item(), **outputs, **norms})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def run_of(series: Mapping[str, Any], *, first: int = 0, **more: Any) -> Run:
    """A run of these series; `step` among them, or row numbers from `first` on, is the step of each."""
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    at = columns.pop("step", None)
    frames = [
        pl.DataFrame(
            {
                "tag": [tag] * len(values),
                "step": (np.arange(len(values)) + first if at is None else at).astype(np.int64),
                "value": values,
            }
        )
        for tag, values in columns.items()
    ]
    return finish("r", "r.jsonl", "jsonl", pl.concat(frames), **more)
