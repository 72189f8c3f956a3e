"""Which parameters moved between which saves, and over how many steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import polars as pl

from analysis.weights.counters import counts_of
from analysis.weights.optimizer_states import moments_of, states_by_parameter
from analysis.weights.saved import Saved, is_buffer
from parsers.checkpoints.tensors import Tensor

__all__ = ["Moves", "moves_of", "steps_between"]


@dataclass(frozen=True, eq=False)
class Moves:
    """Which parameters moved in which interval between saves: `moved[name]` holds for each interval the share of the
    elements that changed (None: unknown).

    `length` are the steps of each interval, 1 where they are not known; `spans` the saves around it.
    """

    moved: dict[str, list[float | None]]
    length: list[int]
    spans: list[tuple[Saved, Saved]] = field(repr=False)

    @cached_property
    def lively(self) -> list[int]:
        """Intervals in which anything at all moved."""
        return [n for n in range(len(self.length)) if any(marks[n] for marks in self.moved.values())]

    @cached_property
    def states(self) -> dict[str, list[dict[str, Any]]]:
        """The states of the optimizer in the last save, by parameter."""
        return states_by_parameter(self.spans[-1][1])

    @cached_property
    def shapes_with_moments(self) -> Counter[tuple[int, ...]]:
        """How many parameters of each shape the optimizer of the last save holds moments of, named or not."""
        by_moment: dict[str, Counter[tuple[int, ...]]] = {}
        for row in moments_of(self.spans[-1][1].rows("optimizer")):
            by_moment.setdefault(row["state"], Counter())[tuple(row["shape"])] += 1
        return max(by_moment.values(), key=Counter.total, default=Counter())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensor of each parameter in the last save that has it: not all are in all."""
        return {name: tensor for span in self.spans for saved in span for name, tensor in saved.weights.items()}

    @cached_property
    def moving(self) -> frozenset[str]:
        """Parameters that moved in the last interval in which they are known."""
        last = {name: self.observed(name)[-1:] for name in self.moved}
        return frozenset(name for name, at in last.items() if at and self.moved[name][at[0]])

    def observed(self, name: str) -> list[int]:
        """Intervals in which a parameter is known, and in which anything at all moved."""
        return [n for n in self.lively if self.moved[name][n] is not None]

    def rest(self, name: str, since: float = -math.inf) -> tuple[int, int | None]:
        """Steps for which a parameter has stood still up to the end while others moved, and the interval they begin.

        Intervals that begin before the step `since` are not counted.
        """
        steps, first = 0, None
        for n in reversed(self.observed(name)):
            if self.moved[name][n] or (self.spans[n][0].at or 0) < since:
                break
            steps, first = steps + self.length[n], n
        return steps, first


def moves_of(saves: Sequence[Saved], differences: Sequence[pl.DataFrame]) -> Moves:
    """What moved between successive saves, from the share of elements that changed; buffers are left out.

    The order is that of the last save, which is that of the model as a rule.
    """
    in_order = dict.fromkeys(name for saved in reversed(saves) for name in saved.weights if not is_buffer(name))
    twice = saves[-1].second_names() if saves else set()
    moved: dict[str, list[float | None]] = {name: [None] * len(differences) for name in in_order if name not in twice}
    for n, frame in enumerate(differences):
        for name, share in zip(frame["parameter"].to_list(), frame["share_changed"].to_list(), strict=True):
            if name in moved:
                moved[name][n] = share
    spans = list(pairwise(saves))
    return Moves(moved, [steps_between(before, after) or 1 for before, after in spans], spans)


def steps_between(before: Saved, after: Saved) -> int | None:
    """Steps of the optimizer between two saves, or of the saves; None where neither is known."""
    one, two = counts_of(before).optimizer, counts_of(after).optimizer
    if one is not None and two is not None and two > one:
        return int(two - one)
    known = before.at is not None and after.at is not None and after.at > before.at
    return (after.at or 0) - (before.at or 0) if known else None
