"""What the lengths of a scheduler count, steps or epochs, as far as a configuration tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from parsers.plans.entries import Entry, number_of
from parsers.plans.names import SCHEDULER
from parsers.plans.values import Reader

__all__ = ["Lengths", "unit_of"]

#: The lengths of each schedule, besides that of its whole.
_OWN = {
    "step": ("lr.step_size", "lr.decay_steps"),
    "multistep": ("lr.milestones",),
    "cosine_with_restarts": ("lr.first_cycle",),
    "exponential": ("lr.decay_steps",),
}
#: A length so much larger than the number of epochs is none of them.
_FAR = 3.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the training is meant to be, as far as the configuration says."""

    max_steps: int | None = None
    epochs: float | None = None
    steps_per_epoch: int | None = None
    where: str = "length of the training"

    @property
    def total(self) -> int | None:
        """Steps of the whole training."""
        if self.max_steps is not None:
            return self.max_steps
        if self.epochs is None or self.steps_per_epoch is None:
            return None
        return round(self.epochs * self.steps_per_epoch)


def unit_of(reader: Reader, lengths: Lengths, schedule: str) -> str | None:
    """`step` or `epoch`; None, and said, where that is open.

    The scheduler may say it (`interval`, `by_epoch`), a name may (`decay_steps`), and so may sizes: what is not larger
    than the number of epochs counts epochs, unless the training is given in steps besides.
    """
    said = _said(reader)
    if said is not None:
        return said
    named = _lengths_of(reader, schedule)
    numbers = [n for entry in named for n in _numbers(entry)]
    if schedule == "exponential" and not numbers:
        for entry in reader.named("lr.gamma")[:1]:
            reader.say(entry, "whether it is applied at every step or epoch is not said; add `interval: epoch`")
        return None
    if not numbers or all("steps" in e.name or e.name.startswith("lr_decay") for e in named):
        return "step"
    if lengths.epochs is None and lengths.max_steps is not None:
        return "step"
    if lengths.epochs is not None:
        longest = max(numbers)
        if longest > _FAR * lengths.epochs or (lengths.total is not None and longest > lengths.epochs):
            return "step"
        if longest <= lengths.epochs and lengths.max_steps is None:
            return "epoch"
    reader.say(named[0], "whether it counts steps or epochs is not said; add `interval: step`, or the plan's `unit`")
    return None


def _said(reader: Reader) -> str | None:
    for entry in reader.entries:
        if entry.below(SCHEDULER) and entry.name == "interval" and entry.value in ("step", "epoch"):
            return str(entry.value)
        if entry.below(SCHEDULER) and entry.name == "by_epoch" and isinstance(entry.value, bool):
            return "epoch" if entry.value else "step"
    return None


def _lengths_of(reader: Reader, schedule: str) -> list[Entry]:
    """The settings that give the lengths of a schedule."""
    own = [entry for key in _OWN.get(schedule, ()) for entry in reader.named(key)]
    whole = [] if own else reader.named("lr.total_steps", scheduler=True)
    return [entry for entry in (*own, *whole) if any(_numbers(entry))]


def _numbers(entry: Entry) -> Iterator[float]:
    for one in entry.value if isinstance(entry.value, list | tuple) else (entry.value,):
        number = number_of(one)
        if number is not None and number > 0:
            yield number
