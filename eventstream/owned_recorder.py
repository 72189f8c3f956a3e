"""The recorder behind a framework's logger: given by the user, or opened here when the first record comes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any

from eventstream.errors import InputError
from eventstream.recorder import Recorder
from eventstream.starting import error_text, run_folder

__all__ = ["OwnedRecorder"]


class OwnedRecorder:
    """Opens a run when it is needed, ends it, and closes it with the process should nobody else do so.

    A recorder that was given stays its owner's: it is neither ended nor closed here. A copy in another process, and a
    forked child, opens one of its own when something is to be recorded there. `unfinished` says what a run was that
    nobody ended.
    """

    def __init__(self, recorder_or_path: object, *, plan: Mapping[str, Any] | None, unfinished: str) -> None:
        if not isinstance(recorder_or_path, (Recorder, str, os.PathLike)):
            kind = type(recorder_or_path).__name__
            raise InputError(f"recorder_or_path must be a Recorder or the folder of the run, got {kind}")
        given = isinstance(recorder_or_path, Recorder)
        self.owned, self.ended = not given, False
        self.path = recorder_or_path.path if isinstance(recorder_or_path, Recorder) else run_folder(recorder_or_path)
        self._recorder = recorder_or_path if isinstance(recorder_or_path, Recorder) else None
        self._plan, self._unfinished = plan, unfinished
        self._guard: Any = None

    def open(self, rank: int | None = None) -> Recorder:
        """The recorder, opened for `rank` (the environment's `RANK` unless given) where none is open."""
        if self._recorder is None or (self.owned and self._recorder.closed):
            self._recorder, self.ended = Recorder(self.path, plan=self._plan, rank=rank), False
            self._close_at_exit("interrupted", self._unfinished)
        return self._recorder

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
            self._close_at_exit(status, None)
        else:
            self._detach()
            recorder.close(status, None if error is None else error_text(error))

    def begin_anew(self) -> None:
        """Let the next record open another attempt, where the one before has ended."""
        if self.owned and self.ended and self._recorder is not None:
            self._detach()
            self._recorder.close("finished")
            self._recorder = None

    def _close_at_exit(self, status: str, error: str | None) -> None:
        self._detach()
        assert self._recorder is not None
        self._guard = weakref.finalize(self, self._recorder.close, status, error)

    def _detach(self) -> None:
        if self._guard is not None:
            self._guard.detach()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guard": None, **({"_recorder": None} if self.owned else {})}
