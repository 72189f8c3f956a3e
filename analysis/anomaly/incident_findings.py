"""Incidents put into words: kind, severity, message, evidence, causes and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.anomaly.incident_causes import causes_of, is_planned
from analysis.anomaly.incidents import Incident
from analysis.anomaly.log_series import Series
from analysis.findings import Finding, Severity

__all__ = ["finding_of", "summary_of"]

#: A rise that stays at or above this factor has lost what training had reached.
_LOST = 2.0
#: Rows within which a spike is called quickly recovered.
_FAST = 5
_TRY = {
    "spike": (
        "look at the batch of that step",
        "clip gradients to their usual norm",
        "lower the learning rate or lengthen its warmup",
    ),
    "jump": (
        "resume from a checkpoint before the first step named",
        "compare configuration and data on both sides of it",
        "lower the learning rate",
    ),
    "drop": ("nothing, if a learning-rate decay or a new phase was planned there",),
}
_TRY["hump"], _TRY["climb"] = _TRY["spike"], _TRY["jump"]
_KINDS = {
    "spike": "loss-spike",
    "hump": "loss-spike",
    "jump": "level-shift",
    "drop": "level-shift",
    "climb": "divergence",
}


def finding_of(
    incident: Incident,
    context: Sequence[Series],
    *,
    main: bool,
    count: int,
    threshold: float,
    window: int,
    scale: str,
) -> Finding:
    """The finding of one incident.

    A spike is a warning; a loss that jumps and stays is a warning, from twice its level on critical; one that climbs
    and does not come back is critical. Changes that the learning rate or a weight explains, drops, and rises of a
    component beside a main loss (`main` False) are information.
    """
    first, last = incident.steps
    return Finding(
        _KINDS[incident.shape],
        _severity(incident, main, is_planned(incident, context)),
        "",
        _message(incident),
        metric=incident.series.metric,
        first_step=first,
        last_step=last,
        evidence={
            "split": incident.series.split,
            "rank": incident.series.rank,
            "value": incident.value,
            "expected": incident.expected,
            "lower": incident.lower,
            "upper": incident.upper,
            "factor": incident.factor,
            "score": incident.score,
            "threshold": threshold,
            "window": window,
            "n": count,
            "rows": incident.rows,
            "recovery_steps": _recovery_steps(incident),
            "recovery": _recovery(incident),
            "scale": scale,
            "also_in": ", ".join(incident.others),
        },
        causes=causes_of(incident, context),
        suggestions=_TRY[incident.shape],
    )


def summary_of(rest: Sequence[Incident]) -> Finding:
    """One finding for the incidents of a metric beyond the handful that are told one by one."""
    first, last = rest[0].steps[0], rest[-1].steps[1]
    worst = max(rest, key=lambda i: i.score)
    metric = worst.series.metric
    return Finding(
        "loss-spike",
        "warning",
        "",
        f"{metric} has {len(rest)} more spikes between steps {first} and {last}, up to {worst.factor:.3g} times what "
        "was expected",
        metric=metric,
        first_step=first,
        last_step=last,
        evidence={"count": len(rest), "value": worst.value, "expected": worst.expected, "score": worst.score},
        causes=("spikes that keep coming point to the learning rate or to bad data rather than to one batch",),
        suggestions=_TRY["spike"],
    )


def _severity(incident: Incident, main: bool, planned: bool) -> Severity:
    if incident.shape == "drop":
        return "info"
    if incident.shape == "spike":
        return "warning"
    if planned and not (incident.shape == "climb" and incident.factor >= _LOST):
        return "info"
    if not main:
        return "info"
    if incident.shape == "climb" or (incident.shape == "jump" and incident.factor >= _LOST):
        return "critical"
    return "warning"


def _recovery(incident: Incident) -> str:
    if incident.recovery is None:
        return "never"
    return "fast" if incident.recovery <= _FAST else "slow"


def _recovery_steps(incident: Incident) -> int | None:
    if incident.recovery is None:
        return None
    first = incident.first
    back = min(first + incident.recovery, incident.series.frame.height - 1)
    start, end = incident.series.step_at(first), incident.series.step_at(back)
    return incident.recovery if start is None or end is None else end - start


def _message(incident: Incident) -> str:
    name = f"{incident.series.split} {incident.series.metric}".strip()
    first, last = incident.steps
    times = "" if math.isnan(incident.factor) else f", {incident.factor:.3g} times as high"
    levels = f"{incident.expected:.4g} to {incident.value:.4g}"
    if incident.shape == "spike":
        steps = _recovery_steps(incident)
        back = "and had not come back when the log ends" if steps is None else f"and was back after {steps} steps"
        if steps == 1:
            back = "and was back at the next step"
        return (
            f"{name} leapt to {incident.value:.4g} at step {first} where {incident.expected:.4g} was due{times}, {back}"
        )
    if incident.shape == "hump":
        return f"{name} rose from {levels} from step {first} on{times}, and came back by step {last}"
    if incident.shape == "jump":
        return f"{name} jumped from {levels} at step {first}{times}, and stayed there to the end"
    if incident.shape == "drop":
        return f"{name} dropped from {levels} at step {first} and stayed there"
    return f"{name} climbed from {levels} from step {first} to the end{times}"
