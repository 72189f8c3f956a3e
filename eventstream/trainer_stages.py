"""The stages of a Hugging Face Trainer, seen from outside: what each of its methods is given, or gives back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["TrainerStages", "observe_trainer"]

#: Called with the stage, the model (where the stage is given one) and the batch, before the stage runs.
Seen = Callable[[str, Any, Any], None]

#: Method -> the split that it begins; a method that begins none runs inside another.
_SPLITS = {"training_step": "train", "prediction_step": "eval", "compute_loss": ""}
#: Given the batch first, and recorded by what it returns too: it hands no model that would show its work.
_PREPARING = "_prepare_inputs"
_PREPARED = "_prepare_inputs:returned"


def observe_trainer(trainer: Any, seen: Seen) -> TrainerStages:
    """Watch a trainer's stages until `remove`. Arguments and results pass through as they are.

    The methods are covered on the instance and not on its class, so that other trainers are not touched; a subclass,
    whichever signature its release of transformers wants, is called with exactly what it would have been called with.
    """
    return TrainerStages(trainer, seen)


class TrainerStages:
    """Covers of a trainer's methods, and what the trainer is doing at the moment."""

    def __init__(self, trainer: Any, seen: Seen) -> None:
        self._trainer, self._seen, self._split = trainer, seen, ""
        self._before: dict[str, Any] = {}
        self._covers: dict[str, Any] = {}
        for name in _SPLITS:
            self._cover(name, self._given(name, getattr(trainer, name)))
        if hasattr(trainer, _PREPARING):
            self._cover(_PREPARING, self._preparing(getattr(trainer, _PREPARING)))

    def now(self) -> tuple[int, str] | None:
        """Step and split that the trainer is in; None outside of its steps."""
        if not self._split:
            return None
        step = int(self._trainer.state.global_step)
        return (step + 1, "train") if self._split == "train" else (step, self._split)

    def _cover(self, name: str, cover: Any) -> None:
        own = vars(self._trainer)
        if name in own:
            self._before[name] = own[name]
        self._covers[name] = cover
        setattr(self._trainer, name, cover)

    def _given(self, name: str, method: Any) -> Any:
        begins = _SPLITS[name]

        @functools.wraps(method)
        def stage(*args: Any, **kwargs: Any) -> Any:
            if not self._covers:  # taken off while something else covers it
                return method(*args, **kwargs)
            outer = self._split
            self._split = begins or outer
            try:
                self._seen(name, _argument(0, "model", args, kwargs), _argument(1, "inputs", args, kwargs))
                return method(*args, **kwargs)
            finally:
                self._split = outer

        return stage

    def _preparing(self, method: Any) -> Any:
        @functools.wraps(method)
        def stage(*args: Any, **kwargs: Any) -> Any:
            if not self._covers:
                return method(*args, **kwargs)
            self._seen(_PREPARING, None, _argument(0, "inputs", args, kwargs))
            result = method(*args, **kwargs)
            self._seen(_PREPARED, None, result)
            return result

        return stage

    def remove(self) -> None:
        """Put back what stood there; a cover that something else covers stays, and only passes on."""
        own = vars(self._trainer)
        for name, cover in self._covers.items():
            if own.get(name) is not cover:
                continue
            if name in self._before:
                setattr(self._trainer, name, self._before[name])
            else:
                delattr(self._trainer, name)
        self._covers = {}


def _argument(place: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)
