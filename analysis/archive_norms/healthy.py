"""Which runs of an archive may teach what is normal: a norm must not learn a fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.findings import SEVERITIES, Finding
from analysis.kinds import KINDS, Limit
from analysis.limits import Measure

__all__ = ["Teacher", "refusals", "towards_fault", "worst_of"]

#: A norm stands between a quarter of the default and four times it: a run beyond that teaches no norm but has a fault.
FACTOR = 4.0
#: Robust standard deviations (on the logarithm), and the least factor, by which a run stands out from the others.
_STANDS_OUT, _LEAST = 4.0, 1.5
#: Fewest runs among which one can stand out; among fewer, each with a warning is refused.
_FEWEST = 5
_WARNING = SEVERITIES.index("warning")


@dataclass(frozen=True)
class Teacher:
    """One run as the norms see it: its name, what was found and what was measured, and the roles of its metrics."""

    name: str
    findings: tuple[Finding, ...]
    measures: tuple[Measure, ...]
    roles: Mapping[str, str]
    levels: Mapping[str, float]
    points: int


def towards_fault(limit: Limit, value: float) -> float:
    """A measure as a multiple of the default where larger is nearer to a fault, whichever side the limit is on."""
    ratio = max(value, 0.0) / limit.default
    return ratio if limit.above else 1.0 / max(ratio, 1e-9)


def worst_of(teacher: Teacher, kind: str) -> float | None:
    """The worst measure of a kind in a run, as a multiple of the default; None where it was not measured."""
    limit = KINDS[kind].limit
    found = [towards_fault(limit, m.value) for m in teacher.measures if m.kind == kind] if limit is not None else []
    return max(found, default=None)


def refusals(teachers: Sequence[Teacher]) -> dict[int, str]:
    """Place of each run that teaches nothing -> why: a warning of a kind without a limit; one beyond what any norm may
    allow; one by which the run stands out from the others. What many runs share is their noise, and is learned.
    """
    found: dict[int, str] = {}
    for place, teacher in enumerate(teachers):
        others = [one for other, one in enumerate(teachers) if other != place]
        for finding in teacher.findings:
            if SEVERITIES.index(finding.severity) >= _WARNING and (why := _why(finding, teacher, others)):
                found.setdefault(place, f"{finding.kind}: {finding.message} ({why})")
    return found


def _why(finding: Finding, teacher: Teacher, others: Sequence[Teacher]) -> str:
    mine = worst_of(teacher, finding.kind)
    if mine is None:
        return "no limit would explain it"
    if mine > FACTOR:
        return f"{mine:.3g} times as far as the default limit; a norm may allow {FACTOR:g}"
    theirs = np.array([worst for other in others if (worst := worst_of(other, finding.kind)) is not None])
    if len(theirs) + 1 < _FEWEST:
        return f"{len(theirs) + 1} runs show this kind, too few to tell a fault from their noise"
    logs = np.log(np.maximum(theirs, 1e-3))
    middle = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - middle)))
    if np.log(max(mine, 1e-3)) > middle + max(_STANDS_OUT * spread, float(np.log(_LEAST))):
        return f"the other runs reach {np.exp(middle):.3g} of the default limit, this one {mine:.3g}"
    return ""
