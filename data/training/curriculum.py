"""Weights of a declared curriculum at a step: what the distillation obeys and what its plan says, from one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["phase_at", "weights_at"]


def phase_at(step: int, curriculum: Mapping[str, Any]) -> int:
    """Position of the phase that holds at `step`: the last one that has started."""
    starts = [phase["start"] for phase in curriculum["phases"]]
    return max(i for i, start in enumerate(starts) if start <= step)


def weights_at(step: int, curriculum: Mapping[str, Any]) -> dict[str, float]:
    """Weight of each component at `step`; a linear ramp moves from the former phase's weights to this phase's.

    >>> phases = [{"name": "a", "start": 0, "weights": {"kd": 1.0}},
    ...           {"name": "b", "start": 100, "weights": {"kd": 0.5}, "ramp": "linear", "ramp_length": 50}]
    >>> [weights_at(step, {"axis": "step", "phases": phases})["kd"] for step in (99, 125, 200)]
    [1.0, 0.75, 0.5]
    """
    position = phase_at(step, curriculum)
    phase = curriculum["phases"][position]
    goal: dict[str, float] = phase["weights"]
    if position == 0 or phase.get("ramp", "constant") == "constant":
        return dict(goal)
    former = curriculum["phases"][position - 1]["weights"]
    done = min(1.0, (step - phase["start"]) / phase["ramp_length"])
    return {name: former[name] + (weight - former[name]) * done for name, weight in goal.items()}
