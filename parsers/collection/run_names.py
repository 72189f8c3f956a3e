"""Names that tell the runs of a set apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from parsers.run import Run

__all__ = ["unique_names", "uniquely_named"]


def uniquely_named(runs: Sequence[Run]) -> Iterator[Run]:
    """The runs, those renamed that share a name, as `unique_names` says."""
    for run, name in zip(runs, unique_names([(run.name, run.path) for run in runs]), strict=True):
        yield run if name == run.name else run.renamed(name)


def unique_names(runs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A name for each (name, path): shared names get their folder in front, then the file's stem, then a number.

    >>> list(unique_names([("log", "a/log.csv"), ("log", "b/log.csv"), ("c", "c.csv")]))
    ['a/log', 'b/log', 'c']
    >>> list(unique_names([("exp", "exp/train.log"), ("exp", "exp/output.log"), ("exp", "exp/output.log")]))
    ['exp/train', 'exp/output', 'exp/output#2']
    """
    shared = Counter(name for name, _ in runs)
    named = [(name if shared[name] == 1 else f"{_folder(path)}/{name}", path) for name, path in runs]
    stems: defaultdict[str, set[str]] = defaultdict(set)
    for name, path in named:
        stems[name].add(Path(path).stem)
    taken: Counter[str] = Counter()
    for name, path in named:
        unique = name if len(stems[name]) == 1 else f"{_folder(path)}/{Path(path).stem}"
        taken[unique] += 1
        yield unique if taken[unique] == 1 else f"{unique}#{taken[unique]}"


def _folder(path: str) -> str:
    return Path(path).parent.name or Path(path).resolve().parent.name
