"""What one training is: family, optimiser, schedule, length, batch and the quirks that it has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """A training, wholly: the same recipe trains to the same numbers.

    `points` rows are logged, one every `every` optimiser steps. `options` are those of the family and of the loop
    (`clip`, `eval_rows`, `mean`, `examples`, ...), each with a default where it is read.
    """

    family: str
    optimizer: str
    schedule: str
    points: int
    batch: int
    seed: int
    every: int = 1
    quirks: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.points * self.every

    def with_(self, **changes: Any) -> Recipe:
        """The same recipe with other fields."""
        return replace(self, **changes)

    def opt(self, **options: Any) -> Recipe:
        """The same recipe with further options."""
        return replace(self, options={**self.options, **options})

    def get(self, name: str, default: Any) -> Any:
        """An option, or its default."""
        return self.options.get(name, default)
