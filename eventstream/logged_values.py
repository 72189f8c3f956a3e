"""What a framework hands its loggers, sorted: numbers by the split they belong to, step and epoch, texts apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from eventstream.recorder import Recorder

__all__ = ["Logged", "names_split"]

_WORDS = "train|training|eval|evaluation|val|valid|validation|dev|test"
_NAMED = re.compile(rf"^(?:{_WORDS})[/._:\- ].|.[/._:\- ](?:{_WORDS})$", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=65536)
def names_split(name: object) -> bool:
    """Whether a name says itself which split it is of; readers then need not be told, and may not be told otherwise.

    >>> [names_split(name) for name in ("val_loss", "loss/train", "loss", "lr-AdamW", "retrieval", "test")]
    [True, True, False, False, False, False]
    """
    return isinstance(name, str) and _NAMED.search(name) is not None


@dataclass(slots=True)
class Logged:
    """One call of a logger, taken apart.

    `metrics` may hold numbers, tensors, texts and mappings of them, whose names are joined by `/`. `step` and `epoch`
    among them belong to the record, not to its values; a step that the caller gives besides counts more.

    >>> logged = Logged.of({"loss": 0.5, "acc": {"top1": 0.1}, "epoch": 2, "host": "n1"}, step=7)
    >>> logged.numbers, logged.texts, logged.step, logged.epoch
    ({'loss': 0.5, 'acc/top1': 0.1}, {'host': 'n1'}, 7, 2.0)
    """

    numbers: dict[Any, Any] = field(default_factory=dict)
    texts: dict[Any, str] = field(default_factory=dict)
    step: Any = None
    epoch: Any = None

    @classmethod
    def of(cls, metrics: Mapping[Any, Any], step: Any = None) -> Logged:
        """The parts of `metrics`."""
        logged = cls(step=step)
        for name, value in _flat(metrics):
            if name == "epoch":
                logged.epoch = float(value) if isinstance(value, int) else value
            elif name == "step":
                logged.step = value if logged.step is None else logged.step
            elif isinstance(value, str):
                logged.texts[name] = value
            else:
                logged.numbers[name] = value
        return logged

    def record(self, recorder: Recorder, split: str = "", *, always: bool = False) -> None:
        """Write the numbers; `split` is that of the names that tell none, or of all of them with `always`."""
        if not split or always or not any(map(names_split, self.numbers)):
            if self.numbers:
                recorder.log(self.step, self.numbers, split=split, epoch=self.epoch)
        else:
            named = {name: value for name, value in self.numbers.items() if names_split(name)}
            others = {name: value for name, value in self.numbers.items() if name not in named}
            for values, of in ((named, ""), (others, split)):
                if values:
                    recorder.log(self.step, values, split=of, epoch=self.epoch)
        if self.texts:
            recorder.event("texts", self.texts, step=self.step, split=split, epoch=self.epoch)


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[Any, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield (f"{prefix}{name}" if prefix else name), value
