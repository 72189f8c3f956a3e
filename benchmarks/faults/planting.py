"""How a fault is planted: what a plant is asked for, what it gives back, and the list of all plants."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.faults.dress import dress
from benchmarks.faults.ladder import Ladder, ladder_of
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.schedules import SCHEDULES
from benchmarks.faults.trace import Trace

__all__ = ["Ask", "Demand", "Draw", "Fault", "NotPlantedError", "Planted", "all_faults", "close_to", "plants"]

ANY = ("event-stream", "jsonl", "lightning-csv", "trainer-state", "tensorboard", "text")
NAMED = ("event-stream", "jsonl", "lightning-csv", "tensorboard", "text")
TIMED = ("event-stream", "jsonl", "tensorboard", "text")
STREAM = ("event-stream",)
ONE_LOSS = ("classifier", "language", "autoencoder", "regression", "speaker", "distillation")
SIMPLE = ("classifier", "autoencoder", "regression", "speaker")
#: The modules whose plants are known.
MODULES = ("accounting", "adversarial", "contracts", "generalisation", "gradients", "hidden", "numbers", "rates",
           "ranks", "resources", "stream", "training")  # fmt: skip


class NotPlantedError(Exception):
    """The fault did not take effect as it was meant to in this training: another seed is to be drawn."""


@dataclass(frozen=True)
class Ask:
    """What a demand may know of the run that is to be made."""

    variant: str
    magnitude: int
    rng: np.random.Generator


Demand = Callable[[Recipe, Ask], Recipe]


@dataclass(frozen=True)
class Draw:
    """What a plant is asked for: a fault of one variant and magnitude in the training of a recipe."""

    kind: str
    variant: str
    magnitude: int
    recipe: Recipe
    rng: np.random.Generator
    healthy: Callable[[Recipe], Trace]

    @property
    def ladder(self) -> Ladder:
        """The ladder of the fault."""
        return ladder_of(self.kind, self.variant)

    @property
    def size(self) -> float:
        """The size of this magnitude."""
        return float(self.ladder.sizes[self.magnitude - 1])

    def factor(self, noise: float) -> float:
        """The size as a factor above 1, at least as many times the noise (on the logarithm) as the ladder asks for."""
        if self.ladder.noise is None:
            return self.size
        # a factor beyond 30 is as visible as any, however noisy the run
        return min(max(self.size, math.exp(min(self.ladder.noise[self.magnitude - 1] * noise, 3.4))), 30.0)

    def base(self, **wanted: bool) -> Trace:
        """The healthy training of the recipe with its times (and `memory` or `speed`), free to be changed."""
        trace = self.healthy(self.recipe).copy()
        dress(trace, self.recipe, self.rng, **wanted)
        return trace

    def place(self, low: float = 0.3, high: float = 0.8) -> int:
        """A row between two shares of the run."""
        return int(self.rng.integers(int(low * self.recipe.points), max(int(low * self.recipe.points) + 1,
                                                                        int(high * self.recipe.points))))  # fmt: skip


@dataclass
class Planted:
    """A training with its fault. `size` was measured; steps are those of the log; `accepted` adds to the ladder's."""

    trace: Trace
    size: float
    onset: int
    end: int | None = None
    metric: str | None = "loss"
    accepted: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """A plant: its kind and variants, the families and formats that it is planted in, and the recipe's demands.

    `points` are the lengths that it needs; `demand` makes a recipe fit (an optimiser, options). `pooled` faults are
    planted in the log of a healthy training that they share with others. `reps` is how many runs of each variant and
    magnitude are made for each split.
    """

    kind: str
    plant: Callable[[Draw], Planted]
    variants: tuple[str, ...]
    families: tuple[str, ...]
    formats: tuple[str, ...]
    points: tuple[int, ...]
    schedules: tuple[str, ...]
    demand: Demand
    pooled: bool
    reps: int


_FAULTS: dict[str, Fault] = {}


def plants(
    kind: str,
    *,
    variants: tuple[str, ...] = ("",),
    families: tuple[str, ...] = SIMPLE,
    formats: tuple[str, ...] = ANY,
    points: tuple[int, ...] = (90, 150, 300, 600),
    schedules: tuple[str, ...] = SCHEDULES,
    demand: Demand = lambda recipe, ask: recipe,
    pooled: bool = False,
    reps: int = 1,
) -> Callable[[Callable[[Draw], Planted]], Callable[[Draw], Planted]]:
    """Registers a plant under its kind."""

    def register(plant: Callable[[Draw], Planted]) -> Callable[[Draw], Planted]:
        _FAULTS[f"{kind}/{plant.__name__}"] = Fault(
            kind, plant, variants, families, formats, points, schedules, demand, pooled, reps
        )
        return plant

    return register


def all_faults() -> dict[str, Fault]:
    """All plants, by kind and function."""
    for module in MODULES:
        importlib.import_module(f"benchmarks.faults.plants.{module}")
    return dict(_FAULTS)


def close_to(measured: float, wanted: float, tolerance: float, what: str) -> float:
    """The measured size, if it lies within a factor of the wanted one (`tolerance` 1.25: 25 % either way)."""
    if not (wanted > 0 and measured > 0 and abs(math.log(measured / wanted)) <= math.log(tolerance)):
        raise NotPlantedError(f"{what}: {measured:.3g} where {wanted:.3g} was meant")
    return measured
