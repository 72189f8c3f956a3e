"""Whether two logs of one run say the same: records matched by step and keys, numbers compared one by one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parsers.tables.columns import number

__all__ = ["Difference", "compare_records"]

_Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that two logs tell differently: `older` is None where only the newer has the record."""

    step: Any
    key: str
    older: float | None
    newer: float | None

    def __str__(self) -> str:
        """Where and what, in words."""
        if self.newer is None:
            return f"step {self.step}: {self.key} is {self.older:g} here and missing there"
        return f"step {self.step}: {self.key} is {self.older:g} here and {self.newer:g} there"


def compare_records(
    older: Sequence[_Record], newer: Sequence[_Record], *, keys: Iterable[str] | None = None
) -> tuple[int, list[Difference]]:
    """How many numbers of `older` were compared with `newer`, and those that `newer` tells differently or lacks.

    A record of `older` is compared with the record of `newer` that has the same step and most of its keys; of several,
    the first one not yet taken. Numbers are equal only when they are exactly the same; NaN equals NaN. `keys` limits
    the comparison to these.

    >>> compare_records([{"step": 1, "loss": 2.0}], [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}])
    (1, [Difference(step=1, key='loss', older=2.0, newer=2.5)])
    """
    wanted = None if keys is None else frozenset(keys)
    by_step: dict[Any, list[_Record]] = defaultdict(list)
    for record in newer:
        by_step[_step(record)].append(record)
    compared, differences = 0, []
    for record in older:
        mine = _numbers(record, wanted)
        if not mine:
            continue
        step = _step(record)
        theirs = _take_match(by_step.get(step, []), mine, wanted)
        for key, value in mine.items():
            compared += 1
            other = theirs.get(key)
            if other is None or not (other == value or (math.isnan(other) and math.isnan(value))):
                differences.append(Difference(step, key, value, other))
    return compared, differences


def _step(record: _Record) -> Any:
    step = record.get("step")
    return step if isinstance(step, int | float | str) else None


def _numbers(record: _Record, wanted: frozenset[str] | None) -> dict[str, float]:
    found = {}
    for key, value in record.items():
        if key == "step" or (wanted is not None and key not in wanted):
            continue
        value = number(value)
        if value is not None:
            found[key] = value
    return found


def _take_match(
    candidates: list[_Record], mine: Mapping[str, float], wanted: frozenset[str] | None
) -> Mapping[str, float]:
    """The numbers of the candidate that shares most keys, which is then taken out; empty where none shares any."""
    best, shared = -1, 0
    for place, candidate in enumerate(candidates):
        common = len(mine.keys() & candidate.keys())
        if common > shared:
            best, shared = place, common
            if common == len(mine):
                break
    return _numbers(candidates.pop(best), wanted) if best >= 0 else {}
