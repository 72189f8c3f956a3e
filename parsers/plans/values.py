"""One value out of several settings that could mean it: the most authoritative that says anything, never a guess."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parsers.plans.entries import Entry, number_of
from parsers.plans.names import FOREIGN, INNER, NAMES, ONLY_BELOW, SCHEDULER

__all__ = ["Found", "Reader", "whole_of"]

#: Values that say that a setting is left to somebody else.
_UNSET = ("", "auto", "none", "null", "default", "~")
#: Lengths that a model may have as well as a training.
_LENGTHS = ("max_steps", "epochs", "steps_per_epoch")


@dataclass(frozen=True, slots=True)
class Found:
    """A value and the setting that it was read from."""

    value: Any
    entry: Entry

    @property
    def where(self) -> str:
        """File and path."""
        return self.entry.where


@dataclass(slots=True)
class Reader:
    """The settings of a run, the most authoritative file first; `odd` gathers what is said about those not used."""

    entries: Sequence[Entry]
    odd: list[str] = field(default_factory=list)
    #: How often something that was meant could not be used: what hangs on it is then not known.
    doubts: int = 0
    used: set[tuple[str, str]] = field(default_factory=set)

    def named(self, key: str, *, scheduler: bool | None = None) -> list[Entry]:
        """Settings under one of the names of `key`; with `scheduler` only those below one, or only the others."""
        names = NAMES[key]
        foreign = FOREIGN | (INNER if key in _LENGTHS else frozenset())
        found = [e for e in self.entries if e.name in names and not e.below(foreign)]
        found = [e for e in found if e.name not in ONLY_BELOW or e.below(SCHEDULER)]
        return found if scheduler is None else [e for e in found if e.below(SCHEDULER) is scheduler]

    def number(
        self, key: str, *, scheduler: bool | None = None, above: float = 0.0, least: float | None = None
    ) -> Found | None:
        """The number of `key`: larger than `above`, or at least `least`; a smaller one (0, -1) leaves it unset."""

        def fits(value: float) -> bool:
            return value > above if least is None else value >= least

        return self.chosen(key, self.named(key, scheduler=scheduler), number_of, fits)

    def whole(self, key: str, *, scheduler: bool | None = None, least: int = 1) -> Found | None:
        """As `number`, of whole numbers; a fraction is said and not used."""
        found = self.number(key, scheduler=scheduler, least=least)
        if found is None:
            return None
        number = whole_of(found.value)
        if number is None:
            self.say(found.entry, f"expected a whole number, found {found.value:g}")
            return None
        return Found(number, found.entry)

    def chosen(
        self,
        key: str,
        candidates: Iterable[Entry],
        reading: Callable[[object], Any],
        fits: Callable[[Any], bool] = lambda value: True,
    ) -> Found | None:
        """What the candidates of the first file that says anything agree on; None, and said, where they do not."""
        told: list[Found] = []
        for entry in candidates:
            if entry.value is None or isinstance(entry.value, dict | list) or unset(entry.value):
                continue
            value = reading(entry.value)
            if value is None:
                self.say(entry, f"{_shown(entry.value)} is not understood as {_title(key)}")
            elif fits(value):
                told.append(Found(value, entry))
        if not told:
            return None
        first = [one for one in told if one.entry.file == told[0].entry.file]
        best = self.one(key, first)
        if best is not None:
            for other in told[len(first) :]:
                self._outvoted(best, other)
        return best

    def one(self, key: str, told: list[Found]) -> Found | None:
        """What settings of one file agree on; None, and said, where they do not."""
        values = {repr(one.value) for one in told}
        if len(values) == 1:
            best = min(told, key=lambda one: len(one.entry.keys))
            self.used.update((one.entry.file, one.entry.path[0]) for one in told)
            return best
        listed = ", ".join(f"{'.'.join(one.entry.path)} = {_shown(one.entry.value)}" for one in told[:4])
        self.doubts += 1
        self.odd.append(f"{told[0].entry.file}: {listed}: which of them is {_title(key)} is not said")
        self.used.update((one.entry.file, one.entry.path[0]) for one in told)
        return None

    def _outvoted(self, best: Found, other: Found) -> None:
        if other.value != best.value:
            counts = f"{_shown(best.entry.value)} of {best.where} counts"
            self.say(other.entry, f"{_shown(other.entry.value)}, but {counts}", doubt=False)

    def say(self, entry: Entry, what: str, *, doubt: bool = True) -> None:
        """Something about a setting that is not used, once."""
        self.doubts += doubt
        self.used.add((entry.file, entry.path[0]))
        text = f"{entry.where}: {what}"
        if text not in self.odd:
            self.odd.append(text)

    def use(self, entry: Entry) -> None:
        """Remember that a setting was read."""
        self.used.add((entry.file, entry.path[0]))


def unset(value: object) -> bool:
    """Whether a value says that nothing is set."""
    return isinstance(value, str) and value.strip().lower() in _UNSET


def whole_of(number: float) -> int | None:
    """The whole number that a number is; None for a fraction and beyond 2^53."""
    return int(number) if number == int(number) and abs(number) < 2**53 else None


def _shown(value: object) -> str:
    return repr(value)[:60]


def _title(key: str) -> str:
    return key.removeprefix("lr.").replace("_", " ") + (" of the learning rate" if key.startswith("lr.") else "")
