"""Tensors that are called otherwise in another save: by which rule, and whether they hold the same weights."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import numpy as np

from analysis.weights.matrices import is_real
from analysis.weights.saved import Saved, same_values
from analysis.weights.values import dot, numbers
from parsers.checkpoints.tensors import Tensor

__all__ = ["Renaming", "Rule", "renamings"]

#: Cosine of the matrices from which on they are the same weights, trained on; unrelated ones stay below 0.1.
_CLOSE = 0.5
#: Numbers of a tensor by which it is compared at first.
_SAMPLE = 1 << 16
#: Names from which rules are made, names of one shape that each is held against, rules that are tried, rules in all.
_NAMES, _LIKE, _TRIED, _RULES = 200, 64, 64, 16
#: Pairs by whose values one of several rules is chosen.
_LOOKED_AT = 8

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Parts of a dotted name that are replaced by others, in their order; an empty first one stands before the name.

    >>> Rule(((("encoder",), ("enc",)),)).of("model.encoder.fc.weight"), Rule((((), ("net",)),)).of("fc.weight")
    ('model.enc.fc.weight', 'net.fc.weight')
    """

    edits: tuple[tuple[Tokens, Tokens], ...]

    def of(self, name: str) -> str | None:
        """The new name; None where a part does not occur in it."""
        tokens, made, at = tuple(name.split(".")), [], 0
        for old, new in self.edits:
            places = range(at, len(tokens) - len(old) + 1)
            place = next((n for n in places if tokens[n : n + len(old)] == old), None)
            if place is None:
                return None
            made += [*tokens[at:place], *new]
            at = place + len(old)
        return ".".join([*made, *tokens[at:]])

    def __str__(self) -> str:
        return " and ".join(_said(".".join(old), ".".join(new)) for old, new in self.edits)


def _said(old: str, new: str) -> str:
    return f"{old} -> {new}" if old and new else f"{new} put before" if new else f"{old} taken out"


@dataclass(frozen=True, slots=True)
class Renaming:
    """Names before and after, the rules that make one of the other (none: their order alone), and what they hold.

    `cosine` is that of all matrices before with those after, None where there are none; `same` says that all bits are.
    """

    pairs: tuple[tuple[str, str], ...]
    rules: tuple[Rule, ...] = ()
    cosine: float | None = None
    same: bool = False

    @property
    def close(self) -> bool:
        """Whether they hold the same weights, or what training made of them, as far as matrices tell."""
        return self.same or self.cosine is None or self.cosine >= _CLOSE


#: A rule (None: the order alone) and the pairs that it makes.
_Told = tuple[Rule | None, list[tuple[str, str]]]


@dataclass(slots=True)
class _Search:
    """What is still to be paired, by the names' order in the saves."""

    before: Saved
    after: Saved
    lost: dict[str, Tensor]
    new: dict[str, Tensor]
    sizes: dict[tuple[str, str], tuple[float, float, float, bool]] = field(default_factory=dict)
    rules: dict[tuple[str, str], Rule | None] = field(default_factory=dict)

    def fits(self, old: str, new: str | None) -> bool:
        return new in self.new and self.lost[old].shape == self.new[new].shape

    def paired(self, rule: Rule) -> list[tuple[str, str]]:
        """The pairs that a rule makes, each name once."""
        named = {old: new for old in self.lost if (new := rule.of(old)) is not None and self.fits(old, new)}
        return list({new: (old, new) for old, new in named.items()}.values())

    def cosine(self, pairs: Sequence[tuple[str, str]]) -> float | None:
        """Cosine of all matrices of one save with those of the other, by their first numbers; None without any."""
        totals = np.zeros(3)
        for pair in pairs:
            one, two = self.before.weights[pair[0]], self.after.weights[pair[1]]
            if pair not in self.sizes:
                self.sizes[pair] = _sizes(self.before, one, self.after, two)
            if len(one.shape) >= 2:  # gains near 1 and biases near 0 are alike in all models
                totals += self.sizes[pair][:3]
        product, a, b = totals.tolist()
        return product / math.sqrt(a * b) if a > 0 and b > 0 else None

    def same(self, pair: tuple[str, str]) -> bool:
        """Whether two tensors hold the same bits."""
        one, two = self.before.weights[pair[0]], self.after.weights[pair[1]]
        return same_values(self.before.checkpoint, one, self.after.checkpoint, two)

    def rule(self, old: str, new: str) -> Rule | None:
        """The rule that makes one name of the other."""
        if (old, new) not in self.rules:
            self.rules[old, new] = _rule(tuple(old.split(".")), tuple(new.split(".")))
        return self.rules[old, new]

    def take(self, pairs: Sequence[tuple[str, str]]) -> None:
        for old, new in pairs:
            del self.lost[old], self.new[new]


def renamings(before: Saved, after: Saved, lost: Sequence[str], new: Sequence[str]) -> list[Renaming]:
    """How tensors that one save has alone correspond to those that the other has alone: those that hold the same
    weights, and those that hold others; empty where none do.

    Pairs have one shape. They are told by rules, parts of the names that are replaced (`encoder` by `enc`), the one
    that explains most first; one that explains a single tensor, or no more than another one does, counts only where
    the values agree. Where rules leave some, and these have the same shapes in the same order, the order pairs them if
    their values agree.
    """
    search = _Search(
        before,
        after,
        {name: before.weights[name] for name in lost if before.weights[name].elements},
        {name: after.weights[name] for name in new if after.weights[name].elements},
    )
    told = _by_rules(search)
    if search.lost and _shapes(search.lost) == _shapes(search.new):
        rest = list(zip(search.lost, search.new, strict=True))
        if (search.cosine(rest) or 0.0) >= _CLOSE:
            told.append((None, rest))
    groups: dict[bool, list[_Told]] = {True: [], False: []}
    for one in told:
        cosine = search.cosine(one[1])
        groups[cosine is None or cosine >= _CLOSE].append(one)
    return [_renaming(search, group) for group in groups.values() if group]


def _renaming(search: _Search, told: Sequence[_Told]) -> Renaming:
    pairs = tuple(pair for _, made in told for pair in made)
    same = all(search.sizes[pair][3] for pair in pairs) and all(map(search.same, pairs))
    return Renaming(pairs, tuple(rule for rule, _ in told if rule is not None), search.cosine(pairs), same)


def _shapes(tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    return [tensor.shape for tensor in tensors.values()]


def _by_rules(search: _Search) -> list[_Told]:
    told: list[_Told] = []
    while search.lost and search.new and len(told) < _RULES:
        tried = [(rule, search.paired(rule)) for rule in _candidates(search)]
        most = max((len(made) for _, made in tried), default=0)
        if not most:
            break
        # Of rules that explain as many, layers of one shape for other ones, the values choose.
        best = [(search.cosine(made[:_LOOKED_AT]), rule, made) for rule, made in tried if len(made) == most]
        cosine, rule, made = max(best, key=lambda one: -math.inf if one[0] is None else one[0])
        if (most == 1 or len({tuple(made) for *_, made in best}) > 1) and (cosine is None or cosine < _CLOSE):
            break
        told.append((rule, made))
        search.take(made)
    return told


def _candidates(search: _Search) -> list[Rule]:
    """Rules that turn a name into another one of its shape, those that do so most often first."""
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, tensor in search.new.items():
        alike[tensor.shape].append(name)
    found: Counter[Rule] = Counter()
    for old in list(search.lost)[:_NAMES]:
        for new in alike[search.lost[old].shape][:_LIKE]:
            if (rule := search.rule(old, new)) is not None:
                found[rule] += 1
    return [rule for rule, _ in found.most_common(_TRIED)]


def _rule(old: Tokens, new: Tokens) -> Rule | None:
    """What is replaced between the parts that two names have in common; None where these are none."""
    steps = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    if all(step != "equal" for step, *_ in steps):
        return None
    edits = []
    for step, first, last, begin, end in steps:
        if step != "equal":
            a, b = old[first:last], new[begin:end]
            edits.append((a, b) if a or not first else _anchored(old, first, b))
    return Rule(tuple(edits))


def _anchored(old: Tokens, at: int, put_in: Tokens) -> tuple[Tokens, Tokens]:
    """What is put in amid a name, with the part beside it that says where; not with the number of a layer."""
    if old[at - 1].isdecimal() and at < len(old):
        return (old[at],), (*put_in, old[at])
    return (old[at - 1],), (old[at - 1], *put_in)


def _sizes(before: Saved, one: Tensor, after: Saved, two: Tensor) -> tuple[float, float, float, bool]:
    """Product, squares of both norms, and whether all is equal, of the first numbers of two tensors."""
    if not (is_real(one) and is_real(two) and one.layout == two.layout == "strided"):
        return 0.0, 0.0, 0.0, (one.dtype, one.layout) == (two.dtype, two.layout)
    raw = ((before, one), (after, two))
    x, y = (numbers(np.ascontiguousarray(_first(saved, tensor)), tensor) for saved, tensor in raw)
    for saved, tensor in raw:
        saved.checkpoint.release(tensor)
    finite = np.isfinite(x) & np.isfinite(y)
    equal = one.dtype == two.dtype and bool(np.array_equal(x, y, equal_nan=True))
    x, y = x[finite], y[finite]
    return dot(x, y), dot(x, x), dot(y, y), equal


def _first(saved: Saved, tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    values = saved.checkpoint.array(tensor)
    rows = max(_SAMPLE // max(tensor.elements // max(tensor.shape[0], 1), 1), 1) if tensor.shape else 1
    return (values[:rows] if tensor.shape else values).reshape(-1)[:_SAMPLE]
