"""Which trainings are made: families, optimisers, schedules, lengths and formats, and what only the scored half has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.faults.recipe import Recipe
from benchmarks.faults.schedules import SCHEDULES
from benchmarks.faults.truth import PRACTICE
from benchmarks.faults.writers import FORMATS

__all__ = ["OPTIMIZERS", "Cell", "draw_cell", "held_out"]

OPTIMIZERS = ("sgd", "adam", "adamw")
BATCHES = (4, 8, 16, 32, 64, 128, 256)
_FAMILIES = ("classifier", "language", "autoencoder", "regression", "distillation", "speaker", "gan")
#: Optimiser steps that a training may have at most: a step of these costs more.
_MOST_STEPS = {"language": 300, "distillation": 300}
#: Above all seeds of the halves, which are even and odd.
_BEYOND = 2**33


@dataclass(frozen=True)
class Cell:
    """A recipe and the format in which it is to be logged."""

    recipe: Recipe
    format: str


def held_out(family: str, schedule: str, format: str) -> bool:
    """Whether only the scored half has this combination: a fifth of them, spread over all three.

    >>> held_out("classifier", "constant", "event-stream")
    True
    """
    places = _FAMILIES.index(family), SCHEDULES.index(schedule), list(FORMATS).index(format)
    return (places[0] + 2 * places[1] + 3 * places[2]) % 5 == 0


def draw_cell(
    split: str,
    rng: np.random.Generator,
    *,
    families: Sequence[str],
    formats: Sequence[str],
    points: Sequence[int],
    schedules: Sequence[str] = SCHEDULES,
) -> Cell:
    """A training of one of the families and formats that the split may have."""
    while True:
        family, format = str(rng.choice(families)), str(rng.choice(formats))
        schedule = "constant" if family == "gan" else str(rng.choice(schedules))
        # where a fault leaves one combination only, both halves have it
        alone = len(families) * len(formats) * len(schedules) < 5
        if split == "scored" or alone or family == "gan" or not held_out(family, schedule, format):
            break
    rows = int(rng.choice(points))
    every = int(rng.choice([1, 1, 1, 2, 5]))
    every = max(1, min(every, _MOST_STEPS.get(family, 600) // rows))
    recipe = Recipe(
        family,
        "adam" if family == "gan" else str(rng.choice(OPTIMIZERS)),
        schedule,
        rows,
        int(rng.choice(BATCHES)) if family != "gan" else int(rng.choice([64, 128])),
        seed=int(rng.integers(1, 2**31)) * 2 + (split == "scored") + (_BEYOND if split == PRACTICE else 0),
        every=5 if family == "gan" else every,
        options=_options(family, rng),
    )
    return Cell(recipe, format)


def _options(family: str, rng: np.random.Generator) -> dict[str, Any]:
    if family == "gan":
        return {"gan": str(rng.choice(["bce", "lsgan", "hinge"]))}
    chosen: dict[str, Any] = {"state_lr": bool(rng.random() < 0.6), "mean": bool(rng.random() < 0.3)}
    if family in ("classifier", "speaker") and rng.random() < 0.5:
        chosen["accuracy"] = True
    return chosen
