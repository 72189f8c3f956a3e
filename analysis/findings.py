"""The one form in which every check says what it found, or why it could not look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from analysis.kinds import KINDS
from eventstream.errors import unknown_name
from eventstream.records import strict_number

__all__ = ["SEVERITIES", "Finding", "NotApplicable", "Severity", "Status", "findings_frame", "status_of"]

Severity = Literal["info", "warning", "critical", "fatal"]
Status = Literal["healthy", "warning", "critical"]

#: From harmless to worst; the position is the rank.
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical", "fatal")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a run, with the numbers that say so.

    `kind` is one of `analysis.kinds.KINDS`; `metric` and the steps are None where the finding is about the whole run.
    `evidence` holds plain numbers and short strings; `causes` are ranked, most likely first; `suggestions` stand in
    the order in which to try them.

    >>> Finding("loss-spike", "warning", "exp-7", "loss rose 8 sigma", metric="loss", first_step=4210).family
    'optimisation'
    >>> Finding("loss-spik", "warning", "exp-7", "")
    Traceback (most recent call last):
    ...
    ValueError: unknown finding kind 'loss-spik'; did you mean 'loss-spike'? known: loss-spike, ...
    """

    kind: str
    severity: Severity
    run: str
    message: str
    metric: str | None = None
    first_step: int | None = None
    last_step: int | None = None
    evidence: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    causes: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(unknown_name("finding kind", self.kind, KINDS))
        if self.severity not in SEVERITIES:
            raise ValueError(unknown_name("severity", self.severity, SEVERITIES))

    @property
    def family(self) -> str:
        """The family of the kind, as in the table of kinds."""
        return KINDS[self.kind].family

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it: strict, with NaN and infinities as strings."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "metric": self.metric,
            "first_step": self.first_step,
            "last_step": self.last_step,
            "message": self.message,
            "evidence": {k: strict_number(v) for k, v in self.evidence.items()},
            "causes": list(self.causes),
            "suggestions": list(self.suggestions),
        }


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A kind that could not be looked for in this run, and the reason."""

    kind: str
    reason: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(unknown_name("finding kind", self.kind, KINDS))

    def to_dict(self) -> dict[str, str]:
        """The verdict as JSON has it."""
        return {"kind": self.kind, "reason": self.reason}


def status_of(findings: Iterable[Finding]) -> Status:
    """`critical` for a critical or fatal finding, `warning` for a warning, else `healthy`; info is no blemish.

    >>> status_of([])
    'healthy'
    """
    worst = max((SEVERITIES.index(f.severity) for f in findings), default=0)
    return "critical" if worst >= 2 else "warning" if worst == 1 else "healthy"


def findings_frame(findings: Iterable[Finding]) -> pl.DataFrame:
    """One row a finding: kind, severity, run, metric, first_step, last_step, message; lists of causes, suggestions."""
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "kind": pl.String,
        "severity": pl.String,
        "run": pl.String,
        "metric": pl.String,
        "first_step": pl.Int64,
        "last_step": pl.Int64,
        "message": pl.String,
        "causes": pl.List(pl.String),
        "suggestions": pl.List(pl.String),
    }
    rows = [
        (f.kind, f.severity, f.run, f.metric, f.first_step, f.last_step, f.message, list(f.causes), list(f.suggestions))
        for f in findings
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")
