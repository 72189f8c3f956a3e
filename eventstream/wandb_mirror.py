"""`WandbMirror`: the numbers of a run as an offline run of Weights & Biases, through its own library."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eventstream.errors import RecordingWarning
from eventstream.mirrors import About, full_tag, numbers
from eventstream.optional import need

__all__ = ["WandbMirror"]

#: Steps held back: records whose numbers come from a device arrive out of order, and W&B takes steps in order only.
#: A recorder lets at most 64 records wait.
HELD = 65
#: Keys of a history that are W&B's own, and the one that it drops.
_OWN = ("", "_step", "_timestamp", "_runtime", "_wandb")
_REPORTING = "WANDB_ERROR_REPORTING"


class WandbMirror:
    """Writes every number of a run into the history of an offline run of W&B, in `folder/wandb/offline-run-...`.

    A mirror of `Recorder`, and what `aftertrain convert --format wandb` writes with. Nothing is sent and nobody has to
    be logged in; `wandb sync` uploads the folder later. The run's name, configuration and `project` are the run's;
    keys are the names recorded, with the split before them (`eval/loss`) unless they say it, W&B's `_step` is the
    optimiser step and `_timestamp` the time of its last record. Notes are texts under `note`.

    W&B takes steps in their order: the newest 65 steps are held until they are complete, and `close` writes the rest,
    so that a killed training loses those of the mirror. What is recorded of an older step than those is left out and
    warned of. Of two numbers of one name and step the later counts; numbers without a step join the newest step.

    The library's background process ends at `close` where the mirror brought it; a run that the training itself has
    with wandb is left alone. Raises MissingDependencyError without the package wandb.

    >>> mirror = WandbMirror("tracked", project="tts")
    >>> mirror.folder.name, mirror.project
    ('tracked', 'tts')
    """

    #: Mirrors whose runs are open, and whether wandb came with the first of them.
    _open = 0
    _brought = False

    def __init__(self, folder: str | os.PathLike[str], *, project: str = "aftertrain") -> None:
        self.folder = Path(folder).absolute()
        self.project = project
        new = "wandb" not in sys.modules
        self._wandb = need("wandb", feature="writing W&B runs", extra="wandb")
        WandbMirror._brought = WandbMirror._brought or new
        self._run: Any = None
        self._said = False
        self._reset()

    def _reset(self) -> None:
        self._held: dict[int, dict[str, Any]] = {}
        self._written, self._newest = -1, 0
        self._failed = False

    def begin(self, about: About) -> None:
        """Open the run under its name."""
        self._start(about.run)

    def _start(self, name: str | None) -> None:
        self._reset()
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self._wandb.Settings(
            mode="offline", console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False
        )
        with _no_reports():
            self._run = self._wandb.init(
                project=self.project, name=name, dir=str(self.folder), settings=settings, reinit="create_new"
            )
        WandbMirror._open += 1

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record of the stream."""
        if self._run is None:
            self._start(None)
        kind, split, payload = record["kind"], record.get("split", ""), record.get("payload")
        pairs: list[tuple[str, Any]] = [(full_tag(name, split), value) for name, value in numbers(record)]
        if kind == "config" and isinstance(payload, dict):
            self._run.config.update(payload, allow_val_change=True)
        elif kind == "note" and isinstance(payload, dict):
            pairs.append(("note", str(payload.get("text", ""))))
        elif kind == "end" and isinstance(payload, dict):
            self._failed = payload.get("status") != "finished"
        self.add(record["step"], record["time"], pairs, epoch=record.get("epoch"))

    def add(
        self, step: int | None, time_s: float | None, pairs: Iterable[tuple[str, Any]], *, epoch: float | None = None
    ) -> None:
        """Take numbers of one step under their keys; `time_s` is None where it is not known."""
        values = {f"aftertrain/{key}" if key in _OWN else key: value for key, value in pairs}
        if not values:
            return
        place = self._newest if step is None else step
        if place < max(self._written, 0):
            self._late(place)
            return
        if epoch is not None:
            values.setdefault("epoch", epoch)
        if time_s is not None:
            values["_timestamp"] = time_s
        self._newest = max(self._newest, place)
        self._held.setdefault(place, {}).update(values)
        while len(self._held) > HELD:
            self._hand_over(min(self._held))

    def _late(self, step: int) -> None:
        if not self._said:
            self._said = True
            reason = "a step below 0" if step < 0 else f"step {step}, after step {self._written} was written"
            warnings.warn(
                f"{self.folder}: W&B takes steps in their order and was given {reason}; numbers of such steps are left "
                "out of this mirror (the event stream has them)",
                RecordingWarning,
                stacklevel=2,
            )

    def _hand_over(self, step: int) -> None:
        self._run.log(self._held.pop(step), step=step)
        self._written = step

    def close(self) -> None:
        """Write what is held, end the run, and the library's process where nobody else needs it."""
        if self._run is None:
            return
        run = self._run
        try:
            for step in sorted(self._held):
                self._hand_over(step)
        finally:
            self._run = None
            run.finish(exit_code=int(self._failed))
            WandbMirror._open -= 1
            if WandbMirror._brought and not WandbMirror._open and self._alone():
                self._wandb.teardown()

    def _alone(self) -> bool:
        """Whether the training has no run of its own open, known to all of wandb or not (`reinit="create_new"`)."""
        return self._wandb.run is None and getattr(self._wandb.setup(), "most_recent_active_run", None) is None


@contextmanager
def _no_reports() -> Iterator[None]:
    """The library's process starts without reporting its errors over the network, unless the user wants that."""
    given = os.environ.get(_REPORTING)
    os.environ[_REPORTING] = given or "false"
    try:
        yield
    finally:
        if given is None:
            del os.environ[_REPORTING]
        else:
            os.environ[_REPORTING] = given
