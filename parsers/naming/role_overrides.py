"""What the user says about roles: names or patterns of metrics, and what they are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from eventstream.errors import unknown_name
from parsers.naming.primary_roles import PRIMARY
from parsers.naming.role_layout import SeriesRole
from parsers.naming.roles import ROLES

__all__ = ["OTHER", "SETTABLE", "Override", "overridden", "overrides_of", "unmatched"]

#: The word for a series that is nothing of all that.
OTHER = "other"
#: What a series can be said to be.
SETTABLE = (*dict.fromkeys([*PRIMARY, *ROLES]), OTHER)
#: Side of the losses that can be named as the one of their kind.
_SIDES = {"train_loss": "train", "eval_loss": "eval"}


@dataclass(frozen=True, slots=True)
class Override:
    """One decision of the user: the series that `pattern` names are `role`; `said` is where that was said."""

    pattern: str
    role: str
    said: str = "by the user"

    def names(self, one: SeriesRole) -> int:
        """2 where the pattern is the name of a series, 1 where it is a glob that fits, else 0.

        Names are the metric, the tag, and split and metric as `train/loss` and `train_loss`.
        """
        spelt = {one.metric, one.tag, f"{one.split}/{one.metric}", f"{one.split}_{one.metric}"}
        if self.pattern in spelt:
            return 2
        return int(any(fnmatchcase(name, self.pattern) for name in (one.metric, one.tag, f"{one.split}/{one.metric}")))


def overrides_of(roles: Mapping[str, str], said: str = "by the user") -> tuple[Override, ...]:
    """The decisions in a mapping of names or globs to roles; an unknown role raises `ValueError` with the known ones.

    >>> overrides_of({"my_*": "los"})
    Traceback (most recent call last):
    ...
    ValueError: 'my_*': unknown role 'los'; did you mean 'loss'? known: loss, train_loss, ...
    """
    for pattern, role in roles.items():
        if not isinstance(pattern, str) or not isinstance(role, str):
            raise ValueError(f"roles maps names of metrics to roles, both text, not {pattern!r} to {role!r}")
        if role not in SETTABLE:
            raise ValueError(f"{pattern!r}: {unknown_name('role', role, SETTABLE)}")
    return tuple(Override(pattern, role, said) for pattern, role in roles.items())


def overridden(series: Sequence[SeriesRole], overrides: Sequence[Override]) -> list[SeriesRole]:
    """The series as the user says they are: a name goes before a glob, of two alike the later.

    A name that fits series of training and of eval is, as `train_loss`, that of training, and the other a loss.
    """
    if not overrides:
        return list(series)
    chosen = [_strongest(one, overrides) for one in series]
    there = {(override.pattern, one.side) for one, override in zip(series, chosen, strict=True) if override}
    return [_said(one, override, there) if override else one for one, override in zip(series, chosen, strict=True)]


def _strongest(one: SeriesRole, overrides: Sequence[Override]) -> Override | None:
    fitting = [(override.names(one), place) for place, override in enumerate(overrides)]
    strength, place = max(fitting)
    return overrides[place] if strength else None


def _said(one: SeriesRole, chosen: Override, there: set[tuple[str, str]]) -> SeriesRole:
    side = _SIDES.get(chosen.role, one.side)
    meant = chosen.role in _SIDES and (side == one.side or (chosen.pattern, side) not in there)
    role = "loss" if chosen.role in _SIDES else "" if chosen.role == OTHER else chosen.role
    return replace(
        one,
        role=role,
        side=side if meant else one.side,
        stands_for=chosen.role if meant else "",
        why=f'set {chosen.said}: "{chosen.pattern}" is {chosen.role}',
        by="user",
    )


def unmatched(series: Iterable[SeriesRole], overrides: Iterable[Override]) -> list[str]:
    """A sentence for each decision that names no series, with the nearest names that there are."""
    every = list(series)
    known = list(dict.fromkeys(name for one in every for name in (one.metric, one.tag)))
    return [
        f"roles: {override.pattern!r} names no series{_nearest(override.pattern, known)}"
        for override in overrides
        if not any(override.names(one) for one in every)
    ]


def _nearest(pattern: str, known: list[str]) -> str:
    near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.6)
    listed = ", ".join(sorted(known)[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" there are {listed or 'none'}"
