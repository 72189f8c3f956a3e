"""What a pickle would have called, gathered while it is read: each callable once, the dangerous ones with each use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parsers.checkpoints.checkpoint import UnsafeCall
from parsers.checkpoints.inert_objects import Named, shortened

__all__ = ["Calls"]

#: Calls that are kept of one pickle, of either risk: a list is for reading.
MOST_CALLS = 200
#: Names that are kept until it is known whether something calls them; those that are dangerous are all kept.
MOST_NAMES = 4000


class Calls:
    """The calls of one pickle by callable and arguments; those of unknown classes once each."""

    def __init__(self) -> None:
        self._named: list[Named] = []
        self._dangerous: dict[tuple[str, str], None] = {}
        self._unknown: dict[str, str] = {}

    def name(self, found: Named) -> None:
        """A global is named; should nothing call it, this is told too, as naming it imports its module."""
        if not found.known and (found.risk == "dangerous" or len(self._named) < MOST_NAMES):
            self._named.append(found)

    def call(self, function: Named, arguments: tuple[Any, ...]) -> None:
        """A global is called; a thousand objects of one unknown class are told once, with what the first was given."""
        function.called = True
        dangerous = function.risk == "dangerous"
        if dangerous or function.name not in self._unknown:
            self._add(function.name, shortened(arguments), dangerous)

    def result(self, name: str, arguments: str) -> None:
        """What another call returned is called, which only code that hides its way does."""
        self._add(f"{name}()", arguments, dangerous=True)

    def change(self, target: Named, what: str) -> None:
        """A global of another module would be changed."""
        target.called = True
        self._add(target.name, what, dangerous=True)

    def told(self, file: Path, member: str) -> tuple[UnsafeCall, ...]:
        """All that was gathered, the dangerous first; a name that was never called has empty arguments."""
        for found in self._named:
            if not found.called:
                self._add(found.name, "", found.risk == "dangerous")
        dangerous = [UnsafeCall(file, member, name, arguments, "dangerous") for name, arguments in self._dangerous]
        unknown = [UnsafeCall(file, member, name, given, "unknown") for name, given in self._unknown.items()]
        return (*dangerous, *unknown)

    def _add(self, name: str, arguments: str, dangerous: bool) -> None:
        if dangerous and len(self._dangerous) < MOST_CALLS:
            self._dangerous[(name, arguments)] = None
        elif not dangerous and len(self._unknown) < MOST_CALLS:
            self._unknown.setdefault(name, arguments)
