"""What every training loop here shares: one seed for all, one thread, the LR schedule, the step itself, resources."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import psutil
import torch

from .recording import Recording

__all__ = ["Meter", "descend", "lr_at", "progress", "seed_all"]


def seed_all(seed: int) -> np.random.Generator:
    """Seeds Python, NumPy and torch, asks torch for one thread and deterministic kernels; returns a generator."""
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    return np.random.default_rng(seed)


def lr_at(step: int, plan: Mapping[str, Any]) -> float:
    """Learning rate of a plan's `lr` (linear warm-up, then constant or cosine down to `min`) at a step.

    >>> plan = {"schedule": "cosine", "peak": 0.1, "warmup_steps": 10, "total_steps": 110, "min": 0.0}
    >>> [round(lr_at(step, plan), 4) for step in (5, 10, 60, 110)]
    [0.05, 0.1, 0.05, 0.0]
    """
    peak, warmup = plan["peak"], plan.get("warmup_steps", 0)
    if step < warmup:
        return float(peak * step / warmup)
    if plan["schedule"] == "constant":
        return float(peak)
    lowest = plan.get("min", 0.0)
    done = min(1.0, (step - warmup) / max(1, plan["total_steps"] - warmup))
    return float(lowest + (peak - lowest) * 0.5 * (1.0 + math.cos(math.pi * done)))


def descend(
    loss: torch.Tensor, optimizer: torch.optim.Optimizer, lr: float, parameters: Iterable[torch.Tensor], clip: float
) -> float:
    """One optimiser step on `loss`; returns the L2 norm of the gradient before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(list(parameters), clip)
    optimizer.step()
    return norm.item()


class Meter:
    """Resident memory, and examples per second of processor time since the last look: neighbours do not show."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._since = time.process_time()
        self._examples = 0

    def count(self, examples: int) -> None:
        """Adds examples that were trained on."""
        self._examples += examples

    def record(self, rec: Recording, step: int) -> None:
        """Records what was measured and starts anew."""
        now = time.process_time()
        speed = self._examples / max(now - self._since, 1e-9)
        memory = self._process.memory_info().rss / 2**20
        rec.resources(step, memory_mb=round(memory, 2), throughput_examples_per_cpu_s=round(speed, 1))
        self._since, self._examples = now, 0


def progress(name: str, step: int, steps: int, text: str) -> None:
    """One line on standard error, rewritten in place on a terminal and left out elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if step >= steps else "\r"
        print(f"{name}: step {step} of {steps}, {text}   ", end=end, file=sys.stderr, flush=True)
