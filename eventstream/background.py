"""Sealing while the training runs: in a process of its own, which shares neither interpreter nor memory with it."""

from __future__ import annotations

import importlib.util
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from eventstream.records import SegmentName

__all__ = ["Sealer", "leftovers"]

#: Segments that may wait by name; of the others, on a disk that is slower than the training, only the last is known.
MOST_WAITING = 64
#: A full segment takes seconds; what takes this long hangs, on a network file system most likely.
PATIENCE_S = 600.0


def leftovers(folder: Path, rank: int, attempt: int) -> list[Path]:
    """Unsealed segments of earlier attempts of `rank`, in the order in which they were written."""
    names = (SegmentName.parse(entry.name) for entry in os.scandir(folder) if entry.name.endswith(".jsonl"))
    mine = (name for name in names if name is not None and name.rank == rank and name.attempt < attempt)
    return [folder / name.jsonl for name in sorted(mine)]


class Sealer:
    """Seals full segments one after the other in the background, and the last one when the run ends.

    A thread starts with the first segment and waits for a Python process of low priority that does the work: parsing in
    a thread would hold the interpreter, and each record of the training would wait for it. Without pyarrow nothing is
    done and the lines stay, which every reader takes too. Failures go to `trouble(kind, message)`.
    """

    def __init__(self, *, wanted: bool, trouble: Callable[[str, str], None]) -> None:
        self._wanted = wanted and importlib.util.find_spec("pyarrow") is not None
        self._trouble = trouble
        self._queue: queue.SimpleQueue[tuple[str, list[Path]] | None] = queue.SimpleQueue()
        self._passed_over: Path | None = None
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()

    def add(self, segment: Path) -> None:
        """Seal a segment that its writer has left."""
        if self._queue.qsize() < MOST_WAITING:
            self._start("full", [segment])
        else:
            self._passed_over = segment

    def add_leftovers(self, segments: list[Path]) -> None:
        """Seal what dead attempts left; segments of living ones are not touched."""
        if segments:
            self._start("leftover", segments)

    def _start(self, mode: str, segments: list[Path]) -> None:
        if not self._wanted or os.getpid() != self._owner:
            return
        self._queue.put((mode, segments))
        if self._thread is None:
            # A daemon: a training that never closes its recorder still ends.
            self._thread = threading.Thread(target=self._work, name="aftertrain-seal", daemon=True)
            self._thread.start()

    def finish(self, last: Path) -> None:
        """Wait for what is under way, then seal the last segment here: the training is over and may wait."""
        if not self._wanted or os.getpid() != self._owner:
            return
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        from eventstream.seal import seal

        try:
            seal(last)
        except OSError as error:
            self._failed([last], error.strerror or str(error))

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._seal(*job)
            if self._queue.empty():
                self._make_up()
        self._make_up()

    def _make_up(self) -> None:
        """Seal what had to be passed over, which the folder knows."""
        while (last := self._passed_over) is not None:
            self._passed_over = None
            try:
                unsealed = _unsealed_until(last)
            except OSError as error:
                self._failed([last], error.strerror or str(error))
                return
            for segment in unsealed:
                self._seal("full", [segment])

    def _seal(self, mode: str, segments: list[Path]) -> None:
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell, names of our own files
                [sys.executable, "-P", "-m", "eventstream.seal", mode, *map(str, segments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                timeout=PATIENCE_S,
                check=False,
                start_new_session=True,  # Ctrl-C is for the training; a sealing begun is soon done
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._failed(segments, f"{type(error).__name__}: {error}")
        else:
            if done.returncode:
                last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
                self._failed(segments, last[0] if last else f"status {done.returncode}")

    def _failed(self, segments: list[Path], reason: str) -> None:
        names = ", ".join(path.name for path in segments)
        self._trouble("seal", f"{names} could not be sealed ({reason}); the lines stay and are read as they are")


def _unsealed_until(last: Path) -> list[Path]:
    """Segments of the rank and attempt of `last` that are not sealed, up to this one, in the order of writing."""
    newest = SegmentName.parse(last.name)
    assert newest is not None
    names = (SegmentName.parse(entry.name) for entry in os.scandir(last.parent) if entry.name.endswith(".jsonl"))
    mine = (
        name for name in names if name is not None and SegmentName(newest.rank, newest.attempt, 0) <= name <= newest
    )
    return [last.parent / name.jsonl for name in sorted(mine)]


def _environment() -> dict[str, str]:
    """This process's environment with the folder of the package first on the path, wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # RANK and its like stay: they mean nothing to the sealing.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
