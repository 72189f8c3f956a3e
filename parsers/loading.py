"""`load` one run, `load_all` runs of a tree: any path in, `Run` or `RunSet` out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import polars as pl

from eventstream.errors import InputError
from parsers.archives import damage_of
from parsers.place import StrPath, place
from parsers.plugins import plugins
from parsers.registry import Format, formats
from parsers.run import Run, RunSet
from parsers.schema import REJECTS
from parsers.sources import merged
from parsers.tree import Found, Unread, find_groups

__all__ = [
    "Progress", "existing", "found_below", "load", "load_all", "log_key", "nothing_at", "read_run", "single",
    "unique_names",
]  # fmt: skip

#: Called as `progress(done, total, path)`.
Progress = Callable[[int, int, str], None]


def load(path: StrPath) -> Run:
    """The one run at `path`, whatever wrote it.

    `path` is a log file, a run folder, or a folder or archive (.zip, .tar and its packed kinds) that holds exactly one
    run; compressed files (.gz, .zst, .xz, .bz2) are read as what is in them, and URLs through fsspec
    (`memory://`, `s3://`, ...; needs universal-pathlib). Nothing is unpacked to disk. Damage inside the file becomes
    rows of `run.rejects`. Raises `InputError` when there is nothing there, nothing that is a run, or more than one.

    >>> load("no/such/run")
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: no/such/run: no such file or folder
    """
    root = existing(path)
    unread: Unread = []
    groups = find_groups(root, unread)
    if not groups:
        raise InputError(nothing_at(root, unread))
    if len(groups) > 1:
        raise InputError(_several(root, [place for group in groups for place, _ in group]))
    runs = _joined(groups[0])
    if len(runs) > 1:
        raise InputError(_several(root, [place for place, _ in runs]))
    return runs[0][1]


def _several(root: Path, places: list[Path]) -> str:
    names = ", ".join(_short(place, root) for place in places[:5])
    return f"{root}: {len(places)} runs here ({names}, ...); name one of them, or use load_all"


def _joined(group: list[Found]) -> list[tuple[Path, Run]]:
    """The runs of a group; of several logs those that cannot be read are rejects of the first run that can."""
    if len(group) == 1:
        return [(group[0][0], read_run(*group[0]))]
    outcomes = [(where, _outcome(where, format)) for where, format in group]
    runs = merged([(where, run) for where, run in outcomes if isinstance(run, Run)])
    errors = [(str(where), error) for where, error in outcomes if isinstance(error, InputError)]
    if not runs:
        raise errors[0][1]
    where, run = runs[0]
    return [(where, _with_rejects(run, [(path, str(error)) for path, error in errors])), *runs[1:]]


def load_all(
    paths: StrPath | Iterable[StrPath], *, progress: Progress | None = None, workers: int | None = None
) -> RunSet:
    """Every run below `paths` (one path or several), in order of path; names are made unique by their folders.

    A path given by name that cannot be read raises `InputError`; below a folder or inside an archive, what looks like a
    run and cannot be read is listed in `RunSet.unread` with the reason, and the others are read. `progress(done, total,
    path)` is called before each run. `workers` is the number of threads that read (default 1: the parsers of
    small logs hold Python's lock, and threads gain only where the disk or the network is what one waits for).

    >>> load_all([])
    <RunSet: 0 runs>
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more, or None")
    groups, named, unread = found_below(paths)
    found = [one for group in groups for one in group]
    outcomes = _read_each(found, progress, workers or 1)
    runs: list[tuple[Path, Run]] = []
    for group in groups:
        read: list[tuple[Path, Run]] = []
        for where, _ in group:
            outcome = next(outcomes)
            if isinstance(outcome, Run):
                read.append((where, outcome))
            elif str(where) in named:
                raise outcome
            else:
                unread.append((str(where), str(outcome).removeprefix(f"{where}: ")))
        runs += merged(read)
    return RunSet(tuple(_unique_names([run for _, run in runs])), (*unread, *plugins().broken))


def _read_each(found: list[Found], progress: Progress | None, workers: int) -> Iterator[Run | InputError]:
    if workers == 1:
        for done, (where, format) in enumerate(found):
            if progress is not None:
                progress(done, len(found), str(where))
            yield _outcome(where, format)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(partial(_outcome, *one)) for one in found]
        for done, (one, (where, _)) in enumerate(zip(waiting, found, strict=True)):
            if progress is not None:
                progress(done, len(found), str(where))
            yield one.result()


def _outcome(where: Path, format: Format) -> Run | InputError:
    try:
        return read_run(where, format)
    except InputError as error:
        return error


def read_run(where: Path, format: Format) -> Run:
    """The run at a place that `find_runs` found; damage of its packing is among its rejects."""
    try:
        run = format.read(where)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from error
    return _with_rejects(run, damage_of(where))


def _with_rejects(run: Run, damage: list[tuple[str, str]]) -> Run:
    if not damage:
        return run
    rows = [(file, None, None, reason, "") for file, reason in damage]
    return replace(run, rejects=pl.concat([run.rejects, pl.DataFrame(rows, schema=REJECTS, orient="row")]))


def found_below(paths: StrPath | Iterable[StrPath]) -> tuple[list[list[Found]], set[str], Unread]:
    """Logs below the paths, each once, as `find_groups` puts them together and in order of path; which paths were
    given by name; what could not be looked into."""
    seen: set[str] = set()
    named: set[str] = set()
    unread: Unread = []
    groups: list[list[Found]] = []
    for path in single(paths):
        root = existing(path)
        found = find_groups(root, unread)
        if not found:
            raise InputError(nothing_at(root, unread))
        named.add(str(root))
        for group in sorted(found, key=lambda group: group[0][0]):
            new = [one for one in group if log_key(*one) not in seen]
            seen |= {log_key(*one) for one in new}
            groups += [new] if new else []
    return groups, named, unread


def log_key(where: Path, format: Format) -> str:
    """What tells a log from every other, whatever way led to it."""
    return f"{where.resolve()}#{format.name}#{format.run or ''}"


def single(paths: StrPath | Iterable[StrPath]) -> Iterable[StrPath]:
    """One path or several, as several."""
    one = isinstance(paths, str | os.PathLike) or hasattr(paths, "open")
    return cast(Iterable[StrPath], [paths] if one else paths)


def existing(path: StrPath) -> Path:
    """The place of a path given by name; `InputError` where nothing stands there."""
    where = place(path)
    try:
        there = where.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from error
    if not there:
        raise InputError(f"{path}: no such file or folder")
    return where


def _short(path: Path, root: Path) -> str:
    return str(path).removeprefix(str(root)).lstrip("/\\") or path.name


def nothing_at(path: Path, unread: Unread) -> str:
    """The sentence for a path given by name at which no run was found."""
    if unread:
        listed = "; ".join(f"{where}: {reason}" for where, reason in unread[:3])
        return f"{path}: no run can be read here, {len(unread)} could not be looked into ({listed})"
    known = "; ".join(f"{f.name}: {f.what}" for f in formats())
    if path.is_file() and path.stat().st_size == 0:
        return f"{path}: the file is empty"
    what = "no run below this folder" if path.is_dir() else "not a format that is known"
    return f"{path}: {what} (known are {known})"


def _unique_names(runs: list[Run]) -> Iterator[Run]:
    """Runs whose names are shared get their folder in front, then a number."""
    for run, name in zip(runs, unique_names([(run.name, run.path) for run in runs]), strict=True):
        yield run if name == run.name else run.renamed(name)


def unique_names(runs: list[tuple[str, str]]) -> Iterator[str]:
    """A name for each (name, path): shared names get their folder in front, then a number.

    >>> list(unique_names([("log", "a/log.csv"), ("log", "b/log.csv"), ("c", "c.csv")]))
    ['a/log', 'b/log', 'c']
    """
    counts = Counter(name for name, _ in runs)
    taken: Counter[str] = Counter()
    for name, path in runs:
        unique = name if counts[name] == 1 else f"{Path(path).parent.name or Path(path).resolve().parent.name}/{name}"
        taken[unique] += 1
        yield unique if taken[unique] == 1 else f"{unique}#{taken[unique]}"
