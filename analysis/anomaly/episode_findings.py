"""Episodes put into words: kind, severity, message, evidence, causes and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.anomaly.episode_causes import LOST, causes_of, is_planned
from analysis.anomaly.episodes import Episode
from analysis.anomaly.log_series import Series
from analysis.findings import Finding, Severity

__all__ = ["finding_of", "kind_of", "summary_of", "times_of"]

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
    episode: Episode,
    context: Sequence[Series],
    *,
    main: bool,
    count: int,
    threshold: float,
    window: int,
    scale: str,
    limit: float,
    phase: str = "",
) -> Finding:
    """The finding of one episode.

    A spike is a warning; a loss that jumps and stays is a warning, from twice its level on critical; one that climbs
    and does not come back is critical. Changes that the learning rate or a weight explains, drops, and rises of a
    component beside a main loss (`main` False) are information; so is all that begins at a planned `phase`, in words.
    """
    first, last = episode.steps
    return Finding(
        _KINDS[episode.shape],
        _severity(episode, main, bool(phase), is_planned(episode, context)),
        "",
        _message(episode),
        metric=episode.series.metric,
        first_step=first,
        last_step=last,
        evidence={
            "split": episode.series.split,
            "rank": episode.series.rank,
            "value": episode.value,
            "expected": episode.expected,
            "lower": episode.lower,
            "upper": episode.upper,
            "factor": episode.factor,
            "times": times_of(episode),
            "limit": limit,
            "score": episode.score,
            "threshold": threshold,
            "window": window,
            "n": count,
            "rows": episode.rows,
            "recovery_steps": _recovery_steps(episode),
            "recovery": _recovery(episode),
            "scale": scale,
            "also_in": ", ".join(episode.others),
        },
        causes=(phase, *causes_of(episode, context)) if phase else causes_of(episode, context),
        suggestions=_TRY[episode.shape],
    )


def summary_of(rest: Sequence[Episode], *, main: bool, limit: float) -> Finding:
    """One finding for the episodes of a metric beyond the handful that are told one by one."""
    first, last = rest[0].steps[0], rest[-1].steps[1]
    worst = max(rest, key=lambda i: i.score)
    metric = worst.series.metric
    return Finding(
        "loss-spike",
        "warning" if main else "info",
        "",
        f"{metric} has {len(rest)} more spikes between steps {first} and {last}, up to {worst.factor:.3g} times what "
        "was expected",
        metric=metric,
        first_step=first,
        last_step=last,
        evidence={
            "count": len(rest),
            "value": worst.value,
            "expected": worst.expected,
            "score": worst.score,
            "times": times_of(worst),
            "limit": limit,
        },
        causes=("spikes that keep coming point to the learning rate or to bad data rather than to one batch",),
        suggestions=_TRY["spike"],
    )


def kind_of(episode: Episode) -> str:
    """The kind of finding that an episode of this shape is."""
    return _KINDS[episode.shape]


def times_of(episode: Episode) -> float:
    """How many times the larger level is the smaller one; NaN where one of them is not positive."""
    factor = episode.factor
    return max(factor, 1.0 / factor) if factor > 0 else float("nan")


def _severity(episode: Episode, main: bool, phase: bool, planned: bool) -> Severity:
    if episode.shape == "drop":
        return "info"
    if phase and episode.shape == "spike":
        return "info"  # new weights leave a loss high until training has followed them
    planned = planned or phase
    if episode.shape == "spike":
        return "info" if not main or (planned and episode.recovery is None) else "warning"
    if planned and not (episode.shape == "climb" and episode.factor >= LOST):
        return "info"
    if not main:
        return "info"
    if episode.shape == "climb" or (episode.shape == "jump" and episode.factor >= LOST):
        return "critical"
    return "warning"


def _recovery(episode: Episode) -> str:
    if episode.recovery is None:
        return "never"
    return "fast" if episode.recovery <= _FAST else "slow"


def _recovery_steps(episode: Episode) -> int | None:
    if episode.recovery is None:
        return None
    first = episode.first
    back = min(first + episode.recovery, episode.series.frame.height - 1)
    start, end = episode.series.step_at(first), episode.series.step_at(back)
    return episode.recovery if start is None or end is None else end - start


def _message(episode: Episode) -> str:
    name = f"{episode.series.split} {episode.series.metric}".strip()
    first, last = episode.steps
    times = "" if math.isnan(episode.factor) else f", {episode.factor:.3g} times as high"
    levels = f"{episode.expected:.4g} to {episode.value:.4g}"
    if episode.shape == "spike":
        steps = _recovery_steps(episode)
        back = "and had not come back when the log ends" if steps is None else f"and was back after {steps} steps"
        if steps == 1:
            back = "and was back at the next step"
        return (
            f"{name} leapt to {episode.value:.4g} at step {first} where {episode.expected:.4g} was due{times}, {back}"
        )
    if episode.shape == "hump":
        return f"{name} rose from {levels} from step {first} on{times}, and came back by step {last}"
    if episode.shape == "jump":
        return f"{name} jumped from {levels} at step {first}{times}, and stayed there to the end"
    if episode.shape == "drop":
        return f"{name} dropped from {levels} at step {first} and stayed there"
    return f"{name} climbed from {levels} from step {first} to the end{times}"
