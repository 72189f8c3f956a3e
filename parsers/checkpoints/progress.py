"""Step and epoch that a checkpoint itself tells, out of the values beside its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from parsers.checkpoints.side_values import Value

__all__ = ["epoch_of", "step_of"]

#: Names at the top of a checkpoint, the most certain first (Lightning, Hugging Face, nanoGPT, OpenMMLab, fairseq, ...).
_STEPS = (
    "global_step",
    "step",
    "steps",
    "iteration",
    "iterations",
    "iter_num",
    "iter",
    "it",
    "num_updates",
    "num_steps",
    "current_step",
    "training_step",
    "train_step",
    "global_steps",
    "total_steps",
    "step_count",
)
_EPOCHS = ("epoch", "epochs", "current_epoch", "cur_epoch", "epoch_num", "num_epochs")
#: Folders of names in which libraries keep the same: OpenMMLab, fairseq, k-diffusion and others.
_BELOW = ("", "meta.", "state.", "trainer_state.", "train_state.", "progress.", "extra_state.train_iterator.")


def step_of(values: Mapping[str, Value]) -> int | None:
    """The step, None where nothing tells it.

    >>> step_of({"global_step": 1200, "epoch": 3}), step_of({"lr": 0.1})
    (1200, None)
    """
    found = _first(values, _STEPS)
    return None if found is None else int(found)


def epoch_of(values: Mapping[str, Value]) -> float | None:
    """The epoch, None where nothing tells it."""
    return _first(values, _EPOCHS)


def _first(values: Mapping[str, Value], names: tuple[str, ...]) -> float | None:
    for below in _BELOW:
        for name in names:
            value = values.get(below + name)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
                return value
    return None
