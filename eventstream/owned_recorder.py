"""The recorder behind a framework's logger: given by the user, or opened here when the first record comes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any

from eventstream.abandoned import close_of, close_when_gone, keep
from eventstream.errors import InputError
from eventstream.recorder import Recorder
from eventstream.starting import error_text, run_folder

__all__ = ["OwnedRecorder"]


class OwnedRecorder:
    """Opens a run when it is needed, ends it, and closes it with the process should nobody else do so.

    A recorder that was given stays its owner's: it is neither ended nor closed here. Where an earlier logger of this
    process has the folder open, it gives way: a notebook runs its cell again. A copy, pickled to another process or in
    this one, opens a recorder of its own, unless that of which it is a copy still records; then it records nothing and
    says so once, as copies of a `Recorder` do. `unfinished` says what became of a run that nobody ended.
    """

    def __init__(self, recorder_or_path: object, *, plan: Mapping[str, Any] | None, unfinished: str) -> None:
        if not isinstance(recorder_or_path, (Recorder, str, os.PathLike)):
            kind = type(recorder_or_path).__name__
            raise InputError(f"recorder_or_path must be a Recorder or the folder of the run, got {kind}")
        given = recorder_or_path if isinstance(recorder_or_path, Recorder) else None
        self.owned, self.ended = given is None, False
        self.path = run_folder(recorder_or_path) if given is None else given.path
        self._recorder: Recorder | None = given
        self._stopped: Recorder | None = None
        self._plan, self._unfinished = plan, unfinished

    def open(self, rank: int | None = None) -> Recorder:
        """The recorder, opened for `rank` (the environment's `RANK` unless given) where none was."""
        if self._recorder is None:
            self._recorder = self._opened(rank)
        return self._recorder

    def _opened(self, rank: int | None) -> Recorder:
        self._make_room(rank)
        try:
            recorder = Recorder(self.path, plan=self._plan, rank=rank)
        except InputError:
            if self._stopped is None:
                raise
            return self._stopped
        self._stopped, self.ended = None, False
        close_when_gone(self, recorder, "interrupted", self._unfinished)
        _OWNERS.add(self)
        return recorder

    def _make_room(self, rank: int | None) -> None:
        """Close what earlier loggers of this process have open on the folder; copies leave those that still record."""
        for other in list(_OWNERS):
            recorder = other.opened
            mine = recorder is not None and recorder.path == self.path and rank in (None, recorder.rank)
            if mine and (other.ended or self._stopped is None):
                close_of(other)

    @property
    def opened(self) -> Recorder | None:
        """The recorder where it is open in this process."""
        return None if self._recorder is None or self._recorder.closed else self._recorder

    def end(self, status: str = "finished", error: BaseException | None = None, *, stay: bool = False) -> None:
        """Write what waits, record how the run ended, and close it.

        With `stay` an own recorder stays open after a good end, for evaluations may follow: a further attempt would
        stand for a restart.
        """
        recorder = self.opened
        if recorder is None:
            return
        if not self.owned:
            recorder.flush()
        elif stay and status == "finished":
            recorder.flush()
            if not self.ended:
                recorder.event("end", {"status": status})
            self.ended = True
            close_when_gone(self, recorder, status)
        else:
            self._close(recorder, status, error)

    def begin_anew(self) -> bool:
        """Let the next record open another attempt, where the one before has ended; says whether it had."""
        recorder = self.opened
        if not (self.owned and self.ended and recorder is not None):
            return False
        self._close(recorder, "finished", None)
        return True

    def _close(self, recorder: Recorder, status: str, error: BaseException | None) -> None:
        keep(self)
        recorder.close(status, None if error is None else error_text(error))
        self._recorder, self.ended = None, False

    def __getstate__(self) -> dict[str, Any]:
        changed = {"_recorder": None, "_stopped": self._recorder or self._stopped} if self.owned else {}
        return {**self.__dict__, **changed}


_OWNERS: weakref.WeakSet[OwnedRecorder] = weakref.WeakSet()
