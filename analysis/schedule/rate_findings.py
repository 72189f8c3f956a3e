"""From what was judged of each learning rate to findings: one for all groups of parameters that share a fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.findings import Finding, Severity
from analysis.kinds import KINDS
from analysis.limits import Limits
from analysis.schedule.compared import Compared
from analysis.schedule.explanations import CANNOT_TELL, Explanation
from analysis.schedule.face import Fault
from analysis.schedule.observed import Observed
from analysis.schedule.rates import Rate
from analysis.schedule.words import slightly_late
from parsers.run import Run

__all__ = ["KIND", "Judged", "findings_of"]

KIND = "lr-schedule"
#: Ten times the planned peak is beyond what any optimiser forgives: the usual search for a rate goes in factors of 3.
_FAR_ABOVE = 10.0
#: A difference on fewer of the records is information, unless it is the warm-up, which is short and matters.
_PART = 0.01
#: The formula of a library may count from 1 where the log counts from 0 and writes the rate a step late.
_OFF_BY = 2.5
#: Factors that are the same for all groups of parameters.
_ALIKE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One learning rate: as observed, beside its plan (None without one), the explanation, and faults on its face."""

    rate: Rate
    observed: Observed
    compared: Compared | None = None
    explanation: Explanation | None = None
    faults: tuple[Fault, ...] = ()
    note: str = ""

    @property
    def deviation(self) -> float | None:
        """The number that is judged: the largest distance from the plan, or the size of a fault on its face."""
        if self.compared is None and len(self.rate.values) < 2 and not self.faults:
            return None
        worst = 0.0 if self.compared is None else float(self.compared.apart.max(initial=0.0))
        return max([worst, *(fault.size for fault in self.faults)])


def findings_of(run: Run, judged: Sequence[Judged], limits: Limits, *, declared: bool) -> list[Finding]:
    """The findings, groups of parameters with the same fault together. `declared`: a person wrote the plan."""
    found: dict[tuple[str, Severity, int | None], list[tuple[Judged, Finding]]] = {}
    for one in judged:
        for name, finding in _of_one(run, one, judged, limits, declared):
            found.setdefault((name, finding.severity, finding.first_step), []).append((one, finding))
    return [_together([finding for _, finding in group]) for group in found.values()]


def _together(findings: list[Finding]) -> Finding:
    """The finding of the series that is farthest off, saying how many others share it."""
    worst = max(findings, key=lambda one: float(one.evidence.get(_measure(), 0.0) or 0.0))
    if len(findings) == 1:
        return worst
    others = [str(one.metric) for one in findings if one is not worst]
    also = f" (so {'do' if len(others) > 1 else 'does'} {', '.join(others[:3])}{', ...' if len(others) > 3 else ''})"
    return Finding(
        worst.kind,
        worst.severity,
        worst.run,
        worst.message + also,
        metric=worst.metric,
        first_step=worst.first_step,
        last_step=worst.last_step,
        evidence={**worst.evidence, "series": len(findings)},
        causes=worst.causes,
        suggestions=worst.suggestions,
    )


def _measure() -> str:
    limit = KINDS[KIND].limit
    assert limit is not None
    return limit.measure


def _of_one(
    run: Run, one: Judged, judged: Sequence[Judged], limits: Limits, declared: bool
) -> Iterator[tuple[str, Finding]]:
    limit = limits.of(KIND, one.rate.metric)
    if one.explanation is not None and one.compared is not None:
        severity = _severity(one, one.compared, one.explanation, judged, limit, declared)
        if severity is not None:
            yield one.explanation.name, _deviation(run, one, one.compared, one.explanation, severity, limit)
    elif one.compared is not None and float(one.compared.apart.max(initial=0.0)) >= limit and not _is_zero(one):
        yield "single-record", _single(run, one, one.compared, limit)
    for fault in one.faults:
        told = fault.name == "zero-tail" and one.explanation is not None  # the deviation says it with its reason
        if fault.size >= limit and not told:
            yield fault.name, _on_face(run, one, fault, limit)


def _is_zero(one: Judged) -> bool:
    return any(fault.name == "zero" for fault in one.faults)


def _single(run: Run, one: Judged, compared: Compared, limit: float) -> Finding:
    """Records that depart alone: the one farthest off, and how many there are."""
    rate, at = one.rate, int(compared.apart.argmax())
    rows = np.flatnonzero(compared.apart >= limit)
    times = float(rate.values[at]) / compared.schedule.peak
    more = f" ({len(rows)} such records, never two in a row)" if len(rows) > 1 else ""
    message = (
        f"{rate.name} is {rate.values[at]:.3g} at {rate.axis} {rate.steps[at]:,.0f} where {compared.planned[at]:.3g} is"
        f" planned, and as planned before and after{more}"
    )
    return Finding(
        KIND,
        "warning" if times >= _FAR_ABOVE else "info",
        run.name,
        message,
        metric=rate.metric,
        first_step=rate.step_at(at),
        last_step=rate.step_at(at),
        evidence={
            _measure(): float(compared.apart[at]),
            "limit": limit,
            "explanation": "single-record",
            "records": len(rows),
            "observed_rate": float(rate.values[at]),
            "planned_rate": float(compared.planned[at]),
            "planned_peak": compared.schedule.peak,
        },
        causes=(
            "the rate was changed for one step by hand or by a rule of its own: its neighbours are as planned",
            "the record is damaged, or was written by another process",
        ),
        suggestions=("look at the loss and the gradient norm at that step", "search the code for what sets the rate"),
    )


def _severity(
    one: Judged, compared: Compared, why: Explanation, judged: Sequence[Judged], limit: float, declared: bool
) -> Severity | None:
    """How severe a deviation is; None where it is none: layer-wise rates beside a group that follows the plan."""
    others = [other for other in judged if other is not one and other.compared is not None]
    kept = any(other.compared is not None and other.compared.worst < limit for other in others)
    if kept:
        return None if why.name == "wrong-peak" else "info"
    if why.name == "wrong-peak" and others and not _one_factor([one, *others]):
        return "info"
    if float((compared.apart >= _FAR_ABOVE - 1).mean()) >= _PART and _above(one.rate, compared):
        return "critical"
    if not declared and (why.name == CANNOT_TELL.name or _in_epochs(one.rate, compared, why)):
        return "info"
    if why.candidate is not None and why.name == "shifted":
        if abs(why.candidate.number) <= _OFF_BY:
            return None
        if slightly_late(why.candidate.number, one.rate):
            return "info"
    return "warning" if compared.share >= _PART or why.name == "no-warmup" else "info"


def _in_epochs(rate: Rate, compared: Compared, why: Explanation) -> bool:
    """Whether lengths of a configuration without a unit are epochs: as steps they would be over early in the run."""
    plan = compared.schedule
    length = plan.end or max((*plan.milestones, plan.step_size or 0.0, plan.first_cycle or 0.0)) * plan.tick
    return why.name == "stepped-per-epoch" and 0 < length < 0.5 * float(rate.steps[-1])


def _one_factor(judged: Sequence[Judged]) -> bool:
    factors = [one.explanation.candidate.number for one in judged if one.explanation and one.explanation.candidate]
    return len(factors) == len(judged) and max(factors) <= min(factors) * (1 + _ALIKE)


def _above(rate: Rate, compared: Compared) -> bool:
    peak = compared.schedule.peak
    return float((rate.values >= _FAR_ABOVE * peak * 0.99).mean()) >= _PART


def _deviation(
    run: Run, one: Judged, compared: Compared, why: Explanation, severity: Severity, limit: float
) -> Finding:
    rate, plan = one.rate, compared.schedule
    away = np.flatnonzero(compared.apart >= 0.01)
    first, last = compared.first if compared.first is not None else int(away[0]), int(away[-1])
    message = (
        f"{rate.name} leaves its planned {plan.name.replace('_', ' ')} schedule: {why.sentence}"
        f" (from {rate.axis} {rate.steps[first]:,.0f} on, by up to {compared.worst:.0%} of the peak {plan.peak:.3g}, in"
        f" {compared.share:.0%} of {len(rate.values):,} records)"
    )
    return Finding(
        KIND,
        severity,
        run.name,
        message,
        metric=rate.metric,
        first_step=rate.step_at(first),
        last_step=rate.step_at(last),
        evidence=_evidence(one, compared, why, first, limit),
        causes=why.causes,
        suggestions=why.suggestions,
    )


def _evidence(
    one: Judged, compared: Compared, why: Explanation, first: int, limit: float
) -> dict[str, float | int | str | bool | None]:
    rate, fitted = one.rate, why.candidate
    return {
        _measure(): one.deviation,
        "limit": limit,
        "lasting": compared.worst,
        "share": compared.share,
        "explanation": why.name,
        "number": None if fitted is None else fitted.number,
        "factor": None if fitted is None else fitted.factor,
        "explained": None if fitted is None else fitted.fit.within,
        "observed_rate": float(rate.values[first]),
        "planned_rate": float(compared.planned[first]),
        "observed_peak": float(rate.values.max()),
        "planned_peak": compared.schedule.peak,
        "planned": compared.schedule.name,
        "observed": one.observed.kind,
    }


def _on_face(run: Run, one: Judged, fault: Fault, limit: float) -> Finding:
    rate = one.rate
    rows = len(rate.values) > 0
    planned = None if one.compared is None else one.compared.schedule.peak
    said = f"; planned were up to {planned:.3g}" if planned and fault.name == "zero" else ""
    return Finding(
        KIND,
        fault.severity,
        run.name,
        f"{rate.name}: {fault.sentence}{said}",
        metric=rate.metric,
        first_step=rate.step_at(fault.first) if rows else None,
        last_step=rate.step_at(fault.last) if rows else None,
        evidence={
            _measure(): fault.size,
            "limit": limit,
            "explanation": fault.name,
            "peak": float(rate.values.max()) if rows else None,
            "planned_peak": planned,
            "observed": one.observed.kind,
        },
        causes=fault.causes,
        suggestions=fault.suggestions,
    )
