"""`load` one run, `load_all` runs of a tree: any path in, `Run` or `RunSet` out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from eventstream.errors import InputError
from parsers.registry import FORMATS, Format, detect
from parsers.run import Run, RunSet

__all__ = ["find_runs", "load", "load_all"]

StrPath = str | os.PathLike[str]
#: Folders that never hold runs, skipped on the way down.
_SKIPPED = {".git", "__pycache__", "node_modules", ".venv", "site-packages"}


def load(path: StrPath) -> Run:
    """The one run at `path`, whatever wrote it.

    `path` is a log file, a run folder, or a folder that holds exactly one run. Damage inside the file becomes rows of
    `run.rejects`. Raises `InputError` when there is nothing there, nothing that is a run, or more than one.

    >>> load("no/such/run")
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: no/such/run: no such file or folder
    """
    root = _existing(path)
    found = list(find_runs(root))
    if not found:
        raise InputError(_nothing_at(root))
    if len(found) > 1:
        names = ", ".join(str(p.relative_to(root)) for p, _ in found[:5])
        raise InputError(f"{root}: {len(found)} runs here ({names}, ...); name one of them, or use load_all")
    place, format = found[0]
    return format.read(place)


def load_all(paths: StrPath | Iterable[StrPath], *, progress: Callable[[int, int, str], None] | None = None) -> RunSet:
    """Every run below `paths` (one path or several), in order of path; names are made unique by their folders.

    A path given by name that cannot be read raises `InputError`; below a folder, what looks like a run and cannot be
    read is listed in `RunSet.unread` with the reason, and the others are read. `progress(done, total, path)` is called
    before each run.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    places: dict[Path, Format] = {}
    for path in given:
        root = _existing(path)
        found = dict(find_runs(root))
        if not found:
            raise InputError(_nothing_at(root))
        places.update(found)
    runs: list[Run] = []
    unread: list[tuple[str, str]] = []
    for done, (place, format) in enumerate(places.items()):
        if progress is not None:
            progress(done, len(places), str(place))
        try:
            runs.append(format.read(place))
        except InputError as error:
            if any(place == Path(p) for p in given):
                raise
            unread.append((str(place), str(error)))
    return RunSet(tuple(_unique_names(runs)), tuple(unread))


def find_runs(root: Path) -> Iterator[tuple[Path, Format]]:
    """Path and format of each run at or below `root`, sorted by path; a run folder is not searched further."""
    if root.is_file():
        format = detect(root)
        if format is not None:
            yield root, format
        return
    format = detect(root)
    if format is not None:
        yield root, format
        return
    for entry in sorted(root.iterdir()):
        if entry.is_symlink() and (entry.is_dir() or entry.resolve().is_relative_to(root.resolve())):
            continue  # a link may lead back up, or to a file of this folder: it is found where it stands
        if entry.is_dir():
            if entry.name not in _SKIPPED:
                yield from find_runs(entry)
        elif entry.is_file() and _looks_like_log(entry):
            format = detect(entry)
            if format is not None and not format.is_part(entry):
                yield entry, format


def _looks_like_log(path: Path) -> bool:
    return any(path.match(pattern) for format in FORMATS if not format.folder for pattern in format.patterns)


def _existing(path: StrPath) -> Path:
    place = Path(path)
    if not place.exists():
        raise InputError(f"{path}: no such file or folder")
    return place


def _nothing_at(path: Path) -> str:
    known = "; ".join(f"{f.name}: {f.what}" for f in FORMATS)
    if path.is_file() and path.stat().st_size == 0:
        return f"{path}: the file is empty"
    what = "no run below this folder" if path.is_dir() else "not a format that is known"
    return f"{path}: {what} (known are {known})"


def _unique_names(runs: list[Run]) -> Iterator[Run]:
    """Runs whose names are shared get their folder in front, then a number."""
    counts = Counter(run.name for run in runs)
    taken: Counter[str] = Counter()
    for run in runs:
        name = run.name if counts[run.name] == 1 else f"{Path(run.path).resolve().parent.name}/{run.name}"
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}#{taken[name]}"
        yield run if name == run.name else run.renamed(name)
