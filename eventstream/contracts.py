"""`watch_inputs`: which keys reach each stage on the way to a model's `forward`, recorded beside what was agreed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from eventstream.batch_names import given_status, output_items
from eventstream.batches import check_every
from eventstream.errors import InputError
from eventstream.layers import FORWARD, argument_names, model_layers, named_arguments
from eventstream.payloads import tensors as described
from eventstream.recorder import Recorder, open_recorder
from eventstream.trainer_stages import observe_trainer
from eventstream.troubles import Troubles

__all__ = ["InputWatch", "Names", "watch_inputs"]

#: Names (shell patterns allowed) for `forward`, or names by stage.
Names = str | Iterable[str] | Mapping[str, Iterable[str]]

#: Most sets of keys and devices that are remembered of a stage.
_MOST = 64


def watch_inputs(
    model_or_trainer: Any,
    recorder: Recorder | str | os.PathLike[str] | None = None,
    *,
    forbid: Names = (),
    require: Names = (),
    require_outputs: Names = (),
    inner: Any = None,
    every: int = 100,
    step: Callable[[], int] | None = None,
) -> InputWatch:
    """Records which keys, on which devices, reach each stage on the way to `forward`; see `InputWatch`.

    Of a Hugging Face Trainer the stages are `training_step` and `prediction_step`, `_prepare_inputs`, `compute_loss`,
    every wrapper of the model (`wrapper:ClassName`) and the model's own `forward`, each as it is given the batch, and
    `_prepare_inputs:returned`; of a bare module the wrappers and `forward`. `inner` names the model inside a wrapper of
    your own (a submodule or its dotted name): its call is `forward` then, and yours a wrapper.

    `forbid` and `require` are what `forward` must not and must be given, `require_outputs` what it must give back:
    names or shell patterns (`*_labels`), or a mapping of stages to them. They are recorded with the run, and the
    analysis says at which stage a forbidden key came in, where it was taken out, and what never arrived.

    A stage is recorded when it is called with keys, types or devices that it was not called with before, and again
    every `every` steps (default 100); a call in between costs a few microseconds. Nothing is changed, copied or kept
    of a batch, and a failure of recording is warned of once and never raised in the training.

    When the watch is removed, it records how often each stage was called, and how often with a forbidden key.

    `recorder` is a `Recorder`, or a folder for one that the watch opens and closes; the one made last in this process
    where none is given. A Trainer does without: what its `AftertrainCallback` records into is taken, and such a
    callback added where it has none (add your own before). Steps are those of the Trainer; of a bare module what
    `step()` returns, else `recorder.step` once it is set, else its calls in training mode, from 1.

    Raises InputError for what is no module and no trainer, for a module without a recorder and for an unknown
    submodule; ValueError for an `every` below 1 and for a name that is forbidden and required at one stage.

    >>> import tempfile, torch
    >>> class Model(torch.nn.Module):
    ...     def forward(self, input_ids, labels=None):
    ...         return input_ids.float()
    >>> model, folder = Model(), tempfile.mkdtemp()
    >>> with watch_inputs(model, folder, forbid={"labels"}, require={"input_ids"}) as watch:
    ...     _ = model(torch.ones(2, 3), labels=torch.ones(2))
    >>> watch.calls
    {'forward': 1}
    """
    contract = _contract(forbid, require, require_outputs)
    watch = InputWatch(contract, check_every(every), step)
    if all(callable(getattr(model_or_trainer, name, None)) for name in ("training_step", "compute_loss")):
        watch.observe_trainer(model_or_trainer, recorder, inner)
    elif callable(getattr(model_or_trainer, "register_forward_pre_hook", None)):
        watch.observe_module(model_or_trainer, recorder, inner)
    else:
        raise InputError(
            f"model_or_trainer must be a torch.nn.Module or a transformers.Trainer, "
            f"got {type(model_or_trainer).__name__}"
        )
    return watch


class InputWatch:
    """The stages under watch; `remove()`, or leaving the `with` block, takes every hook off again."""

    def __init__(self, contract: Mapping[str, Any], every: int, step: Callable[[], int] | None = None) -> None:
        self._contract, self._every = contract, every
        #: How often each stage was called so far.
        self.calls: dict[str, int] = {}
        self._known: dict[tuple[str, str], dict[Any, _KeySet]] = {}
        self._forbidden = {name for rule in contract.get("inputs", {}).values() for name in rule.get("forbid", ())}
        self._counted: dict[str, dict[str, Any]] = {}
        self._undo: list[Callable[[], None]] = []
        self._hooked: set[int] = set()
        self._recorder: Callable[[], Recorder]
        self._told: Recorder | None = None
        self._troubles = Troubles("watch_inputs")
        self._inner: Any = None
        self._steps = 0
        self._step = step
        self._at: Callable[[], tuple[int, str] | None] = lambda: None

    def observe_module(self, model: Any, recorder: Recorder | str | os.PathLike[str] | None, inner: Any = None) -> None:
        """Watch the calls of a module and of what it wraps."""
        found = open_recorder() if recorder is None else recorder
        if found is None:
            raise InputError(
                "there is no open recorder to watch into; make at.Recorder(folder) first, or pass recorder="
            )
        layers = model_layers(model, inner)
        self._record_into(found)
        self._inner = inner
        self.observe_layers(layers)

    def observe_trainer(
        self, trainer: Any, recorder: Recorder | str | os.PathLike[str] | None, inner: Any = None
    ) -> None:
        """Watch the stages of a Trainer and the calls of its model."""
        from eventstream.huggingface import callback_of, ensured_callback

        layers = model_layers(trainer.model, inner)
        if recorder is None:
            callback = ensured_callback(trainer)
            self._recorder = lambda: callback.recorder_for(trainer.args)
        else:
            self._record_into(recorder)
        shown = callback_of(trainer)
        if shown is not None:
            shown.batches.inner = inner
        self._inner = inner
        self.observe_layers(layers)
        stages = observe_trainer(trainer, self._trainer_stage)
        self._at = stages.now
        self._undo.append(stages.remove)

    def _record_into(self, recorder: Recorder | str | os.PathLike[str]) -> None:
        if isinstance(recorder, Recorder):
            self._recorder = lambda: recorder
            return
        opened = Recorder(recorder)
        self._recorder = lambda: opened
        self._undo.append(opened.close)

    def observe_layers(self, layers: Iterable[tuple[str, Any]]) -> None:
        """Put a hook before each module that has none of this watch yet."""
        for stage, module in layers:
            if id(module) in self._hooked:
                continue
            self._hooked.add(id(module))
            hook = _CallHook(self, stage, argument_names(module))
            self._undo.append(module.register_forward_pre_hook(hook.before, with_kwargs=True).remove)
            if stage == FORWARD and self._contract.get("outputs"):
                self._undo.append(module.register_forward_hook(hook.after).remove)

    def _trainer_stage(self, stage: str, model: Any, given: Any) -> None:
        try:
            if model is not None and id(model) not in self._hooked:
                self.observe_layers(model_layers(model, self._inner))
            self._see("inputs", stage, given if isinstance(given, Mapping) else named_arguments((), (given,), {}))
        except Exception as error:  # noqa: BLE001 - foreign batches raise anything, and training must go on
            self._troubles.lose(error)

    def module_called(self, stage: str, module: Any, given: Mapping[str, Any], accepted: tuple[str, ...]) -> None:
        """A module is about to be called with these arguments."""
        training = bool(getattr(module, "training", True))
        if stage == FORWARD and training:
            self._steps += 1
        self._see("inputs", stage, given, "train" if training else "eval", accepted)

    def module_returned(self, stage: str, module: Any, outputs: Any) -> None:
        """A module gave these outputs."""
        split = "train" if getattr(module, "training", True) else "eval"
        self._see("outputs", stage, output_items(outputs), split)

    def lose(self, error: Exception) -> None:
        """Say once that a call could not be recorded."""
        self._troubles.lose(error)

    def _see(
        self, kind: str, stage: str, given: Mapping[str, Any], split: str = "train", accepted: tuple[str, ...] = ()
    ) -> None:
        recorder = self._recorder()
        if recorder is not self._told:
            self._begin(recorder)
        step, split = self._at() or (self._own_step(recorder), split)
        held = tuple(
            (name, getattr(value, "dtype", None), getattr(value, "device", None))
            for name, value in given.items()
            if value is not None
        )
        known = self._known.setdefault((f"{kind} {stage}", split), {})
        keys = known.get(held)
        if keys is None:
            keys = _KeySet(tuple(name for name, *_ in held if any(fnmatchcase(name, p) for p in self._forbidden)))
            if len(known) >= _MOST:
                known.clear()
            known[held] = keys
        if kind == "inputs":
            self._count(stage, keys.forbidden)
        if keys.recorded is not None and step - keys.recorded < self._every:
            return
        keys.recorded = step
        there = {name: value for name, value in given.items() if value is not None}
        status = given_status(given, accepted) if accepted and stage == FORWARD else {}
        recorder.event(kind, described(stage, there, status or None), step=step, split=split)

    def _own_step(self, recorder: Recorder) -> int:
        if self._step is not None:
            return self._step()
        return self._steps if recorder.step is None else recorder.step

    def _count(self, stage: str, forbidden: tuple[str, ...]) -> None:
        self.calls[stage] = self.calls.get(stage, 0) + 1
        counted = self._counted.setdefault(stage, {"calls": 0, "held": {}})
        counted["calls"] += 1
        for name in forbidden:
            counted["held"][name] = counted["held"].get(name, 0) + 1

    def _begin(self, recorder: Recorder) -> None:
        """Another attempt: say what was agreed, and record every stage anew."""
        self._tell_counts()
        self._told = recorder
        self._known.clear()
        if self._contract:
            recorder.event("contract", self._contract)

    def _tell_counts(self) -> None:
        if self._told is not None and not self._told.closed and self._counted:
            self._told.event("watched", {"stages": self._counted})
        self._counted = {}

    def remove(self) -> None:
        """Take every hook off, and close a recorder that the watch opened; a second call does nothing."""
        self._tell_counts()
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> InputWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


@dataclass(slots=True)
class _KeySet:
    """Keys, types and devices that a stage was called with: what of it is forbidden somewhere, and when recorded."""

    forbidden: tuple[str, ...]
    recorded: int | None = None


class _CallHook:
    """The hooks of one module. A copy of the module (deepcopy, pickle) carries hooks that do nothing."""

    def __init__(self, watch: InputWatch | None, stage: str, names: tuple[str, ...]) -> None:
        self._watch, self._stage, self._names = watch, stage, names

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._watch is None or _compiling():
            return
        try:
            given = named_arguments(self._names, args, kwargs)
            self._watch.module_called(self._stage, module, given, self._names)
        except Exception as error:  # noqa: BLE001 - as above
            self._watch.lose(error)

    def after(self, module: Any, args: tuple[Any, ...], outputs: Any) -> None:
        if self._watch is None or _compiling():
            return
        try:
            self._watch.module_returned(self._stage, module, outputs)
        except Exception as error:  # noqa: BLE001 - as above
            self._watch.lose(error)

    def __getstate__(self) -> dict[str, Any]:
        return {"_watch": None, "_stage": self._stage, "_names": self._names}


def _compiling() -> bool:
    """Whether torch.compile reads the model around the hook: the call of the compiled module is what is watched."""
    return bool(sys.modules["torch"].compiler.is_compiling())


def _contract(forbid: Names, require: Names, require_outputs: Names) -> dict[str, Any]:
    """What was agreed, in the form of a plan's `inputs` and `outputs`."""
    forbidden, required = _by_stage("forbid", forbid), _by_stage("require", require)
    inputs: dict[str, dict[str, list[str]]] = {}
    for stage in dict.fromkeys([*forbidden, *required]):
        both = sorted(set(forbidden.get(stage, ())) & set(required.get(stage, ())))
        if both:
            raise ValueError(f"{both[0]!r} is both forbidden and required at stage {stage!r}; it can only be one")
        rule = {"require": required.get(stage, []), "forbid": forbidden.get(stage, [])}
        inputs[stage] = {key: names for key, names in rule.items() if names}
    outputs = {stage: {"require": names} for stage, names in _by_stage("require_outputs", require_outputs).items()}
    return {key: value for key, value in (("inputs", inputs), ("outputs", outputs)) if value}


def _by_stage(what: str, given: Names) -> dict[str, list[str]]:
    if isinstance(given, Mapping):
        return {str(stage): _names(what, names) for stage, names in given.items()}
    names = _names(what, given)
    return {FORWARD: names} if names else {}


def _names(what: str, given: object) -> list[str]:
    listed = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [None]
    if not all(isinstance(name, str) and name for name in listed):
        raise ValueError(f"{what} must be names of tensors, or a mapping of stages to names, got {given!r}")
    return sorted(set(map(str, listed)))
