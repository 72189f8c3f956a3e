"""What can be planted: the kind, what it does to the numbers, the unit of its size, and how large that may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.injection.draft import Draft

__all__ = ["Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that can be planted; `plant` writes it into a `Draft`.

    `unit` is empty for a fault that is there or not, and has no size. `nothing` is the size that would change nothing;
    sizes lie between `lowest` and `highest`, and are whole numbers where `counted`. `placed` says that `at` decides
    where it begins; else it is in the whole run. `info` says that its finding is information by design. A finding names
    the onset when it begins within `tolerance` (share of the run) of it.
    """

    kind: str
    does: str
    plant: Callable[[Draft], None]
    unit: str = ""
    default: float = 0.0
    nothing: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0
    counted: bool = False
    placed: bool = True
    info: bool = False
    tolerance: float = 0.1

    @property
    def sized(self) -> bool:
        """Whether it can be larger and smaller."""
        return bool(self.unit)

    def checked(self, size: float | None) -> float:
        """The size, or the default for None; `ValueError` for one that this fault cannot have."""
        if size is None:
            return self.default
        if not self.sized:
            raise ValueError(f"{self.kind} is there or it is not: it takes no size, and was given {size!r}")
        if (
            isinstance(size, bool)
            or not isinstance(size, int | float | np.integer)
            or not self.lowest <= size <= self.highest
        ):
            limits = f"{self.lowest:g} to {self.highest:g} {self.unit}"
            raise ValueError(f"the size of {self.kind} is a number from {limits}, not {size!r}")
        if self.counted and size != int(size):
            raise ValueError(f"the size of {self.kind} counts {self.unit}: a whole number, not {size!r}")
        return float(size)
