"""What a logger of Lightning can record: metrics by split and step, settings, checkpoints, how the training ended."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventstream.layers import bare_module
from eventstream.logged_values import Logged
from eventstream.owned_recorder import OwnedRecorder
from eventstream.recorder import Recorder
from eventstream.records import encode_numbers
from eventstream.starting import end_status
from eventstream.training_arguments import without_secrets

__all__ = ["LoggerCore"]

_UNFINISHED = "the process ended before this training did"
#: The stages of a Trainer and the splits that their numbers are of.
_SPLITS = {"train": "train", "validate": "eval", "test": "test", "predict": "predict"}
#: What runs before the training to see that evaluation works, on weights that nobody trained.
_SANITY = "sanity_check"
_SETTINGS = (
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "log_every_n_steps",
    "check_val_every_n_epoch",
    "val_check_interval",
    "precision",
    "world_size",
    "num_nodes",
)


class LoggerCore:
    """Records what Lightning tells its loggers: `Trainer(logger=at.LightningLogger("runs/exp-1"))`, beside any others.

    `recorder_or_path` is the run's folder, where the logger opens a recorder when training begins and records how it
    ended, or a `Recorder`, which stays open after the training. A training that is resumed or begun again in the same
    folder is the next attempt of the same run. `plan` goes into the manifest (`docs/event-stream.md`). Each process of
    a distributed training records its own numbers into files of its own, without a word between them; with
    `every_rank=False` only that of rank 0 records, as other loggers of Lightning do.

    Recorded: metrics under the names of `self.log`, at the Trainer's step and epoch; names that tell no split (`loss`,
    `lr-AdamW`) with that of the Trainer's stage, and what is logged in the sanity check with the split `sanity_check`;
    hyper-parameters, without secrets and nothing pickled; settings of the Trainer; checkpoints of `ModelCheckpoint`
    with size and digest; how the training ended. `logger.experiment` is the `Recorder`, for `losses`, `sample` and all
    else. As first logger it makes `ModelCheckpoint` write to `checkpoints` in the run's folder. Texts that are logged
    become an event.

    Works with `lightning` and `pytorch_lightning`, the one that the script imported, and with Fabric. Raises InputError
    for a folder that cannot hold a run. In the training nothing is raised; see `Recorder`.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> logger = LoggerCore(folder)
    >>> logger.log_hyperparams({"lr": 0.1})
    >>> logger.log_metrics({"train_loss": 2.5, "epoch": 0}, step=49)
    >>> logger.finalize("success")
    >>> lines = (Path(folder) / "rank00000-attempt0000-000000.jsonl").read_text().splitlines()
    >>> lines[1].partition('"epoch"')[2]
    ':0.0,"values":{"train_loss":2.5}}'
    """

    def __init__(
        self,
        recorder_or_path: Recorder | str | os.PathLike[str],
        *,
        plan: Mapping[str, Any] | None = None,
        every_rank: bool = True,
    ) -> None:
        super().__init__()
        self._run = OwnedRecorder(recorder_or_path, plan=plan, unfinished=_UNFINISHED)
        self._every_rank = every_rank
        self._trainer: Any = None
        self._settings: list[Any] = []
        self._told: dict[str, Any] = {}
        self._late_checkpoints: dict[str, int | None] = {}

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self._run.path.name

    @property
    def version(self) -> str:
        """Empty: a restart is an attempt of the same run, not a version beside it."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder that holds the run's."""
        return str(self._run.path.parent)

    @property
    def root_dir(self) -> str:
        """The run's folder."""
        return str(self._run.path)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._run.path)

    @property
    def experiment(self) -> Any:
        """The `Recorder` of this process; where it is not to record, a stand-in that does nothing."""
        return _Silent() if self._silent() else self._recorder()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers at a step; `step` and `epoch` among them are the record's own."""
        if self._silent():
            return
        trainer = self._known_trainer()
        stage = None if trainer is None else getattr(trainer.state.stage, "value", None)
        recorder, logged = self._recorder(), Logged.of(metrics, step)
        if stage == _SANITY:
            logged.record(recorder, _SANITY, always=True)
        else:
            logged.record(recorder, _SPLITS.get(str(stage), ""))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record settings (mapping, namespace or dataclass) as the run's configuration."""
        if self._silent():
            return
        # Kept until it is known whether a training begins: what is tested after one belongs to its attempt.
        self._settings.append(without_secrets(encode_numbers(params)))
        if not self._run.ended:
            self._recorder()

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Take note of the training that begins, and record its settings; the graph itself is not recorded."""
        trainer = getattr(model, "_trainer", None)
        if self._silent() or trainer is None:
            return
        self._trainer = weakref.ref(trainer)
        fitting = getattr(trainer.state.fn, "value", None) == "fit"
        if fitting and self._run.begin_anew():
            self._told = {}
        self._settings.append({"lightning": _about(trainer, model)})
        recorder = self._recorder()
        if fitting:
            path = getattr(trainer, "ckpt_path", None)
            recorder.note("training begins" if path is None else f"training is resumed from {path}")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Record the checkpoint that `ModelCheckpoint` has written; Lightning calls this on rank 0 alone."""
        if self._silent():
            return
        path = getattr(checkpoint_callback, "_last_checkpoint_saved", "") or checkpoint_callback.last_model_path
        if path:
            self._late_checkpoints[str(path)] = getattr(checkpoint_callback, "_last_global_step_saved", None)
        self._record_checkpoints()

    def save(self) -> None:
        """Nothing to do: what was logged is with the operating system already."""

    def finalize(self, status: str) -> None:
        """Record how the training ended; what is tested afterwards still belongs to it."""
        if self._silent() or self._run.opened is None:
            return
        self._record_checkpoints(last=True)
        if status == "success":
            self._run.end(stay=True)
        else:
            error = sys.exc_info()[1]  # Lightning calls this while it handles what went wrong
            self._run.end("failed" if error is None else end_status(error), error)
            self._told = {}

    def _recorder(self) -> Recorder:
        recorder = self._run.open(_rank())
        while self._settings:
            self._tell(recorder, self._settings.pop(0))
        return recorder

    def _tell(self, recorder: Recorder, settings: Any) -> None:
        """Record settings, unless the attempt has them: a test after the training hands the same again."""
        if not isinstance(settings, dict) or any(self._told.get(key, ...) != value for key, value in settings.items()):
            recorder.config(settings)
            self._told.update(settings if isinstance(settings, dict) else {})

    def _silent(self) -> bool:
        return not self._every_rank and bool(_rank())

    def _known_trainer(self) -> Any:
        return None if self._trainer is None else self._trainer()

    def _record_checkpoints(self, *, last: bool = False) -> None:
        """Those that are there; one that is written beside the training waits for the next call, or for the end."""
        for path, step in list(self._late_checkpoints.items()):
            if Path(path).exists():
                self._recorder().checkpoint(step, path)
            elif last:
                self._recorder().event("checkpoint", {"path": path}, step=step)
            else:
                continue
            del self._late_checkpoints[path]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None, "_told": {}}


class _Silent:
    """Takes every call and does nothing, on processes that are not to record."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def _rank() -> int | None:
    """The rank as Lightning knows it, which sets no `RANK` for the processes that it starts; None where it has none."""
    module = sys.modules.get("lightning_utilities.core.rank_zero")
    found = None if module is None else getattr(module.rank_zero_only, "rank", None)
    return found if isinstance(found, int) else None


def _about(trainer: Any, model: Any) -> dict[str, Any]:
    """The settings of a Trainer that say what was trained how, by its own names, and the size of the model."""
    settings = {name: getattr(trainer, name, None) for name in _SETTINGS}
    settings["strategy"] = type(trainer.strategy).__name__
    sizes = [(p.numel(), p.requires_grad) for p in bare_module(model).parameters() if type(p).__name__ == "Parameter"]
    return {
        "trainer": {name: value for name, value in settings.items() if value is not None},
        "model": {
            "class": type(model).__name__,
            "parameters": sum(size for size, _ in sizes),
            "trainable_parameters": sum(size for size, trained in sizes if trained),
        },
    }
