"""Which parameter an optimizer's state belongs to: told by names, or by the only way in which the shapes fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parsers.checkpoints.side_values import Value

__all__ = ["Group", "Parameter", "groups_of", "in_any_order", "in_order"]

_LISTED = re.compile(r"(?:(?P<owner>.+)\.)?param_groups\.(?P<group>\d+)\.(?P<kind>params|param_names)\.(?P<at>\d+)")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the model that an optimizer may have been given."""

    name: str
    shape: Shape


@dataclass(slots=True)
class Group:
    """One group of an optimizer: the numbers of its parameters in their order, and the names where they were saved."""

    numbers: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def order(self) -> list[int]:
        """The numbers of the parameters, as the group lists them."""
        return [self.numbers[at] for at in sorted(self.numbers)]

    @property
    def named(self) -> dict[int, str]:
        """Number of a parameter -> its name, for those that have one (torch 2.6 and later, where names were given)."""
        return {self.numbers[at]: name for at, name in self.names.items() if at in self.numbers}


def groups_of(values: Mapping[str, Value]) -> dict[str, list[Group]]:
    """The groups of each optimizer of a checkpoint, by the optimizer's path, out of its `param_groups`.

    >>> groups_of({"optim.param_groups.0.params.0": 0, "optim.param_groups.0.params.1": 1})["optim"][0].order
    [0, 1]
    """
    found: dict[str, dict[int, Group]] = defaultdict(lambda: defaultdict(Group))
    for key, value in values.items():
        match = _LISTED.fullmatch(key)
        if match is None:
            continue
        group = found[match["owner"] or ""][int(match["group"])]
        if match["kind"] == "params" and type(value) is int:
            group.numbers[int(match["at"])] = value
        elif match["kind"] == "param_names" and isinstance(value, str):
            group.names[int(match["at"])] = value
    return {owner: [groups[number] for number in sorted(groups)] for owner, groups in found.items()}


def in_order(groups: Sequence[Sequence[Shape | None]], model: Sequence[Parameter]) -> list[list[str]]:
    """The parameter of each place of each group, empty where the shapes leave a choice.

    Optimizers are given parameters in the model's order (`model.parameters()`, or a part of them in each group), so a
    group's shapes (None where the optimizer has no state yet) are a subsequence of the model's. A place is told where
    the first and the last way to lay that subsequence are the same there. What one group is sure of, no other has.
    Groups that are no such subsequence are judged by `in_any_order`.

    >>> model = [Parameter("a", (2,)), Parameter("b", (3,)), Parameter("c", (2,)), Parameter("d", (3,))]
    >>> in_order([[(2,), (3,), (2,)]], model), in_order([[(2,), (3,)]], model)
    ([['a', 'b', 'c']], [['', '']])
    """
    found: list[list[str]] = [[""] * len(group) for group in groups]
    taken: dict[str, int] = {}
    while True:
        before = len(taken)
        for number, group in enumerate(groups):
            free = [one for one in model if taken.get(one.name, number) == number]
            for place, name in enumerate(_only_way(group, free)):
                if name:
                    found[number][place] = name
                    taken[name] = number
        if len(taken) == before:
            break
    shapes = [one.shape for one in model]
    if all(_laid(group, shapes) is not None for group in groups):
        return found
    return _with_strays(groups, found, model)


def _with_strays(
    groups: Sequence[Sequence[Shape | None]], found: list[list[str]], model: Sequence[Parameter]
) -> list[list[str]]:
    """Groups with parameters out of their order (`[*net.parameters(), scale]`): those first, then what is left."""
    told = {name for names in found for name in names if name}
    loose = in_any_order(groups, [one for one in model if one.name not in told])
    for names, apart in zip(found, loose, strict=True):
        names[:] = [name or other for name, other in zip(names, apart, strict=True)]
    told = {name for names in found for name in names if name}
    free = [one for one in model if one.name not in told]
    for group, names in zip(groups, found, strict=True):
        open_places = [place for place, name in enumerate(names) if not name]
        for place, name in zip(open_places, _only_way([group[place] for place in open_places], free), strict=True):
            names[place] = name
    return found


def _only_way(group: Sequence[Shape | None], model: Sequence[Parameter]) -> list[str]:
    first = _laid(group, [one.shape for one in model])
    last = _laid(group[::-1], [one.shape for one in reversed(model)])
    if first is None or last is None:
        return [""] * len(group)
    ends = [len(model) - 1 - at for at in reversed(last)]
    return [model[one].name if one == other else "" for one, other in zip(first, ends, strict=True)]


def _laid(group: Sequence[Shape | None], shapes: Sequence[Shape]) -> list[int] | None:
    """The earliest places at which a group's shapes stand in this order, None where they do not."""
    places: list[int] = []
    at = 0
    for shape in group:
        while at < len(shapes) and shape is not None and shapes[at] != shape:
            at += 1
        if at == len(shapes):
            return None
        places.append(at)
        at += 1
    return places


def in_any_order(groups: Sequence[Sequence[Shape | None]], model: Sequence[Parameter]) -> list[list[str]]:
    """The same where the order of `model` is not the model's own, as safetensors sort by name.

    Told is then only what one group holds all of: as many places of a shape as the model has parameters of it, whose
    names differ in one number (`layers.0.mlp.down_proj`, `layers.1.mlp.down_proj`), by which they stand in order.

    >>> model = [Parameter("h.10.w", (2, 3)), Parameter("h.2.w", (2, 3)), Parameter("a", (4,)), Parameter("b", (4,))]
    >>> in_any_order([[(2, 3), (4,), (2, 3), (4,)]], model)
    [['h.2.w', '', 'h.10.w', '']]
    """
    found: list[list[str]] = [[""] * len(group) for group in groups]
    of_shape: dict[Shape, list[str]] = defaultdict(list)
    for one in model:
        of_shape[one.shape].append(one.name)
    for shape, names in of_shape.items():
        holders = [
            (number, place) for number, group in enumerate(groups) for place, one in enumerate(group) if one == shape
        ]
        if len(holders) != len(names) or len({number for number, _ in holders}) != 1 or not _one_template(names):
            continue
        for (number, place), name in zip(holders, sorted(names, key=_numbers), strict=True):
            found[number][place] = name
    return found


def _one_template(names: Sequence[str]) -> bool:
    """Whether names differ in one number alone."""
    if len({re.sub(r"\d+", "#", name) for name in names}) != 1:
        return False
    return sum(len(set(numbers)) > 1 for numbers in zip(*map(_numbers, names), strict=True)) <= 1


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits[:15]) for digits in re.findall(r"\d+", name))
