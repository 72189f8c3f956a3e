"""The list of runs to make: every fault in every variant and magnitude for both halves, and as many healthy ones."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from benchmarks.faults.healthy import QUIRKS
from benchmarks.faults.planting import all_faults
from benchmarks.faults.truth import HALVES, PRACTICE

__all__ = ["Job", "all_jobs", "practice_jobs"]


@dataclass(frozen=True)
class Job:
    """One run to make. `plant` is the key of a fault, or `healthy/<quirk>`."""

    split: str
    plant: str
    variant: str
    magnitude: int
    number: int

    @property
    def id(self) -> str:
        """A name that says what was planted; it stands in no file that is loaded."""
        kind, name = self.plant.split("/")
        middle = f"{name}-{self.variant}" if self.variant else name
        level = f"-m{self.magnitude}" if kind != "healthy" else ""
        return f"{self.split[:3]}-{kind}-{middle.replace('_', '-')}{level}-{self.number}"

    def rng(self, attempt: int = 0) -> np.random.Generator:
        """The generator of a draw of this run."""
        return np.random.default_rng([zlib.crc32(self.id.encode()), attempt])


def all_jobs() -> list[Job]:
    """All runs, those of one plant together; then healthy ones, of each quirk equally many, and no fewer in all."""
    jobs = []
    for key, fault in sorted(all_faults().items()):
        for variant in fault.variants:
            for split in HALVES:
                jobs += [Job(split, key, variant, m, n) for m in range(1, 7) for n in range(fault.reps)]
    each = math.ceil(len(jobs) / 2 / len(QUIRKS))
    for quirk in QUIRKS:
        for split in HALVES:
            jobs += [Job(split, f"healthy/{quirk}", "", 0, n) for n in range(each)]
    return jobs


def practice_jobs(reps: int) -> list[Job]:
    """Runs beside the halves: `reps` of every fault, variant and magnitude, and of every quirk of healthy runs."""
    faulty = [
        Job(PRACTICE, key, variant, magnitude, number)
        for key, fault in sorted(all_faults().items())
        for variant in fault.variants
        for magnitude in range(1, 7)
        for number in range(reps)
    ]
    return faulty + [Job(PRACTICE, f"healthy/{quirk}", "", 0, number) for quirk in QUIRKS for number in range(reps)]
