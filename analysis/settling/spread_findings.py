"""Lasting changes of the noise of a loss put into words, with what in the run changed there."""

from __future__ import annotations

import numpy as np

from analysis.anomaly.planned_phases import phase_about
from analysis.findings import Finding
from analysis.limits import Gauge
from analysis.settling.signal import Signal
from analysis.settling.spread import Shift, spread_shift
from analysis.settling.swings import Swing
from parsers.run import Run

__all__ = ["spread_findings"]

_KIND = "variance-shift"
#: Swings begin where the noise changes within so many of their cycles, or this share of the rows.
_CYCLES, _NEAR = 2.0, 0.1
#: A learning rate that changes by this factor or more within a few rows moves the noise with it.
_LEAP = 1.5
_TRY = (
    "compare batch size, accumulation and number of processes on both sides of that step",
    "compare the data sources on both sides of it: one may have ended, or joined",
    "look at what was logged: single batches, or means over several",
)


def spread_findings(
    run: Run, signal: Signal, gauge: Gauge, swing: Swing | None = None
) -> tuple[list[Finding], Shift | None]:
    """The finding of a loss whose noise changed for good (or none), and the change itself for the frame.

    `swing` are its regular swings, which move rows from their neighbours as noise does.
    """
    if signal.scaled is None:
        return [], None
    rate = signal.rate
    context = None
    if rate is not None and (rate > 0).all() and np.ptp(rate) > 0:
        context = np.log(rate)
    shift = spread_shift(signal.scaled, context)
    if not gauge.reaches(_KIND, 1.0 if shift is None else shift.factor, signal.metric) or shift is None:
        return [], shift
    phase = phase_about(run, signal.step_at(shift.row))
    known = (*([phase] if phase else []), *_swings(signal, shift, swing), *_known(signal, shift))
    way = "noisier" if shift.after > shift.before else "quieter"
    step = signal.step_at(shift.row)
    found = Finding(
        _KIND,
        "info" if known or signal.company else "warning",
        "",
        f"{signal.name} becomes {shift.factor:.2g} times {way} at step {step:,} and stays so: its rows lie "
        f"{100 * shift.before:.2g} % from their neighbours before, {100 * shift.after:.2g} % after"
        + (f"; {known[0]}" if known else ""),
        metric=signal.metric,
        first_step=step,
        last_step=signal.step_at(len(signal.value) - 1),
        evidence={
            "split": signal.series.split,
            "rank": signal.series.rank,
            "factor": shift.factor,
            "limit": gauge.limits.of(_KIND, signal.metric),
            "before": shift.before,
            "after": shift.after,
            "score": shift.score,
            "known": known[0] if known else "",
            "n": len(signal.value),
        },
        causes=known or _causes(shift),
        suggestions=_TRY,
    )
    return [found], shift


def _causes(shift: Shift) -> tuple[str, ...]:
    batch = shift.factor**2
    if shift.after > shift.before:
        return (
            f"the batch became smaller (by {batch:.2g} times, if that is all), or fewer batches are averaged",
            "a source of data joined that varies more",
        )
    return (
        f"the batch became larger (by {batch:.2g} times, if that is all), or more batches are averaged",
        "a source of data ended, so that the rest resemble one another",
    )


def _swings(signal: Signal, shift: Shift, swing: Swing | None) -> list[str]:
    """Regular swings that set in about there, or are over."""
    if swing is None:
        return []
    begins = shift.after > shift.before
    edge = swing.first if begins else swing.last
    near = max(_CYCLES * swing.period, _NEAR * len(signal.value))
    said = f"regular swings of the loss every {swing.period:.3g} rows {'set in' if begins else 'end'} there"
    return [said] if abs(shift.row - edge) <= near else []


def _rate_leap(signal: Signal, shift: Shift) -> list[str]:
    """A learning rate that leaps the same way within a few rows; what glides was among what may explain the spread."""
    if signal.rate is None:
        return []
    near = max(5, len(signal.value) // 200)
    row = shift.row
    old, new = (float(signal.rate[int(np.clip(row + off, 0, len(signal.value) - 1))]) for off in (-near, near))
    more, less = old > 0 and new > _LEAP * old, new > 0 and old > _LEAP * new
    leaps = more if shift.after > shift.before else less
    return [f"the learning rate went from {old:.3g} to {new:.3g}"] if leaps else []


def _known(signal: Signal, shift: Shift) -> tuple[str, ...]:
    """What the log shows to have changed about there."""
    near = max(20, len(signal.value) // 50)
    low, high = max(0, shift.row - near), min(len(signal.value) - 1, shift.row + near)
    told = []
    if signal.batch is not None and signal.batch[low] != signal.batch[high]:
        told.append(f"the batch size went from {signal.batch[low]:.0f} to {signal.batch[high]:.0f}")
    told += _rate_leap(signal, shift)
    attempts = signal.series.frame["attempt"].to_numpy()[signal.row]
    if attempts[low] != attempts[high]:
        told.append(f"the run was resumed about there (attempt {attempts[high]})")
    apart = np.diff(signal.step)
    before, after = apart[low : shift.row], apart[shift.row : high]
    if len(before) and len(after) and not 0.67 < np.median(after) / max(float(np.median(before)), 1e-300) < 1.5:
        told.append(f"rows are {np.median(before):.0f} steps apart before and {np.median(after):.0f} after")
    return tuple(told)
