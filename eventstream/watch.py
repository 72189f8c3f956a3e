"""`watch`: gradients, parameters, updates, clipping, loss scale and learning rates of any PyTorch loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

from eventstream.errors import InputError
from eventstream.optional import need
from eventstream.recorder import Recorder, open_recorder
from eventstream.watch_names import Names, is_sharded
from eventstream.watch_observers import Clipping, Scaling, clip_tap, is_tracing, scaler_tap
from eventstream.watch_step import Roster, Step
from eventstream.watch_summary import summary

__all__ = ["Watch", "watch"]

#: Optimizer steps between two measurements of what changes slowly or costs passes over all parameters.
SLOW_EVERY = 20

_P = ParamSpec("_P")


def _guarded(method: Callable[Concatenate[Watch, _P], None]) -> Callable[Concatenate[Watch, _P], None]:
    """The method, with whatever goes wrong in it said once: training goes on."""

    @functools.wraps(method)
    def guarded(self: Watch, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - foreign optimizers and tensors raise anything
            self._failed(error)

    return guarded


def watch(
    model: Any,
    optimizer: Any = None,
    *,
    every: int = 100,
    recorder: Recorder | None = None,
    per_layer: bool = True,
    scaler: Any = None,
    name: str = "",
) -> Watch:
    """Record how `model` trains, at every `every`-th optimizer step, without a change of the loop.

    `optimizer` is the optimizer or several; None watches whichever steps parameters of the model. `recorder` is the
    run to record into, the one made last in this process unless given. `scaler` is the loss scaler, found by itself
    when None. `name` is put before all names (`generator/grad_norm`), for those who watch two models. The first step
    is always recorded. What is recorded, under the split `train`:

    | name | meaning |
    |---|---|
    | `grad_norm` | 2-norm of the gradient as the optimizer meets it, before `clip_grad_norm_` |
    | `grad_norm_after_clip`, `clip_rate` | the norm after it; share of its calls since the last record that clipped |
    | `param_norm` | 2-norm of the parameters before the step |
    | `update_ratio` | norm of what the step changed over the norm of what it changed |
    | `zero_grads` | share of the gradient's elements that are exactly zero |
    | `dead_units` | share of units (row of a weight, with its bias) without any gradient 5 observations running |
    | `nonfinite_grads` | number of NaN and infinite elements of the gradient |
    | `lr` | learning rate; `lr/0`, `lr/1`, ... where there are several groups |
    | `amp_scale`, `amp_skipped_count` | scale of the loss; steps skipped for it so far |

    and with `per_layer` the first seven (but for clipping) of each module that owns parameters, as `grad_norm/layer`.
    `param_norm`, `update_ratio`, `zero_grads`, `dead_units` and the count of `nonfinite_grads` are measured at most
    every 20th step, and at every second record where `every` is more; of tensors beyond 2,048 elements the update ratio
    takes an even sample. A parameter without a gradient has none of the gradient's statistics; frozen ones
    (`requires_grad` False) are left out. Of sharded parameters (FSDP, tensor parallel) each process records its own
    part, named `shard_grad_norm` and so on. Clipping is seen with torch 2.6 and later.

    The host never waits for a device, and no call here raises into the training: what cannot be measured is warned of
    once. Steps are counted from 0; `watch.step = n` sets the number of the next one, and `recorder.step`, once set,
    counts instead. Raises ValueError for a model, optimizer or number that cannot be watched, InputError where there
    is no recorder.

    >>> import tempfile, torch
    >>> import aftertrain as at
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with at.Recorder(tempfile.mkdtemp(), seal=False) as rec, watch(model, optimizer, every=1):
    ...     model(torch.ones(2, 3)).sum().backward()
    ...     optimizer.step()
    >>> at.load(rec.path).series("grad_norm")["value"].round(4).to_list()
    [4.0]
    """
    need("torch", feature="watching a model", extra="checkpoints")
    if not callable(getattr(model, "named_modules", None)):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if type(every) is not int or every < 1:
        raise ValueError(f"every must be a whole number of steps from 1, got {every!r}")
    found = open_recorder() if recorder is None else recorder
    if not isinstance(found, Recorder):
        raise InputError("there is no open recorder to watch into; make at.Recorder(folder) first, or pass recorder=")
    prefix = f"{name}/" if name else ""
    return Watch(model, _optimizers(optimizer), every, found, per_layer, scaler, prefix)


def _optimizers(given: Any) -> list[Any] | None:
    """The optimizers that really step, out of wrappers such as Accelerate's; None for any."""
    from torch.optim import Optimizer

    if given is None:
        return None
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    inner = []
    for each in listed:
        while isinstance(getattr(each, "optimizer", None), Optimizer):
            each = each.optimizer
        inner.append(each)
    for each in inner:
        if not isinstance(each, Optimizer):
            raise ValueError(f"optimizer must be a torch.optim.Optimizer or a list of them, got {type(each).__name__}")
    if not inner:
        raise ValueError("optimizer is an empty list; pass None to watch whichever steps the model")
    return inner


@dataclass(slots=True)
class _Round:
    """One step of every optimizer: under which number, whether it is recorded, and what was measured so far."""

    number: int
    due: bool
    slow: bool
    stepped: set[int] = field(default_factory=set)
    steps: dict[int, Step] = field(default_factory=dict)


class Watch:
    """A running observation, made by `watch`; `remove` or the end of its `with` block ends it."""

    def __init__(
        self,
        model: Any,
        optimizers: list[Any] | None,
        every: int,
        recorder: Recorder,
        per_layer: bool,
        scaler: Any,
        prefix: str,
    ) -> None:
        #: The number that the next optimizer step is recorded under, where the recorder has none.
        self.step = 0
        self._every, self._recorder, self._per_layer = every, recorder, per_layer
        self._names = Names(model)
        self._prefix, self._sharded = prefix, is_sharded(model)
        self._given = optimizers
        self._met: dict[int, tuple[Any, Roster]] = {}
        self._foreign: set[int] = set()
        #: Steps so far, the first one to record next, and the first to measure next what is slow.
        self._count, self._due, self._slow_due = 0, 0, 0
        self._only = optimizers[0] if optimizers is not None and len(optimizers) == 1 else None
        self._round: _Round | None = None
        self._clipping = Clipping(self._names.holds)
        self._scaling = Scaling(lambda: [each for each, _ in self._met.values()], scaler, self._skipped)
        self._on = True
        self._handles = list(self._attach())
        recorder.before_flush(self._emit)

    def _attach(self) -> Iterator[Callable[[], None]]:
        """Put the hooks in place; what undoes each."""
        import torch
        from torch.optim import optimizer as hooks

        # A compiled `optimizer.step` runs the hooks as they are, beside its graph.
        before, after = torch.compiler.disable(self._before), torch.compiler.disable(self._after)
        for each in self._given or ():
            self._met[id(each)] = each, Roster(self._names)
            yield each.register_step_pre_hook(before).remove
            yield each.register_step_post_hook(after).remove
        if self._given is None:
            yield hooks.register_optimizer_step_pre_hook(before).remove
            yield hooks.register_optimizer_step_post_hook(after).remove
        tap = clip_tap()
        if tap is not None:
            tap.add(self._on_clip)
            yield functools.partial(tap.remove, self._on_clip)
        scaling = scaler_tap()
        scaling.add(self._on_scaler)
        yield functools.partial(scaling.remove, self._on_scaler)

    def remove(self) -> None:
        """Record what is gathered and take every hook out; a second call does nothing."""
        if self._on:
            self._on = False
            self._emit()
            for undo in self._handles:
                undo()
            self._handles.clear()
            self._met.clear()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Watch of {len(self._met)} optimizers every {self._every} steps into {self._recorder.path}>"

    @_guarded
    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if optimizer is self._only and self._count < self._due:
            # Nearly all steps: nothing is measured, and little more than the count is touched.
            self._advance()
            self._scaling.stepped.add(id(optimizer))
            return
        if not self._is_ours(optimizer) or is_tracing():
            return
        if self._round is None or id(optimizer) in self._round.stepped:
            self._begin()
        assert self._round is not None
        self._round.stepped.add(id(optimizer))
        if self._round.due:
            closure = any(callable(arg) for arg in args[1:]) or kwargs.get("closure") is not None
            roster = self._met[id(optimizer)][1]
            step = Step(optimizer, roster, slow=self._round.slow, closure=closure)
            self._round.steps[id(optimizer)] = step

    @_guarded
    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        round_ = self._round
        if round_ is None or id(optimizer) not in round_.stepped:
            return
        self._scaling.stepped.add(id(optimizer))
        step = round_.steps.get(id(optimizer))
        if step is not None:
            step.after(self._clipping, self._scaling)
        if self._given is not None and len(round_.stepped) == len(self._given):
            self._emit()

    def _is_ours(self, optimizer: Any) -> bool:
        if id(optimizer) in self._met:
            return True
        if self._given is not None or id(optimizer) in self._foreign:
            return False
        if not any(self._names.holds(p) for group in optimizer.param_groups for p in group["params"]):
            self._foreign.add(id(optimizer))
            return False
        self._met[id(optimizer)] = optimizer, Roster(self._names)
        return True

    def _begin(self) -> None:
        """A round is one step of every optimizer; it begins when one of them steps again."""
        self._emit()
        due, slow = self._count >= self._due, self._count >= max(self._due, self._slow_due)
        number = self.step if self._recorder.step is None else self._recorder.step
        self._round = _Round(number, due, slow)
        if slow:
            self._slow_due = self._count + (SLOW_EVERY if self._every <= SLOW_EVERY else 2 * self._every)
        if due:
            self._due = self._count + self._every
        self._advance(keep_clips=due)

    def _advance(self, *, keep_clips: bool = False) -> None:
        """One step on; clippings in detail are those of the step to record alone."""
        self.step += 1
        self._count += 1
        self._clipping.detailed = self._count >= self._due
        if not keep_clips and self._clipping.clips:
            self._clipping.clips.clear()

    @_guarded
    def _emit(self) -> None:
        """Hand what is measured of the round to the recorder, which writes it once it has arrived."""
        round_, self._round = self._round, None
        if round_ is None or not round_.steps:
            return
        parts = [step.part for step in round_.steps.values()]
        copies = [copy for part in parts for copy in part.numbers.copies()]
        values = functools.partial(
            summary, parts, per_layer=self._per_layer, prefix=self._prefix, sharded=self._sharded
        )
        self._recorder.log_later(round_.number, copies, values, split="train")

    @_guarded
    def _on_clip(self, *args: Any, **kwargs: Any) -> None:
        if not is_tracing():
            self._clipping.observe(*args, **kwargs)

    @_guarded
    def _on_scaler(self, scaler: Any, *args: Any, **kwargs: Any) -> None:
        self._scaling.observe(scaler)

    def _skipped(self) -> None:
        """A step that the loss scaler did not take is one all the same, of the loop and of the count."""
        self._advance()

    def _failed(self, error: Exception) -> None:
        self._round = None
        self._recorder.trouble("watch", f"a step could not be measured ({type(error).__name__}: {error})")
