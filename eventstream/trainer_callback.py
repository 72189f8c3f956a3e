"""What a callback of the Hugging Face Trainer can record: the life of a run, its logs, evaluations and checkpoints."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventstream import batch_statistics
from eventstream.abandoned import close_of, close_when_gone, keep
from eventstream.attention_sharing import AudioPositions
from eventstream.batches import Batches, check_every
from eventstream.errors import InputError
from eventstream.recorder import Recorder
from eventstream.training_arguments import lr_plan, settings

__all__ = ["CallbackCore"]

#: Folder of the run inside `output_dir`, where no other is given.
FOLDER = "aftertrain"
#: Callbacks that opened a recorder.
_OWNERS: weakref.WeakSet[CallbackCore] = weakref.WeakSet()
_UNFINISHED = "the process ended, or trained anew, before this training did"


class CallbackCore:
    """Records what the Hugging Face Trainer tells its callbacks. Add it to `callbacks=[...]`, beside any others.

    `recorder_or_path` is a `Recorder`, which stays open after the training, or the run's folder, where the callback
    opens one for each training and records how it ended; without it the folder is `aftertrain` in the Trainer's
    `output_dir`. A resumed training is the next attempt of the same run. Every `every`-th step a batch is looked at,
    by trainers that derive from `RecordingTrainer` (default 100: at that pace looking costs well under 1 % of a step);
    every log of the Trainer is recorded whatever `every` is. `plan` adds to the plan, which holds `max_steps` and the
    schedule of the learning rate by itself. `digests` reads each checkpoint once for its SHA-256 (about a second a GB;
    off by default, the sizes alone cost nothing). `shift_labels` says whether the model predicts the next label rather
    than its own where its class does not tell, `audio_positions` which positions are audio (the key of a mask in the
    batch, or a function of the batch that returns one).

    Recorded: configuration (no secrets), logs and results of `predict` (numbers, by the Trainer's names), checkpoints,
    where training began and ended. A callback is never handed inputs and outputs: what it records of them is that the
    stage `on_log` was handed none, unless the trainer is a `RecordingTrainer`.

    Raises ValueError for an `every` below 1, InputError for a folder that cannot hold a run. In the training nothing
    is raised; see `Recorder`.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> folder = tempfile.mkdtemp()
    >>> args, state = SimpleNamespace(learning_rate=0.1, output_dir=folder), SimpleNamespace(global_step=0, max_steps=9)
    >>> callback = CallbackCore(folder)
    >>> callback.on_train_begin(args, state, None)
    >>> state.global_step = 3
    >>> callback.on_log(args, state, None, logs={"loss": 2.5, "epoch": 0.5})
    >>> callback.on_train_end(args, state, None)
    >>> sorted(path.name for path in Path(folder).iterdir() if path.is_file())[0]
    'manifest.json'
    """

    def __init__(
        self,
        recorder_or_path: Recorder | str | os.PathLike[str] | None = None,
        every: int = 100,
        *,
        plan: Mapping[str, Any] | None = None,
        digests: bool = False,
        shift_labels: bool | None = None,
        audio_positions: AudioPositions | None = None,
    ) -> None:
        given = isinstance(recorder_or_path, Recorder)
        if not given and recorder_or_path is not None and not isinstance(recorder_or_path, (str, os.PathLike)):
            kind = type(recorder_or_path).__name__
            raise InputError(f"recorder_or_path must be a Recorder or the folder of the run, got {kind}")
        self._recorder: Recorder | None = recorder_or_path if isinstance(recorder_or_path, Recorder) else None
        self._path = None if isinstance(recorder_or_path, Recorder) else recorder_or_path
        self._owned, self._plan, self._digests = not given, dict(plan or {}), digests
        self._training, self._ended = False, False
        #: Which batches are looked at; a `RecordingTrainer` asks it.
        self.batches = Batches(check_every(every), shift_labels, audio_positions)
        #: Whether a trainer shows its batches to this callback.
        self.sees_batches = False
        self._blind_told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the run and record its configuration and where training begins."""
        made = settings(args, model)
        if self._owned:
            self.close(*(("interrupted", _UNFINISHED) if self._training else ("finished", None)))
            steps = int(getattr(state, "max_steps", 0) or 0)
            plan = {"lr": lr_plan(args, steps), **({"max_steps": steps} if steps > 0 else {}), **self._plan}
            self._open(args, config=made, plan=plan, ends=("interrupted", _UNFINISHED))
        elif self._recorder is not None:
            self._recorder.config(made)
        self.batches.start()
        self._training, self._blind_told = True, False
        recorder = self.recorder_for(args)
        begun = int(state.global_step)
        recorder.note("training begins" if not begun else f"training is resumed after step {begun}", step=begun)

    def recorder_for(self, args: Any) -> Recorder:
        """The recorder that is open, opened where none is: what is evaluated before a training is an attempt too."""
        if self._recorder is None:
            self._open(args, ends=("finished", None))
        assert self._recorder is not None
        return self._recorder

    def _open(self, args: Any, *, ends: tuple[str, str | None], **known: Any) -> None:
        if self._path is None:
            known["run"] = Path(args.output_dir).absolute().name or None
        path = self._path if self._path is not None else Path(args.output_dir) / FOLDER
        rank = getattr(args, "process_index", None)
        _give_way(path, rank)
        self._recorder, self._ended = Recorder(path, rank=rank, **known), False
        self._close_at_exit(*ends)

    def _close_at_exit(self, status: str, error: str | None) -> None:
        """At the end of the process, should nothing else close the recorder; without keeping the callback alive."""
        assert self._recorder is not None
        close_when_gone(self, self._recorder, status, error)
        _OWNERS.add(self)

    def close(self, status: str = "finished", error: str | None = None) -> None:
        """Close the recorder that the callback opened itself; a recorder that was given stays open."""
        self._training = False
        if self._owned and self._recorder is not None:
            keep(self)
            self._recorder.close(status, error)
            self._recorder = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell those who record beside the Trainer (`watch`) which step it is in."""
        self.recorder_for(args).step = state.global_step + 1

    def __getstate__(self) -> dict[str, Any]:
        # A copy, as searches for hyper-parameters make them, has the settings and a recorder of its own to open.
        return {**self.__dict__, **({"_recorder": None} if self._owned else {})}

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Record the numbers that the Trainer logs, as it names them."""
        recorder, step = self.recorder_for(args), state.global_step
        self._tell_blindness(recorder, step, kwargs)
        values = dict(logs or {})
        epoch = values.pop("epoch", None)
        if "train_runtime" in values:  # the end of the job: train_loss is the mean over all of it, no point of loss
            recorder.event("summary", values, step=step, epoch=epoch)
            values.pop("train_loss", None)
        recorder.log(step, _numbers(values), split=_split(values), epoch=epoch)

    def _tell_blindness(self, recorder: Recorder, step: Any, handed: Mapping[str, Any]) -> None:
        """Once an attempt: what a callback is handed of the batch, which is nothing."""
        if self.sees_batches or self._blind_told:
            return
        self._blind_told = True
        for kind in ("inputs", "outputs"):
            batch = handed.get(kind)
            tensors = dict(batch) if isinstance(batch, Mapping) else {}
            recorder.event(kind, {"stage": "on_log", "tensors": {name: {} for name in tensors}}, step=step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The metrics were logged already; the next evaluation begins with its first batch."""
        self.batches.next_evaluation()
        self._end_of_evaluation()

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Record the metrics of a prediction, which the Trainer does not log."""
        self.batches.next_evaluation()
        self.recorder_for(args).log(state.global_step, _numbers(dict(metrics or {})))
        self._end_of_evaluation()

    def _end_of_evaluation(self) -> None:
        """Outside of a training the run is whole as soon as the evaluation is over."""
        if not self._training:
            self._end()

    def _end(self) -> None:
        """Say that the run is finished, once an attempt, and leave it open: evaluations may follow a training.

        A further attempt would stand for a restart, at the training's last step.
        """
        if self._owned and self._recorder is not None:
            if not self._ended:
                self._recorder.event("end", {"status": "finished"})
            self._ended, self._training = True, False
            self._close_at_exit("finished", None)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the checkpoint that the Trainer has written, on the process that writes it."""
        if not getattr(state, "is_world_process_zero", True):
            return
        recorder, step = self.recorder_for(args), state.global_step
        folder = Path(args.output_dir) / f"checkpoint-{step}"
        if self._digests:
            recorder.checkpoint(step, folder)
        else:
            recorder.event("checkpoint", _sizes(folder, recorder.path), step=step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record where training ended, what was best, and that the run is finished."""
        best = {key: getattr(state, key, None) for key in ("best_metric", "best_global_step", "best_model_checkpoint")}
        recorder = self.recorder_for(args)
        if best["best_metric"] is not None:
            recorder.event("best", best, step=state.global_step)
        steps = getattr(state, "max_steps", None)
        early = steps and state.global_step < steps
        recorder.note(f"training ends{f' early, of {steps} steps' if early else ''}", step=state.global_step)
        self._end()

    def speaker_similarity(self, step: Any, reference: Any, generated: Any, split: str = "") -> None:
        """Record the cosine similarity of reference and generated speaker embeddings, of shape (d) or (n, d).

        The mean is `speaker_similarity`, the smallest `speaker_similarity_min`. Before a training opened the run,
        nothing is recorded.
        """
        if self._recorder is None:
            return
        try:
            parts = batch_statistics.similarity_parts("speaker_similarity", reference, generated)
            self._recorder.log(step, batch_statistics.read(parts), split=split)
        except Exception as error:  # noqa: BLE001 - foreign tensors raise anything, and training must go on
            self.batches.trouble(self._recorder, error)


def _give_way(path: str | os.PathLike[str], rank: int | None) -> None:
    """Close what an earlier callback of this process has open on the folder: a notebook runs its cell again."""
    for other in list(_OWNERS):
        recorder = other._recorder
        if recorder is not None and recorder.path == Path(path).absolute() and rank in (None, recorder.rank):
            close_of(other)


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is a number, or a tensor that may be one; people log texts and tables beside them."""
    return {name: value for name, value in values.items() if not isinstance(value, (str, bytes, Mapping, list, tuple))}


def _split(values: Mapping[str, Any]) -> str:
    if "train_runtime" in values:
        return ""
    # Names such as eval_loss tell their split themselves, as they do in trainer_state.json.
    return "" if any(name.startswith(("eval_", "test_")) for name in values) else "train"


def _sizes(folder: Path, run: Path) -> dict[str, Any]:
    """Where a checkpoint stands and how large it is, without reading it."""
    place = folder.absolute()
    payload: dict[str, Any] = {"path": place.relative_to(run).as_posix() if place.is_relative_to(run) else str(folder)}
    if place.is_dir():
        payload["bytes"] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return payload
