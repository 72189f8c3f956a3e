"""Work that may come later than the call that asks for it: one thread, a short queue, all done at the end."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

__all__ = ["Chores"]

#: More than this is not put off: whoever asks is told, so that a slow disk piles up nothing.
MOST_WAITING = 16
#: Reading 2 GB takes seconds; what takes this long hangs, on a network file system most likely.
PATIENCE_S = 600.0


class Chores:
    """Calls jobs one after the other in a thread of low demands, for work that reads and writes files.

    Hashing and file access release the interpreter, so that the training goes on beside them. The thread starts with
    the first job and ends with the last: a training that never closes its recorder still ends. What a job raises goes
    to `failed(error)`.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock, self._closed = threading.Lock(), False
        self._owner = os.getpid()

    def add(self, job: Callable[[], None]) -> bool:
        """Have `job` done soon; False where too much waits already, after `close`, and in a forked child."""
        if os.getpid() != self._owner:
            return False
        with self._lock:
            if self._closed:
                return False
            try:
                self._waiting.put_nowait(job)
            except queue.Full:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="aftertrain-chores", daemon=True)
                self._thread.start()
        return True

    def close(self) -> bool:
        """Wait until all is done and take no more; False where that took longer than ten minutes."""
        if os.getpid() != self._owner:
            return True
        with self._lock:
            thread, self._closed = self._thread, True
        if thread is None:
            return True
        try:
            self._waiting.put(None, timeout=PATIENCE_S)
        except queue.Full:
            return False
        thread.join(PATIENCE_S)
        return not thread.is_alive()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001 - whatever fails here must not end the chores that follow
                self._failed(error)
