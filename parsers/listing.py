"""What runs stand below some paths, a row each, without keeping the runs: read once, then known by their content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from parsers.collection.gathering import found_below
from parsers.collection.progress import Progress, shown
from parsers.collection.remembered import remembered
from parsers.collection.run_names import unique_names
from parsers.collection.workers import check_workers
from parsers.options import Dialects, options
from parsers.places.place import StrPath
from parsers.plugins import plugins
from parsers.run import ROWS

__all__ = ["Listing", "list_runs"]


@dataclass(frozen=True)
class Listing:
    """`frame`, one row a run as `RunSet.frame` has it, and `unread`: path and reason of what could not be read.

    >>> Listing(pl.DataFrame(schema=ROWS)).frame.height
    0
    """

    frame: pl.DataFrame
    unread: tuple[tuple[str, str], ...] = ()


def list_runs(
    paths: StrPath | Iterable[StrPath],
    *,
    progress: Progress | bool | None = None,
    workers: int | None = None,
    cache: Path | str | bool = True,
    dialects: Dialects | None = None,
) -> Listing:
    """A row for every run below `paths`, in order of path, as `load_all(paths).frame` has it, but from the cache.

    Only the rows are kept, and the runs not even in memory. The parameters are those of `parsers.loading.load_all`,
    which says too when a change is seen, and raises the same `InputError`.

    >>> list_runs([], cache=False).frame.height
    0
    """
    check_workers(workers)
    how = options(dialects)
    gathered = found_below(paths, how, remembered(cache, how))
    with shown(progress, "reading") as told:
        rows = [dict(row) for came in gathered.come(told, workers, rows=True) for row in came.rows]
    for row, name in zip(rows, list(unique_names([(row["run"], row["path"]) for row in rows])), strict=True):
        row["run"] = name
    return Listing(pl.DataFrame(rows, schema=ROWS), (*gathered.unread, *plugins().broken))
