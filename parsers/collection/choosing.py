"""Which of several runs the caller means: by name, by path or by identifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eventstream.errors import InputError, unknown_name
from parsers.collection.reading import read_group, read_run
from parsers.collection.run_names import unique_names
from parsers.collection.workers import came_of, workers_for
from parsers.run import Run
from parsers.tables.events import payload_object
from parsers.tree import Found

__all__ = ["chosen", "short"]


def chosen(root: Path, groups: Sequence[Sequence[Found]], wanted: str) -> Run:
    """The run that `wanted` names among the logs found below `root`.

    An identifier inside a file, then the place of a log, count before a name, which is known only when all are read.
    Raises `InputError` with the nearest names where there is none, and with the paths where there are several.
    """
    told = [one for group in groups for one in group if one[1].run == wanted]
    if len(told) == 1:
        return read_run(*told[0])
    placed = [group for group in groups if any(_is_at(str(where), root, wanted) for where, _ in group)]
    if len(placed) == 1:
        outcome = read_group(placed[0])
        if len(outcome.runs) == 1:
            return outcome.runs[0]
        if not outcome.runs:
            raise outcome.errors[0][1]
    runs = [run for came in came_of(groups, _quiet, workers_for(groups, None)) for run in came.outcome.runs]
    return _named(root, runs, wanted)


def _named(root: Path, runs: Sequence[Run], wanted: str) -> Run:
    names = list(unique_names([(run.name, run.path) for run in runs]))
    fits = [run for run, name in zip(runs, names, strict=True) if wanted == name or _is_at(run.path, root, wanted)]
    fits = fits or [run for run in runs if run.name == wanted]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise InputError(f"{root}: {len(fits)} runs fit {wanted!r} ({_told_apart(root, fits)}")
    raise InputError(f"{root}: {unknown_name('run', wanted, names)}")


def _told_apart(root: Path, runs: Sequence[Run]) -> str:
    """Runs that have one name by what tells them apart, and how to name one: runs of one file have identifiers."""
    places = [short(run.path, root) for run in runs]
    if len(set(places)) == len(places):
        return f"{', '.join(places[:5])}); name one by its path"
    told = [payload_object(next(iter(run.events_of("run")["payload"]), None)) for run in runs]
    known = [f"{one.get('id', '?')} of experiment {one.get('experiment', '?')!r}" for one in told]
    return f"{', '.join(known[:5])}); name one by its identifier"


def _is_at(path: str, root: Path, wanted: str) -> bool:
    return wanted in (path, short(path, root))


def _quiet(_: Path) -> None:
    """Nothing is told."""


def short(path: str, root: Path) -> str:
    """The path from `root` on; the last part of it where it is `root`.

    >>> short("runs/a/log.csv", Path("runs")), short("runs/a", Path("runs/a"))
    ('a/log.csv', 'a')
    """
    return path.removeprefix(str(root)).lstrip("/\\") or Path(path).name
