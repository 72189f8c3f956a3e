"""What a judge says of one run, in one form for all judges: ours, plain rules, and other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["COUNTED", "Found", "Told"]

#: The severities from which on a finding counts as an alarm.
COUNTED = ("warning", "critical", "fatal")


@dataclass(frozen=True, slots=True)
class Found:
    """One finding: `name` as its judge calls it, `kinds` any of which it may stand for (none: no kind of ours)."""

    name: str
    severity: str
    message: str
    first_step: int | None = None
    last_step: int | None = None
    metric: str | None = None
    kinds: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is an alarm: a warning or worse."""
        return self.severity in COUNTED


@dataclass(frozen=True, slots=True)
class Told:
    """All that a judge says of one run. `read`: it could read the log; `error`: why not, or what it broke on.

    `unjudged`: kinds that it could not look for, with the reason (ours only). `seconds`: what it took.
    """

    run: str
    read: bool
    found: tuple[Found, ...] = ()
    unjudged: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Told:
        """The inverse of `to_dict`, also after a way through JSON."""
        found = tuple(Found(**{**one, "kinds": tuple(one["kinds"])}) for one in row["found"])
        return cls(**{**row, "found": found})
