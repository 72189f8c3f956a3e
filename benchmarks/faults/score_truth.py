"""What is known of each generated run: the planted fault, how large it is and where it begins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from analysis.kinds import KINDS
from benchmarks.faults.truth import INDEX, SPLITS
from eventstream.errors import unknown_name

__all__ = ["MAGNITUDES", "OBVIOUS_TO_MIDDLE", "Truth", "chosen", "read_index"]

MAGNITUDES = (1, 2, 3, 4, 5, 6)
#: The magnitudes that a goal is set for: 1 and 2 are obvious, 3 and 4 middle, 5 and 6 faint.
OBVIOUS_TO_MIDDLE = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth of one run; `fault` is None for a healthy one. Fields are those of the generator's truth.json."""

    id: str
    path: str
    split: str
    family: str
    optimizer: str
    schedule: str
    points: int
    batch: int
    format: str
    quirks: tuple[str, ...]
    fault: str | None
    variant: str
    magnitude: int | None
    size: float | None
    unit: str | None
    onset_step: int | None
    end_step: int | None
    last_step: int
    metric: str | None
    accepted: tuple[str, ...]
    #: The size that was asked for; `size` is the one that was measured.
    wanted: float | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"run {self.id}: {unknown_name('split', self.split, SPLITS)}")
        for kind in (*self.accepted, *([self.fault] if self.fault is not None else [])):
            if kind not in KINDS:
                raise ValueError(f"run {self.id}: {unknown_name('finding kind', kind, KINDS)}")
        if (self.fault is None) != (self.magnitude is None):
            raise ValueError(
                f"run {self.id}: fault {self.fault!r} with magnitude {self.magnitude!r}; give both or none"
            )
        if self.magnitude is not None and self.magnitude not in MAGNITUDES:
            raise ValueError(f"run {self.id}: magnitude {self.magnitude} is not one of {MAGNITUDES}")

    @property
    def true_kinds(self) -> frozenset[str]:
        """The kinds that a finding may have to be a true one; none for a healthy run."""
        return frozenset() if self.fault is None else frozenset({self.fault, *self.accepted})


def truth_of(row: Mapping[str, Any]) -> Truth:
    """One truth of a parsed truth.json; what else the generator writes there is left out.

    Raises `ValueError` with the run and the field where one is missing or unknown.
    """
    missing = [one.name for one in fields(Truth) if one.name not in row and one.default is MISSING]
    if missing:
        raise ValueError(f"run {row.get('id', '?')}: its truth lacks {', '.join(missing)}")
    known = {one.name: row[one.name] for one in fields(Truth) if one.name in row}
    for name in ("quirks", "accepted"):
        known[name] = tuple(known[name])
    for name in ("size", "wanted"):  # JSON has no infinity: it stands there as a string
        known[name] = None if known.get(name) is None else float(known[name])
    return Truth(**known)


def read_index(logs: Path) -> list[Truth]:
    """The truths of all runs in a folder of generated logs, in the order of the index.

    Raises `FileNotFoundError` that says how to make the logs, where there are none.
    """
    path = logs / INDEX
    if not path.exists():
        raise FileNotFoundError(f"{path}: no generated logs; make them with `python -m benchmarks.faults generate`")
    listed = json.loads(path.read_text(encoding="utf-8"))
    rows = listed["runs"] if isinstance(listed, dict) else listed
    return [truth_of(row) for row in rows]


def chosen(truths: Iterable[Truth], split: str, only: Iterable[str] = (), share: float = 1.0) -> list[Truth]:
    """The runs of a split; of some faults only (`healthy` for runs without one); and an even share of what is left.

    A share takes every n-th run of each fault and magnitude, so that a quick look sees them all.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give a number above 0 and up to 1")
    wanted = frozenset(only)
    for kind in wanted - {"healthy"}:
        if kind not in KINDS:
            raise ValueError(unknown_name("finding kind", kind, KINDS))
    cells: dict[tuple[str, int], int] = {}
    kept = []
    for truth in truths:
        name = truth.fault or "healthy"
        if truth.split != split or (wanted and name not in wanted):
            continue
        seen = cells[name, truth.magnitude or 0] = cells.get((name, truth.magnitude or 0), -1) + 1
        if int(seen * share) != int((seen - 1) * share) or seen == 0:
            kept.append(truth)
    return kept
