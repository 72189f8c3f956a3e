"""Learning rate schedules: the factor at a step, and how a plan or a configuration states the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["SCHEDULES", "Schedule", "draw_schedule"]

SCHEDULES = ("constant", "warmup-constant", "warmup-cosine", "step", "one-cycle", "cosine-restarts", "linear")


@dataclass(frozen=True)
class Schedule:
    """A schedule over `steps` optimiser steps with its largest rate `peak`; lengths are in steps."""

    name: str
    peak: float
    steps: int
    warmup: int = 0
    low: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    period: int = 0

    def at(self, step: float) -> float:
        """The rate at a step, 1 being the first."""
        if self.warmup and step < self.warmup:
            start = self.peak / 25 if self.name == "one-cycle" else 0.0
            return start + (self.peak - start) * step / self.warmup
        done = min(1.0, max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup)))
        if self.name in ("warmup-cosine", "one-cycle"):
            return self.low + (self.peak - self.low) * 0.5 * (1 + math.cos(math.pi * done))
        if self.name == "linear":
            return self.low + (self.peak - self.low) * (1 - done)
        if self.name == "step":
            return self.peak * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.name == "cosine-restarts":
            within = ((step - self.warmup) % self.period) / self.period
            return self.low + (self.peak - self.low) * 0.5 * (1 + math.cos(math.pi * within))
        return self.peak

    def plan(self) -> dict[str, Any]:
        """`lr` of an event stream's plan."""
        said: dict[str, Any] = {"schedule": _PLAN_NAMES[self.name], "peak": self.peak, "total_steps": self.steps}
        said["warmup_steps"] = self.warmup
        if self.name in ("warmup-cosine", "one-cycle", "cosine-restarts", "linear"):
            said["min"] = self.low
        if self.name == "one-cycle":
            said["start"] = self.peak / 25
        if self.name == "step":
            said |= {"milestones": list(self.milestones), "gamma": self.gamma}
        if self.name == "cosine-restarts":
            said["period"] = self.period
        return said

    def config(self) -> dict[str, Any]:
        """The same under the names that people give in the configuration of a training."""
        said: dict[str, Any] = {"learning_rate": self.peak, "lr_scheduler_type": _CONFIG_NAMES[self.name]}
        said |= {"warmup_steps": self.warmup, "max_steps": self.steps}
        if self.name == "step":
            said |= {"milestones": list(self.milestones), "gamma": self.gamma}
        if self.name == "one-cycle":
            said |= {"max_lr": self.peak, "pct_start": self.warmup / self.steps, "div_factor": 25.0}
            said["final_div_factor"] = self.peak / 25 / self.low
            del said["warmup_steps"]
        if self.name == "cosine-restarts":
            said |= {"T_0": self.period, "T_mult": 1, "eta_min": self.low}
        elif self.low and self.name != "one-cycle":
            said["min_lr_ratio"] = self.low / self.peak
        return said

    def with_(self, **changes: Any) -> Schedule:
        """The same with other numbers."""
        return replace(self, **changes)


_PLAN_NAMES = {
    "constant": "constant",
    "warmup-constant": "constant",
    "warmup-cosine": "cosine",
    "step": "step",
    "one-cycle": "one-cycle",
    "cosine-restarts": "cosine-restarts",
    "linear": "linear",
}
_CONFIG_NAMES = {
    "constant": "constant",
    "warmup-constant": "constant_with_warmup",
    "warmup-cosine": "cosine",
    "step": "multistep",
    "one-cycle": "one_cycle",
    "cosine-restarts": "cosine_with_restarts",
    "linear": "linear",
}


def draw_schedule(name: str, peak: float, steps: int, rng: Any) -> Schedule:
    """A schedule of that name as a practitioner would set it for `steps` steps."""
    plain = Schedule(name, peak, steps)
    if name == "constant":
        return plain
    warmup = max(1, int(steps * rng.choice([0.03, 0.05, 0.1])))
    if name == "warmup-constant":
        return plain.with_(warmup=warmup)
    if name == "warmup-cosine":
        return plain.with_(warmup=warmup, low=peak * float(rng.choice([0.0, 0.01, 0.1])))
    if name == "linear":
        return plain.with_(warmup=warmup if rng.random() < 0.7 else 0)
    if name == "one-cycle":
        return plain.with_(warmup=int(steps * 0.3), low=peak / 25 / 1e4)
    if name == "step":
        marks = (0.5, 0.75) if rng.random() < 0.5 else (0.3, 0.6, 0.9)
        return plain.with_(milestones=tuple(max(1, int(steps * mark)) for mark in marks))
    return plain.with_(period=max(2, math.ceil(steps / int(rng.integers(2, 5)))), low=peak * 0.01)
