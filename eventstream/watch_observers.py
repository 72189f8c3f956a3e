"""Gradient clipping and loss scaling as the training does them: seen where they are called, never changed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from eventstream.watch_numbers import Numbers

__all__ = ["Clipping", "Scaling", "Tap", "clip_tap", "scaler_tap"]

#: Norms of clipping kept one by one before they are added up.
_KEPT = 512

Observer = Callable[..., None]


class Tap:
    """Calls its observers before each call of `owner.name`, for as long as it has one.

    The function is replaced by a wrapper and put back with the last observer. Where somebody else has wrapped it
    meanwhile, the wrapper stays and hands calls through.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name
        self._observers: list[Observer] = []
        self._original: Any = None
        self._wrapper: Any = None

    def add(self, observer: Observer) -> None:
        """Call `observer` with the arguments of each call from now on."""
        self._observers.append(observer)
        if self._wrapper is None:
            self._original = original = getattr(self._owner, self._name)
            observers = self._observers

            @functools.wraps(original)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                for each in tuple(observers):
                    each(*args, **kwargs)
                return original(*args, **kwargs)

            self._wrapper = wrapper
            setattr(self._owner, self._name, wrapper)

    def remove(self, observer: Observer) -> None:
        """Call `observer` no more."""
        if observer in self._observers:
            self._observers.remove(observer)
        if not self._observers and self._wrapper is not None and self._now() is self._wrapper:
            setattr(self._owner, self._name, self._original)
            self._wrapper = self._original = None

    def _now(self) -> Any:
        return vars(self._owner).get(self._name)


@functools.cache
def clip_tap() -> Tap | None:
    """Where every clipping of a norm passes with the norm before it; None for a torch that has no such place.

    `clip_grad_norm_` may have been imported by name, so its inside is tapped and not the name.
    """
    import torch.nn.utils.clip_grad as module

    return Tap(module, "_clip_grads_with_norm_") if hasattr(module, "_clip_grads_with_norm_") else None


@functools.cache
def scaler_tap() -> Tap:
    """Where every loss scaler passes at the end of a step."""
    from torch.amp import GradScaler

    return Tap(GradScaler, "update")


@dataclass(slots=True)
class Clip:
    """One clipping: whose gradients, and to which norm; the norm before it is on the device."""

    parameters: frozenset[int]
    limit: float
    norm: Any


@dataclass(slots=True)
class Clipping:
    """The clippings of the watched parameters: how many since they were last told, and those of the step to record."""

    owns: Callable[[Any], bool]
    detailed: bool = True
    calls: int = 0
    clips: dict[frozenset[int], Clip] = field(default_factory=dict)
    _norms: dict[tuple[Any, float], list[Any]] = field(default_factory=dict)
    _hits: dict[tuple[Any, float], Any] = field(default_factory=dict)

    def observe(self, parameters: Any, max_norm: float, total_norm: Any, *_: Any, **__: Any) -> None:
        """Note one call of `_clip_grads_with_norm_`. A norm spread over processes is none yet, and left out."""
        import torch

        listed = [parameters] if isinstance(parameters, torch.Tensor) else parameters
        if not isinstance(listed, (list, tuple)) or not listed or not self.owns(listed[0]):
            return
        if hasattr(total_norm, "to_local") or not isinstance(total_norm, torch.Tensor):
            return
        limit = float(max_norm)
        self.calls += 1
        norms = self._norms.setdefault((total_norm.device, limit), [])
        norms.append(total_norm.detach())
        if len(norms) >= _KEPT:
            self._fold()
        if self.detailed:
            whose = frozenset(map(id, listed))
            self.clips[whose] = Clip(whose, limit, total_norm.detach())

    def _fold(self) -> None:
        import torch

        for key, norms in self._norms.items():
            if norms:
                hits = (torch.stack([norm.reshape(()) for norm in norms]) > key[1]).sum()
                self._hits[key] = self._hits[key] + hits if key in self._hits else hits
        self._norms.clear()

    def tell(self, numbers: Numbers) -> tuple[int, list[Clip]]:
        """Add the norms of the step's clippings and how many calls clipped; start anew. (calls, clippings)."""
        self._fold()
        for key, hits in enumerate(self._hits.values()):
            numbers.add("clipped", [key], hits)
        for key, clip in enumerate(self.clips.values()):
            numbers.add("clip_norm", [key], clip.norm)
        calls, clips = self.calls, list(self.clips.values())
        self.calls = 0
        self.clips.clear()
        self._hits.clear()
        return calls, clips


class Scaling:
    """The loss scale, and the steps that it had skipped because a gradient was not finite."""

    def __init__(self, optimizers: Callable[[], Iterable[Any]], scaler: Any, skipped: Callable[[], None]) -> None:
        self._optimizers, self._skip = optimizers, skipped
        self._only = scaler is not None
        self.scaler = scaler
        #: Skipped steps that the host knows of, and a number on the device of those that only it knows.
        self.skipped = 0
        self._on_device: Any = None
        self.stepped: set[int] = set()

    def observe(self, scaler: Any, *_: Any, **__: Any) -> None:
        """Note one `update`, before it: which optimizers had a step, and which of them were skipped."""
        if (self._only and scaler is not self.scaler) or not scaler.is_enabled():
            return
        states = scaler._per_optimizer_states
        mine = [optimizer for optimizer in self._optimizers() if id(optimizer) in states]
        if not mine:
            return
        self.scaler = scaler
        not_taken = False
        for optimizer in mine:
            state = states[id(optimizer)]
            if id(optimizer) not in self.stepped:
                not_taken = not_taken or state["stage"].name == "STEPPED"
            elif getattr(optimizer, "_step_supports_amp_scaling", False):
                self._add(state["found_inf_per_device"].values())
        self.stepped.clear()
        if not_taken:
            self.skipped += 1
            self._skip()

    def _add(self, found: Iterable[Any]) -> None:
        """A fused optimizer decides on the device whether its step is taken, and so is it counted there."""
        flags = [flag.reshape(()) for flag in found]
        if flags:
            device = flags[0].device
            hit = sum((flag.to(device, non_blocking=True) for flag in flags[1:]), flags[0]) > 0
            self._on_device = hit.float() if self._on_device is None else self._on_device + hit

    def tell(self, numbers: Numbers) -> int | None:
        """Add the scale and the device's count; the host's count of skipped steps, None where nothing is scaled."""
        scale = getattr(self.scaler, "_scale", None)
        if self.scaler is None or not self.scaler.is_enabled():
            return None
        if scale is not None:
            # A copy: `update` changes it in place, before the numbers of this step are fetched.
            numbers.add("amp_scale", [0], scale.clone())
        if self._on_device is not None:
            numbers.add("amp_skipped", [0], self._on_device)
        return self.skipped


def is_tracing() -> bool:
    """Whether torch.compile is reading the code instead of running it, or a CUDA graph is being captured."""
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling():
        return True
    return bool(torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())
