"""What the checkpoints of a resumed training tell beside the newest state: dead branches, spliced in as attempts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parsers.trainer_files.trainer_state import State

__all__ = ["Branch", "branches", "is_clock", "spliced"]

_Entry = Mapping[str, Any]
#: Fewest entries that make a branch: one alone that differs may be a slip.
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class Branch:
    """A state that agrees with the newest up to its entry `at`, and from there on tells of another training."""

    state: State
    at: int

    @property
    def step(self) -> Any:
        """The step of the last entry that both tell: training was begun again there, or a little after."""
        return self.state.entries[self.at - 1].get("step")


def is_clock(key: str) -> bool:
    """Whether a number is what the clock said: an evaluation that is done again takes another time.

    >>> is_clock("eval_runtime"), is_clock("eval_samples_per_second"), is_clock("eval_loss")
    (True, True, False)
    """
    return key.endswith(("_runtime", "_per_second"))


def branches(older: Sequence[State], newest: State) -> tuple[list[Branch], list[State]]:
    """The states that are dead branches of the newest, and those that disagree with it in another way.

    A dead branch has at least one entry in common with the newest, then at least two of which none is told there.
    A state that agrees in all its entries is in neither list; nor is one that is the beginning of another branch.

    >>> def told(name, *losses):
    ...     return State(name, {}, [{"step": k, "loss": loss} for k, loss in enumerate(losses, 1)])
    >>> found, odd = branches([told("killed", 3.0, 2.5, 2.6), told("odd", 3.0, 9.9)], told("new", 3.0, 2.1, 1.9, 1.8))
    >>> [(branch.state.file, branch.step) for branch in found], [state.file for state in odd]
    ([('killed', 1)], ['odd'])
    """
    dead: list[Branch] = []
    odd: list[State] = []
    for state in sorted(older, key=lambda state: -state.last_step):
        many = len(state.entries)
        if any(_shared(state.entries, known.entries) == many for known in (newest, *(b.state for b in dead))):
            continue
        at = _shared(state.entries, newest.entries)
        if at and many >= at + _FEWEST and not _tells_of(newest.entries[at:], state.entries[at:]):
            dead.append(Branch(state, at))
        else:
            odd.append(state)
    return sorted(dead, key=lambda branch: (branch.at, branch.state.last_step)), odd


def spliced(newest: Sequence[_Entry], dead: Sequence[Branch]) -> list[_Entry]:
    """All entries in the order in which they were logged: each dead branch before the live entries that replaced it.

    Branches that have their beginning in common tell it once.
    """
    told: list[_Entry] = []
    done = 0
    for number, branch in enumerate(dead):
        told += newest[done : branch.at]
        done = branch.at
        before = [_shared(branch.state.entries, other.state.entries) for other in dead[:number]]
        told += branch.state.entries[max([branch.at, *before]) :]
    return [*told, *newest[done:]]


def _shared(entries: Sequence[_Entry], others: Sequence[_Entry]) -> int:
    """How many entries from the first on are the same."""
    if entries == others[: len(entries)]:  # the usual case, much faster
        return len(entries)
    for place, (one, other) in enumerate(zip(entries, others, strict=False)):
        if not _same(one, other):
            return place
    return min(len(entries), len(others))


def _same(one: _Entry, other: _Entry) -> bool:
    return one == other or (
        one.keys() == other.keys() and all(is_clock(key) or _equal(one[key], other[key]) for key in one)
    )


def _equal(value: Any, other: Any) -> bool:
    both = isinstance(value, float) and isinstance(other, float)
    return bool(value == other) or (both and math.isnan(value) and math.isnan(other))


def _tells_of(entries: Sequence[_Entry], others: Sequence[_Entry]) -> bool:
    """Whether any of `others` is told by `entries` too."""
    by_step: dict[Any, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_step[_key(entry)].append(entry)
    return any(_same(entry, known) for entry in others for known in by_step[_key(entry)])


def _key(entry: _Entry) -> str:
    return repr(entry.get("step"))
