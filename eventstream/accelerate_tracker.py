"""What a tracker of Accelerate can record: configuration, numbers by step, how the training ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from eventstream.logged_values import Logged
from eventstream.owned_recorder import OwnedRecorder
from eventstream.recorder import Recorder
from eventstream.starting import end_status
from eventstream.training_arguments import without_secrets

__all__ = ["TrackerCore"]

_UNFINISHED = "the process ended before end_training was called"


class TrackerCore:
    """Records what Accelerate tells its trackers: `Accelerator(log_with=at.AccelerateTracker("runs/exp-1"))`.

    `recorder_or_path` is the run's folder, where the tracker opens a recorder in `init_trackers` and closes it in
    `end_training`, or a `Recorder`, which stays open. A training begun again in the same folder is the next attempt of
    the same run. `plan` goes into the manifest (`docs/event-stream.md`). Others may stand beside it: `log_with=[
    "tensorboard", at.AccelerateTracker(...)]`.

    Recorded: the configuration given to `init_trackers`, without secrets; the numbers of `accelerator.log(values,
    step)` by their names, where `step` and `epoch` among the values are the record's own and mappings inside are
    joined by `/`; texts as an event. `log_kwargs={"aftertrain": {"split": "eval"}}` gives a split to names that tell
    none. Without a step the record has none; pass it, so that the run can be judged.

    Accelerate logs on the main process alone. `accelerator.get_tracker("aftertrain", unwrap=True)` is the `Recorder`
    there, for `losses`, `checkpoint` and all else. To record each process make an `at.Recorder` in each instead, with
    the same folder; or set `main_process_only = False` and call `tracker.log` yourself.

    Raises InputError for a folder that cannot hold a run. In the training nothing is raised; see `Recorder`.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = tempfile.mkdtemp()
    >>> tracker = TrackerCore(folder)
    >>> tracker.main_process_only = False  # the class of Accelerate asks it whether this is the main process
    >>> tracker.store_init_configuration({"lr": 0.1})
    >>> tracker.log({"train_loss": 2.5, "epoch": 0}, step=1)
    >>> tracker.finish()
    >>> (Path(folder) / "manifest.json").exists()
    True
    """

    name = "aftertrain"
    requires_logging_directory = False
    #: Whether the other processes do nothing, as Accelerate's own trackers have it.
    main_process_only = True

    def __init__(
        self, recorder_or_path: Recorder | str | os.PathLike[str], *, plan: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self._run = OwnedRecorder(recorder_or_path, plan=plan, unfinished=_UNFINISHED)
        self._before: int | None = None

    def start(self) -> None:
        """Open the run; releases of Accelerate before 1.8 do not call this, and it opens with the first record."""
        if self._records():
            self._recorder()

    @property
    def tracker(self) -> Recorder | None:
        """The `Recorder`; None on processes that do not record."""
        return self._recorder() if self._records() else None

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Record the configuration of the run."""
        if self._records():
            self._recorder().config(without_secrets(dict(values)))

    def log(self, values: Mapping[str, Any], step: int | None = None, split: str = "", **kwargs: Any) -> None:
        """Record numbers at a step; `split` is that of the names that tell none."""
        if self._records():
            Logged.of(values, step).record(self._recorder(), split)

    def finish(self) -> None:
        """Record how the training ended and close the run; in a `finally` the exception under way tells."""
        if self._records():
            handled = sys.exc_info()[1]
            error = None if handled is None or id(handled) == self._before else handled
            self._run.end(end_status(error), error)
            self._before = None

    def _recorder(self) -> Recorder:
        if self._run.opened is None:
            # A training may be tried again inside an `except`: what is handled there is none of its troubles. Only
            # its identity is kept, for the exception holds all that its training had in memory.
            self._before = id(sys.exc_info()[1])
        return self._run.open(_process()[0])

    def _records(self) -> bool:
        return not self.main_process_only or _process()[1]


def _process() -> tuple[int | None, bool]:
    """The rank, and whether this is the main process, as Accelerate knows them; (None, True) where it runs none."""
    module = sys.modules.get("accelerate.state")
    if module is None or not module.is_initialized():
        return None, True
    state = module.PartialState()
    return int(state.process_index), bool(state.is_main_process)
