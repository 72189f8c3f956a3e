"""The errors that aftertrain raises: one family, each saying what, where, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AftertrainError",
    "InputError",
    "MissingDependencyError",
    "PlanError",
    "RecordingWarning",
    "unknown_name",
]


class AftertrainError(Exception):
    """Anything that aftertrain refuses to do; catch this to catch them all."""


class InputError(AftertrainError):
    """A path, file or table that cannot be used at all (damage inside a readable file is a reject, not an error)."""


class PlanError(AftertrainError):
    """A plan (curriculum, schedule, loss weights, contract) that does not say what it must."""


class MissingDependencyError(AftertrainError, ImportError):
    """An optional library that a feature needs is not installed; the message holds the line that installs it."""


class RecordingWarning(UserWarning):
    """Something of a run could not be recorded; the training goes on. Given once for each kind of trouble."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Sentence for a name that nobody knows: the nearest known names first, then the others.

    >>> unknown_name("metric", "los", ["grad_norm", "loss"])
    "unknown metric 'los'; did you mean 'loss'? known: loss, grad_norm"
    """
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    ordered = near + [n for n in names if n not in near]
    shown = ", ".join(ordered[:20]) + (f" and {len(ordered) - 20} more" if len(ordered) > 20 else "")
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} known: {shown or 'none'}"
