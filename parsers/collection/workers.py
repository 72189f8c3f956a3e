"""Groups of logs read by this process or by several: the same outcomes, in the same order."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from eventstream.errors import InputError
from parsers.collection.reading import Came, Outcome, join, read_each, read_group
from parsers.collection.run_bytes import from_bytes, to_bytes
from parsers.places.archives import Packed
from parsers.places.place import is_local
from parsers.plugins import plugins
from parsers.registry import Format
from parsers.run import Run, RunSet
from parsers.tree import MOST, Found

__all__ = ["MANY", "came_of", "check_workers", "workers_for"]

#: From so many logs other processes pay. Each begins with loading what reads and sends back what it read: on two cores
#: they are ahead from some thousand small logs on, of 2 milliseconds each. A few large logs are no reason: the readers
#: of tables use all cores anyhow, and sending a million numbers back takes longer than reading them from JSON lines.
MANY = 1500
#: Groups that a process is given at a time.
AT_A_TIME = 8

#: Logs that travel to another process, each as whether it is packed, its path, its format.
_Sent = list[tuple[bool, str, Format]]
#: What is wanted of them: runs of a group in bytes, those of each log by itself, or only the rows of a listing.
_Wanted = Literal["group", "each", "rows"]
#: Called before each log is read with its path, or before each group with that of its first.
Before = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class _Reply:
    """What another process found: bytes or rows, errors by the place of their log, formats that failed.

    Neither bytes nor rows: what is to be read is better read where it is wanted.
    """

    data: bytes | None
    rows: list[dict[str, Any]] | None
    errors: dict[int, InputError]
    broken: list[tuple[str, str]]


def check_workers(workers: int | None) -> None:
    """Raise ValueError where that is no number of processes."""
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers is {workers!r}; it must be 1 or more, or None")


def workers_for(groups: Sequence[Sequence[Found]], workers: int | None) -> int:
    """How many processes read: as asked, else as `joblib.parallel_config` says, else by what there is to read.

    >>> workers_for([], None)
    1
    """
    if workers is not None:
        return workers
    if "joblib" in sys.modules:  # only who imported it can have configured it
        import joblib

        backend, jobs = joblib.parallel.get_active_backend()
        if jobs is not None or type(backend) is not joblib.parallel.BACKENDS[joblib.parallel.DEFAULT_BACKEND]:
            return int(joblib.effective_n_jobs(-1 if jobs is None else jobs))
    if (os.cpu_count() or 1) == 1 or sum(_travels(where) for group in groups for where, _ in group) < MANY:
        return 1
    import joblib

    return int(joblib.cpu_count())


def came_of(groups: Sequence[Sequence[Found]], before: Before, workers: int, *, rows: bool = False) -> Iterator[Came]:
    """What comes of each group, read by so many processes; 1 is this one. `rows` asks for those instead of the runs.

    Logs inside archives and behind URLs, whose places cannot travel, and runs that stay on disk are read here.
    """
    if workers == 1:
        for group in groups:
            yield _here(group, before, rows)
        return
    parts = [_parts(group) for group in groups]
    jobs = [(sent, _wanted(group, rows)) for group in parts for part in group if (sent := _sent(part)) is not None]
    replies = _replies(jobs, workers)
    for group, pieces in zip(groups, parts, strict=True):
        before(group[0][0])
        if len(pieces) == 1:
            yield _whole(group, replies, rows)
        else:
            outcome = join(group, [one for part in pieces for one in _each(part, replies)])
            yield Came(outcome, rows=_rows(outcome) if rows else [])


def _here(group: Sequence[Found], before: Before | None, rows: bool) -> Came:
    outcome = read_group(group, before)
    return Came(Outcome([], outcome.errors), rows=_rows(outcome)) if rows else Came(outcome)


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    return RunSet(tuple(outcome.runs)).frame.to_dicts()


def _parts(group: Sequence[Found]) -> list[Sequence[Found]]:
    """A group as it is; in pieces where it holds many logs, so that no process has all of them."""
    if len(group) <= MOST:
        return [group]
    return [group[start : start + AT_A_TIME] for start in range(0, len(group), AT_A_TIME)]


def _wanted(parts: Sequence[Sequence[Found]], rows: bool) -> _Wanted:
    if len(parts) > 1:
        return "each"
    return "rows" if rows else "group"


def _whole(group: Sequence[Found], replies: Iterator[_Reply], rows: bool) -> Came:
    reply = next(replies) if _sent(group) is not None else None
    if reply is None or (reply.data is None and reply.rows is None):
        return _here(group, None, rows)
    runs = from_bytes(reply.data)[0] if reply.data is not None else []
    errors = [(str(group[at][0]), error) for at, error in reply.errors.items()]
    return Came(Outcome(runs, errors), reply.data, reply.rows or [])


def _each(part: Sequence[Found], replies: Iterator[_Reply]) -> list[Run | InputError]:
    reply = next(replies) if _sent(part) is not None else None
    if reply is None or reply.data is None:
        return read_each(part)
    runs = iter(from_bytes(reply.data)[0])
    return [reply.errors[at] if at in reply.errors else next(runs) for at in range(len(part))]


def _sent(part: Sequence[Found]) -> _Sent | None:
    if not all(_travels(where) for where, _ in part):
        return None
    return [(not is_local(where), str(where), format) for where, format in part]


def _travels(where: object) -> bool:
    """Whether a place is told by its path alone: a file or folder of this machine, packed or not."""
    return is_local(where) or isinstance(where, Packed)


def _replies(jobs: list[tuple[_Sent, _Wanted]], workers: int) -> Iterator[_Reply]:
    """The reply to each job, in order; no process goes on when the caller stops."""
    if not jobs:
        return
    import joblib

    backend = joblib.parallel.get_active_backend()[0]
    if isinstance(backend, joblib.parallel.MultiprocessingBackend):
        backend = joblib.parallel.LokyBackend()  # a fork has no threads of Polars, and waits for them forever
    kept = "generator" if getattr(backend, "supports_return_generator", False) else "list"
    made = joblib.Parallel(n_jobs=workers, backend=backend, return_as=kept, batch_size=AT_A_TIME)
    for reply in made(joblib.delayed(_work)(*job) for job in jobs):
        plugins().broken.extend(told for told in reply.broken if told not in plugins().broken)
        yield reply


def _work(job: _Sent, wanted: _Wanted) -> _Reply:
    """What another process does."""
    part = [(cast(Path, Packed(Path(path))) if packed else Path(path), format) for packed, path, format in job]
    before = len(plugins().broken)
    outcomes = read_each(part)
    errors = {at: one for at, one in enumerate(outcomes) if isinstance(one, InputError)}
    if not all(map(_portable, errors.values())):
        return _Reply(None, None, {}, plugins().broken[before:])
    each = Outcome([one for one in outcomes if isinstance(one, Run)])
    outcome = each if wanted == "each" else join(part, outcomes)
    rows = _rows(outcome) if wanted == "rows" else None
    data = to_bytes(outcome.runs, outcome.told()) if rows is None else None
    return _Reply(data, rows, errors, plugins().broken[before:])


def _portable(error: InputError) -> bool:
    """Whether the error arrives in another process as what it is; one that cannot be made again there does not."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - what this very line wrote
    except (TypeError, AttributeError, ValueError, pickle.PickleError):
        return False
