"""Regular swings put into words, with what in the run goes round as often."""

from __future__ import annotations

import numpy as np

from analysis.findings import Finding, Severity
from analysis.limits import Gauge
from analysis.settling.rhythms import known_rhythm
from analysis.settling.signal import Signal
from analysis.settling.swings import Swing, clearest_swing
from parsers.run import Run

__all__ = ["swing_findings"]

_KIND = "oscillation"
_TRY = (
    "halve the learning rate: swings at the edge of stability go with it",
    "lower the momentum (or beta1), or enlarge the batch",
    "shuffle the data anew in every epoch, and look at what the batches of crest and trough hold",
)


def swing_findings(run: Run, signal: Signal, gauge: Gauge) -> tuple[list[Finding], Swing | None]:
    """The finding of a loss that swings regularly (or none), and the swings themselves for the frame."""
    swing = clearest_swing(signal.scaled) if signal.scaled is not None else None
    height = _times(swing)
    if not gauge.reaches(_KIND, height, signal.metric) or swing is None:
        return [], swing
    known = known_rhythm(run, signal, swing)
    evidence: dict[str, float | int | str | bool | None] = {
        "split": signal.series.split,
        "rank": signal.series.rank,
        "swing": height,
        "limit": gauge.limits.of(_KIND, signal.metric),
        "period_rows": swing.period,
        "period_steps": swing.period * signal.every,
        "share": swing.share,
        "chance": swing.chance,
        "cycles": swing.cycles,
        "sawtooth": swing.sawtooth,
        "known": known,
        "n": len(signal.value),
    }
    every = f"{swing.period * signal.every:,.3g} steps"
    if not np.isfinite(signal.step).all():
        every = f"{swing.period:.3g} rows"
    shape = ", each time with a leap at its beginning," if swing.sawtooth else ""
    found = Finding(
        _KIND,
        _severity(signal, swing, known),
        "",
        f"{signal.name} swings by {100 * height:.2g} % of its level every {every}{shape} from step "
        f"{signal.step_at(swing.first):,} to {signal.step_at(swing.last):,}; that is {100 * swing.share:.0f} % of what "
        "moves it besides its trend" + (f"; {known}" if known else ""),
        metric=signal.metric,
        first_step=signal.step_at(swing.first),
        last_step=signal.step_at(swing.last),
        evidence=evidence,
        causes=_causes(signal, swing, known),
        suggestions=_TRY,
    )
    return [found], swing


def _times(swing: Swing | None) -> float:
    return 0.0 if swing is None else float(np.expm1(min(swing.height, 50.0)))


def _severity(signal: Signal, swing: Swing, known: str) -> Severity:
    return "info" if known or swing.sawtooth or signal.company else "warning"


def _causes(signal: Signal, swing: Swing, known: str) -> tuple[str, ...]:
    if known:
        return (known,)
    if signal.company == "players":
        return ("the players of a GAN take turns at the lead",)
    if swing.sawtooth:
        return (
            "something starts anew each time: an epoch over data in a fixed order, or a cycle of the learning rate",
        )
    causes = ["the learning rate is at the edge of what this loss allows, so that steps overshoot"]
    if swing.period >= 10:
        causes.append("data that come round in a fixed order, as in an epoch without shuffling")
    if signal.rate is None:
        causes.append("a learning rate that goes round: none is logged; record it to know")
    return tuple(causes)
