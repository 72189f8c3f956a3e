"""Names of learning-rate schedules, as libraries and people write them, to the few that a plan knows."""

from __future__ import annotations

import re

__all__ = ["CARRIERS", "schedule_named"]

#: Words of a name that say nothing about its form.
_EMPTY_WORDS = (
    "lr learning rate scheduler schedule schedulers sched annealing annealed decay get lambda type policy torch optim "
    "hard min reduce on up down half single func function with fn style"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
#: Schedules that only hold another one, which is named elsewhere or not at all.
CARRIERS = frozenset({"lambda", "lambdalr", "sequentiallr", "chainedscheduler", "multiplicativelr"})
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
#: What a name is where its words without the empty ones (and without `warmup`) are these.
_FORMS: dict[frozenset[str], str] = {
    frozenset(words.split()): form
    for words, form in {
        "constant": "constant", "none": "constant", "fixed": "constant", "off": "constant", "flat": "constant",
        "linear": "linear", "cosine": "cosine", "cos": "cosine", "exponential": "exponential", "exp": "exponential",
        "cosine restarts": "cosine_with_restarts", "cosine warm restarts": "cosine_with_restarts",
        "cosine restart": "cosine_with_restarts", "sgdr": "cosine_with_restarts",
        "polynomial": "polynomial", "poly": "polynomial", "step": "step", "multi step": "multistep",
        "multistep": "multistep", "one cycle": "onecycle", "onecycle": "onecycle", "1 cycle": "onecycle",
        "inverse sqrt": "inverse_sqrt", "inverse square root": "inverse_sqrt", "rsqrt": "inverse_sqrt",
        "inv sqrt": "inverse_sqrt", "plateau": "plateau", "wsd": "wsd", "stable": "wsd",
    }.items()
}  # fmt: skip
#: Full names whose words mislead.
_WHOLE = {
    "constant_with_warmup": "constant_with_warmup", "get_linear_schedule_with_warmup": "linear",
    "linear_with_warmup": "linear", "linear_schedule_with_warmup": "linear", "warmup_linear": "linear",
    "linear_warmup_decay": "linear", "linear_warmup_linear_decay": "linear",
}  # fmt: skip
#: Names that say how it begins, or that differ between libraries in what follows.
_OPEN = frozenset(
    {"constantlr", "linear_warmup", "warmup", "warmup_lr", "warmuplr", "warmupdecaylr", "linearlr", "linear_lr"}
)


def schedule_named(given: str) -> str | None:
    """The schedule that a name means; None where it is not known, or could mean two.

    A path counts by its last part: `torch.optim.lr_scheduler.CosineAnnealingLR`, `SchedulerType.LINEAR`.

    >>> [schedule_named(n) for n in ("CosineAnnealingWarmRestarts", "SchedulerType.LINEAR", "warmup_cosine", "noam")]
    ['cosine_with_restarts', 'linear', 'cosine', None]
    """
    last = re.split(r"[.:/]", given.strip())[-1]
    plain = last.lower().replace("-", "_").replace(" ", "_")
    if plain in _WHOLE:
        return _WHOLE[plain]
    if plain in _OPEN or plain in CARRIERS or len(plain) > 80:
        return None
    words = [word.lower() for word in _WORDS.findall(last)]
    warm = {"warmup", "warm"} & set(words) != set() and not {"restarts", "restart"} & set(words)
    kept = frozenset(
        word for word in words if word not in _EMPTY and word not in ("warmup", *(("warm",) if warm else ()))
    )
    warm = warm or "warmup" in words
    if warm and kept >= {"linear"} and len(kept) > 1:
        kept -= {"linear"}  # linear_warmup_cosine: the first word is about the warm-up
    form = _FORMS.get(kept - ({"up"} if warm else set()))
    return "constant_with_warmup" if form == "constant" and warm else form
