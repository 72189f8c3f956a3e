"""Which processes of a job left a log, and which stopped before the others."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["Absence", "Process", "Stop", "absence_of", "processes_of", "stops_of", "world_size"]

_WORLD = re.compile(r"(?:.*[./_])?(?:world_size|num_processes)", re.IGNORECASE)
_DEEPEST = 3
#: Records that a process may be behind when a job is killed: writers hold some back.
_HELD_BACK = 3
#: Usual intervals within which the last record of a process is as late as that of the others.
_AS_LATE = 2.0


@dataclass(frozen=True, slots=True)
class Process:
    """One rank: its last attempt, first and last step, usual steps between records, last time, and how it ended.

    Steps, time and `every` are None where the log has none; `records` counts those of its longest series.
    """

    rank: int
    attempt: int
    first_step: int | None
    last_step: int | None
    every: float | None
    ended: dt.datetime | None
    started: dt.datetime | None
    records: int
    error: str


@dataclass(frozen=True, slots=True)
class Absence:
    """Ranks without a log out of `world`; `known` says where the size is from, empty where only a hole tells it.

    `doubtful` where the ranks that are there could be the one process a node that writes, or the size another's.
    """

    missing: tuple[int, ...]
    world: int
    known: str
    doubtful: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """A process that stopped early: steps and `records` behind the last of the others, seconds by the clock.

    `absent_from` is the attempt in which it took no part; None where it stopped within its last.
    """

    process: Process
    others_last: int
    behind: int
    records: float
    seconds: float | None
    absent_from: int | None


def world_size(run: Run) -> tuple[int, str] | None:
    """How many processes the job had, by its settings (`world_size`, `num_processes`), and the name of the setting."""
    for key, value in _settings(run.config, "", 0):
        if _WORLD.fullmatch(key) and 1 <= value < 10_000_000 and value == int(value):
            return int(value), key
    return None


def _settings(settings: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, float]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _settings(value, f"{before}{key}.", depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{key}", float(value)


def absence_of(ranks: Sequence[int], world: tuple[int, str] | None) -> Absence | None:
    """The ranks without a log among several with one, or None.

    `ranks` are those with a log. A size that the settings tell counts; without it only holes in the numbering do. Ranks
    at equal distances from 0 on (0, 8, 16) are one process a node and whole; of 0 and 2 alone nobody can say. One rank
    alone says nothing: most trainers log on one only.

    >>> absence_of([0, 1, 3], None).missing, absence_of([0, 1, 2], (4, "world_size")).missing
    ((2,), (3,))
    >>> absence_of([0, 8, 16], (24, "world_size")) is None, absence_of([0], (8, "world_size")) is None
    (True, True)
    """
    there = sorted(set(ranks))
    if len(there) < 2 or there[0] < 0:
        return None
    begin = 1 if world is not None and there[0] == 1 and there[-1] == world[0] else 0  # some count from 1
    told = world is not None and there[-1] < world[0] + begin
    end = begin + world[0] if world is not None and told else there[-1] + 1
    apart = _distance(there) if there[0] == begin else 1
    nodes = apart > 1 and (len(there) > 2 or (told and end - begin == 2 * apart))
    missing = sorted(set(range(begin, end, apart if nodes else 1)) - set(there))
    if not missing:
        return None
    processes = told and world is not None and world[1].endswith("num_processes")  # of a tokenizer, of environments?
    doubtful = processes or (apart > 1 and not nodes) or (there[0] == 1 and not told and missing == [0])
    return Absence(tuple(missing), end - begin, world[1] if world is not None and told else "", doubtful)


def _distance(ranks: Sequence[int]) -> int:
    """The distance between neighbouring ranks where it is always the same; else 1."""
    gaps = {after - before for before, after in itertools.pairwise(ranks)}
    return gaps.pop() if len(gaps) == 1 else 1


def processes_of(run: Run) -> list[Process]:
    """Every rank that left a number, in order; of a rank that began anew the last attempt counts."""
    table = _spans(run) if run.last_attempt == 0 else run.attempts.sort("rank", "attempt").unique("rank", keep="last")
    every = {row["rank"]: row for row in _rhythms(run)}
    errors = _errors(run)
    return [
        Process(
            rank=row["rank"],
            attempt=row["attempt"],
            first_step=row["first_step"],
            last_step=row["last_step"],
            every=every[row["rank"]]["every"],
            ended=row["ended"],
            started=row["started"],
            records=every[row["rank"]]["count"],
            error=errors.get(row["rank"], ""),
        )
        for row in table.sort("rank").iter_rows(named=True)
    ]


def _spans(run: Run) -> pl.DataFrame:
    """What `run.attempts` tells of a run that was never resumed, in a fifth of its time."""
    time = pl.col("time")
    times = run.lazy().group_by("rank").agg(started=time.min(), ended=time.max()).collect()
    steps = run.catalogue.group_by("rank").agg(pl.col("first_step").min(), pl.col("last_step").max())
    return steps.join(times, on="rank").with_columns(attempt=pl.lit(0, pl.Int32))


def _rhythms(run: Run) -> Iterator[dict[str, Any]]:
    """Of each rank the longest series, and the steps from one of its records to the next."""
    span = (pl.col("last_step") - pl.col("first_step")) / (pl.col("count") - 1)
    every = pl.when(pl.col("count") > 1).then(span).alias("every")
    longest = run.catalogue.sort("count", descending=True, maintain_order=True).unique("rank", keep="first")
    yield from longest.with_columns(every).iter_rows(named=True)


def _errors(run: Run) -> dict[int, str]:
    ends = run.events_of("end")
    found: dict[int, str] = {}
    for rank, payload in ends.select("rank", "payload").iter_rows():
        error = payload_object(payload).get("error")
        if error:
            found[rank] = str(error)[:200]
    return found


def stops_of(processes: Sequence[Process]) -> list[Stop]:
    """Processes whose log ends before that of the others, by more than three records; the earliest first.

    A process whose last record is as late by the clock as that of the others counts its steps more slowly, and did not
    stop. Without steps nothing is told.
    """
    steps = [p.last_step for p in processes if p.last_step is not None]
    if len(steps) < 2:
        return []
    attempt = max(p.attempt for p in processes)
    last = max((p.last_step for p in processes if p.last_step is not None and p.attempt == attempt), default=None)
    if last is None:
        return []
    every = min((p.every for p in processes if p.every), default=None)
    ended = max((p.ended for p in processes if p.ended is not None), default=None)
    found = [_stop(p, attempt, last, every, ended) for p in processes if p.last_step is not None]
    return sorted((stop for stop in found if stop is not None), key=lambda stop: -stop.behind)


def _stop(process: Process, attempt: int, last: int, every: float | None, ended: dt.datetime | None) -> Stop | None:
    assert process.last_step is not None
    behind = last - process.last_step
    rhythm = process.every or every or 1.0
    seconds = (ended - process.ended).total_seconds() if ended is not None and process.ended is not None else None
    absent = attempt if process.attempt < attempt else None
    if absent is None and (behind <= _HELD_BACK * rhythm or _as_late(process, seconds)):
        return None
    return Stop(process, last, behind, behind / rhythm, seconds, absent)


def _as_late(process: Process, seconds: float | None) -> bool:
    if seconds is None or process.started is None or process.ended is None or process.records < 2:
        return False
    usual = (process.ended - process.started).total_seconds() / (process.records - 1)
    return usual > 0 and seconds <= _AS_LATE * usual
