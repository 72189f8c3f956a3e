"""Reading the logs that were found, one or several of one run: runs, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError
from parsers.places.archives import damage_of
from parsers.plans.beside import with_configuration
from parsers.registry import Format
from parsers.run import Run
from parsers.schema import REJECTS
from parsers.sources import merged
from parsers.tree import Found

__all__ = ["Came", "Outcome", "join", "read_each", "read_group", "read_run", "with_rejects"]

#: Called with the path of each log before it is read.
Before = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a group of logs: its runs, and the path and error of each log that could not be read."""

    runs: list[Run] = field(default_factory=list)
    errors: list[tuple[str, InputError]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """The errors as plain values."""
        return {"errors": [[where, str(error)] for where, error in self.errors]}


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a group; the same in bytes, or as the rows of a listing in the place of its runs."""

    outcome: Outcome
    data: bytes | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def read_group(group: Sequence[Found], before: Before | None = None) -> Outcome:
    """The runs that a group of logs tells of, as `parsers.tree.find_groups` puts them together.

    >>> read_group([])
    Outcome(runs=[], errors=[])
    """
    return join(group, read_each(group, before))


def read_each(group: Sequence[Found], before: Before | None = None) -> list[Run | InputError]:
    """What came of each log by itself."""
    outcomes: list[Run | InputError] = []
    for where, format in group:
        if before is not None:
            before(where)
        try:
            outcomes.append(read_run(where, format))
        except InputError as error:
            outcomes.append(error)
    return outcomes


def join(group: Sequence[Found], outcomes: Sequence[Run | InputError]) -> Outcome:
    """The runs of a group out of what came of each of its logs."""
    told = list(zip([where for where, _ in group], outcomes, strict=True))
    runs = [(where, one) for where, one in told if isinstance(one, Run)]
    errors = [(str(where), one) for where, one in told if isinstance(one, InputError)]
    return Outcome([run for _, run in (merged(runs) if len(runs) > 1 else runs)], errors)


def read_run(where: Path, format: Format) -> Run:
    """The run of one log that was found, with the configurations beside it; damage of its packing is a reject."""
    try:
        run = format.read(where)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from error
    return with_rejects(with_configuration(run, where), damage_of(where))


def with_rejects(run: Run, damage: Sequence[tuple[str, str]]) -> Run:
    """The run with more rejects: file and reason of each."""
    if not damage:
        return run
    rows = [(file, None, None, reason, "") for file, reason in damage]
    return replace(run, rejects=pl.concat([run.rejects, pl.DataFrame(rows, schema=REJECTS, orient="row")]))
