"""The way of a tensor through the stages that were recorded: where it came in, where it was taken out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Flow", "Way"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a tensor came to a stage: the stage where it came in and that stage's first step with it.

    `held` are the stages on the way that held it, in their order; `removed` is the first stage after an earlier holder
    that was without it, `clean` the last one before `entered`, whose work put it in; both empty where there is none.
    """

    entered: str
    step: int | None
    held: tuple[str, ...]
    removed: str = ""
    clean: str = ""


@dataclass
class Flow:
    """Which input each stage held, per split, with the stages in the order in which they were first recorded.

    >>> flow = Flow()
    >>> for stage, names in (("training_step", ["ids", "labels"]), ("compute_loss", ["ids"]), ("forward", ["ids"])):
    ...     flow.add("train", stage, names, 1)
    >>> flow.taken_out("labels", "forward")
    Way(entered='training_step', step=1, held=('training_step',), removed='compute_loss', clean='')
    """

    #: Split -> stage -> name -> first step.
    stages: dict[str, dict[str, dict[str, int | None]]] = field(default_factory=dict)
    #: Stage -> how often it was called under watch, and with which forbidden names how often.
    calls: dict[str, int] = field(default_factory=dict)
    held: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, split: str, stage: str, names: Iterable[str], step: int | None) -> None:
        """An event of a stage."""
        held = self.stages.setdefault(split, {}).setdefault(stage, {})
        for name in names:
            known = held.get(name)
            held[name] = step if known is None else known if step is None else min(known, step)

    def count(self, stages: Mapping[str, object]) -> None:
        """What a watch counted; counts of several attempts and ranks add up. What has another shape is left out."""
        for stage, counted in stages.items():
            if not isinstance(counted, Mapping) or not isinstance(counted.get("calls"), int):
                continue
            self.calls[stage] = self.calls.get(stage, 0) + counted["calls"]
            held = counted.get("held")
            for name, times in held.items() if isinstance(held, Mapping) else ():
                if isinstance(times, int):
                    self.held[stage, name] = self.held.get((stage, name), 0) + times

    def splits_of(self, name: str, stage: str) -> list[str]:
        """Splits in which a stage held the tensor, the one that held it first at the front."""
        found = [(split, stages[stage][name]) for split, stages in self.stages.items() if name in stages.get(stage, ())]
        return [split for split, _ in sorted(found, key=lambda entry: (entry[1] is None, entry[1] or 0))]

    def way(self, name: str, stage: str) -> Way:
        """How the tensor came to a stage that held it, in the split where it did so first."""
        split = self.splits_of(name, stage)[0]
        order = list(self.stages[split])
        before = order[: order.index(stage)]
        entered = stage
        while before and name in self.stages[split][before[-1]]:
            entered = before.pop()
        return Way(
            entered,
            self.stages[split][entered][name],
            tuple(s for s in order[: order.index(stage) + 1] if name in self.stages[split][s]),
            self._removed(split, name, before),
            before[-1] if before else "",
        )

    def _removed(self, split: str, name: str, stages: list[str]) -> str:
        """The first stage without the tensor after one that held it."""
        held = False
        for stage in stages:
            here = name in self.stages[split][stage]
            if held and not here:
                return stage
            held = held or here
        return ""

    def taken_out(self, name: str, stage: str) -> Way | None:
        """How the tensor was kept from a stage that never held it though an earlier one did; None for no such way.

        `removed` is the stage right after the last that held it.
        """
        for stages in self.stages.values():
            order = list(stages)
            if stage not in stages or self.splits_of(name, stage):
                continue
            before = order[: order.index(stage)]
            held = tuple(s for s in before if name in stages[s])
            if held:
                after = order[order.index(held[-1]) + 1]
                return Way(held[0], stages[held[0]][name], held, after)
        return None

    def names_before(self, stage: str) -> list[str]:
        """Every tensor that some stage before this one held, in the order of appearance."""
        names: dict[str, None] = {}
        for stages in self.stages.values():
            order = list(stages)
            for earlier in order[: order.index(stage)] if stage in stages else ():
                names |= dict.fromkeys(stages[earlier])
        return list(names)
