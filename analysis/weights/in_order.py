"""Work on one tensor after another with all cores: opened ahead as memory allows, handed back in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

__all__ = ["Job", "in_order", "most_held"]

Owner = TypeVar("Owner")
Found = TypeVar("Found")

#: Bytes that may be open at once although no single tensor is that large: enough to keep all cores at work.
_AHEAD = 64 << 20
#: More threads than this only wait for the memory.
_MOST_THREADS = 8
#: Bytes of a job below which its calls take less time than handing them to another thread.
_HANDED_OVER = 128 << 10


@dataclass(frozen=True, slots=True)
class Job(Generic[Owner, Found]):
    """A tensor, a pair or a batch: `open` gives the calls that may run side by side; `nbytes` are then held."""

    owner: Owner
    nbytes: int
    open: Callable[[], Sequence[Callable[[], Found]]]


def most_held(sizes: Iterable[int]) -> int:
    """Bytes that may be held at once: the largest job's, and room for several small ones or for the next one."""
    largest = max(sizes, default=0)
    return max(_AHEAD, largest + min(largest, _AHEAD))


def in_order(jobs: Iterable[Job[Owner, Found]], most_bytes: int) -> Iterator[tuple[Owner, list[Found]]]:
    """The results of each job, in the jobs' order. Jobs are opened in this thread, their calls run in others.

    A job is opened when what is open with it stays below `most_bytes` or nothing else is open. An exception of `open`
    or of a call comes out here. Calls of jobs of a few kilobytes are made at once, in this thread.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(threads, _MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:  # it starts no thread before the first call is handed over
        waiting: deque[tuple[Job[Owner, Found], list[Callable[[], Found]]]] = deque()
        held = 0
        for job in jobs:
            while waiting and (held + job.nbytes > most_bytes or len(waiting) >= 4 * threads):
                done, results = waiting.popleft()
                yield done.owner, [result() for result in results]
                held -= done.nbytes
            calls = job.open()
            if job.nbytes >= _HANDED_OVER:
                waiting.append((job, [pool.submit(call).result for call in calls]))
            elif waiting:
                waiting.append((job, [partial(_same, call()) for call in calls]))
            else:
                yield job.owner, [call() for call in calls]
                continue
            held += job.nbytes
        while waiting:
            done, results = waiting.popleft()
            yield done.owner, [result() for result in results]


def _same(found: Found) -> Found:
    return found
