"""Work on one tensor after another with all cores: opened ahead as memory allows, handed back in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Job", "batches", "in_order", "most_held"]

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


def batches(
    items: Iterable[Owner], size: Callable[[Owner], int], *, alone: Callable[[Owner], bool], most: int
) -> Iterator[tuple[Owner, ...]]:
    """Items that go `alone` as they come, the others together up to a size, also with such ones between them.

    >>> list(batches([1, 9, 2, 3], lambda n: n, alone=lambda n: n > 5, most=4))
    [(9,), (1, 2), (3,)]
    """
    batch: list[Owner] = []
    held = 0
    for item in items:
        if alone(item):
            yield (item,)
            continue
        if batch and held + size(item) > most:
            yield tuple(batch)
            batch, held = [], 0
        batch.append(item)
        held += size(item)
    if batch:
        yield tuple(batch)


def in_order(jobs: Iterable[Job[Owner, Found]], most_bytes: int) -> Iterator[tuple[Owner, list[Found]]]:
    """The results of each job, in the jobs' order. Jobs are opened in this thread; calls run in it and in others.

    A job is opened when what is open with it stays below `most_bytes` or nothing else is open. An exception of `open`
    or of a call comes out here. Calls of jobs of a few kilobytes are made at once, in this thread.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(cores, _MOST_THREADS)
    with _Shared[Found](threads - 1) as shared:
        waiting: deque[tuple[Job[Owner, Found], list[Callable[[], Found]]]] = deque()
        held = 0
        for job in jobs:
            while waiting and (held + job.nbytes > most_bytes or len(waiting) >= 4 * threads):
                done, results = waiting.popleft()
                yield done.owner, [result() for result in results]
                held -= done.nbytes
            calls = job.open()
            if job.nbytes >= _HANDED_OVER:
                waiting.append((job, [shared.later(call) for call in calls]))
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


class _Shared(Generic[Found]):
    """Calls that this thread and others make: whoever waits for a result makes others meanwhile.

    A pool that has a thread for each core beside a waiting one loses a tenth: the latter has work of its own between
    the calls, and takes a core from the others for it.
    """

    def __init__(self, others: int) -> None:
        self._others = others
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def __enter__(self) -> _Shared[Found]:
        return self

    def __exit__(self, *_: object) -> None:
        while self._next() is not None:  # after an exception some are left
            pass
        for _thread in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def later(self, call: Callable[[], Found]) -> Callable[[], Found]:
        """Have a call made; what is given back waits for its result. No thread is started before there is a call."""
        while len(self._threads) < self._others:
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        future: Future[Found] = Future()
        self._calls.put(partial(_make, call, future))
        return partial(self._result, future)

    def _result(self, future: Future[Found]) -> Found:
        while not future.done() and (other := self._next()) is not None:
            other()
        return future.result()

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._calls.get_nowait()
        except Empty:
            return None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _make(call: Callable[[], Found], future: Future[Found]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):  # an interrupt
            raise
