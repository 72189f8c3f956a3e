"""NaN and infinities in a run: where they begin, how many there are, whether they stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.log_series import Series
from analysis.findings import Finding, Severity

__all__ = ["non_finite_findings"]

_ORDER: tuple[Severity, ...] = ("critical", "warning", "info")
_TRY = (
    "resume from the last checkpoint before the first step named",
    "look at the batch of that step, and at divisions, logarithms and square roots in the loss",
    "lower the learning rate, clip gradients, or use bfloat16 instead of float16",
)


#: A loss scaler halves its scale at each step that it skips: in the middle of a run it needs one skip, or two. Rows at
#: the beginning, while it comes down from 2^16, are not counted.
_IN_A_ROW, _SEARCH = 3, 16


@dataclass(frozen=True, slots=True, eq=False)
class _Hole:
    """The values of one series that are not finite."""

    series: Series
    first: int
    last: int
    count: int
    nan: int
    stays: bool
    severity: Severity

    @property
    def step(self) -> int:
        step = self.series.step_at(self.first)
        return self.first if step is None else step


def non_finite_findings(run: str, series: Sequence[Series]) -> list[Finding]:
    """One finding per severity: NaN spreads from metric to metric, and what spread is one incident.

    Losses are critical, and so are gradient norms, unless a few of those are infinite while every loss stays finite:
    mixed precision with a loss scaler skips such steps, which is information, and a warning where it would have had to
    skip three rows running. Other metrics are a warning, or information where they never had a finite value (nothing
    was computed there). What is not finite in its first rows only is information as well, unless it is the loss itself:
    a moving score or timer has no value until it is filled.
    """
    losses_hurt = any(s.is_loss and not np.isfinite(s.values).all() for s in series)
    holes = [hole for s in series if (hole := _hole(s, losses_hurt)) is not None]
    return [_finding(run, alike) for level in _ORDER if (alike := [h for h in holes if h.severity == level])]


def _hole(series: Series, losses_hurt: bool) -> _Hole | None:
    values = series.values
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad) == 0:
        return None
    first, last = int(bad[0]), int(bad[-1])
    nan = int(np.isnan(values[bad]).sum())
    stays = last == len(values) - 1 and len(bad) >= min(3, len(values))
    severity: Severity = "warning"
    if series.is_loss:
        severity = "critical"
    elif series.role == "grad_norm":
        few = not losses_hurt and not stays and len(bad) <= max(3, len(values) // 20)
        severity = "critical" if not few else "warning" if _running(bad) >= _IN_A_ROW else "info"
    elif len(bad) == len(values):
        severity = "info"
    if len(bad) == last + 1 < len(values) and not series.is_main:
        severity = "info"
    return _Hole(series, first, last, len(bad), nan, stays, severity)


def _running(bad: NDArray[np.int64]) -> int:
    """The longest run of neighbouring rows that are not finite, after the search for a loss scale."""
    late = bad[bad >= _SEARCH]
    if len(late) == 0:
        return 0
    return int(max(len(part) for part in np.split(late, np.flatnonzero(np.diff(late) > 1) + 1)))


def _finding(run: str, holes: list[_Hole]) -> Finding:
    earliest = min(holes, key=lambda h: h.step)
    told = min(holes, key=lambda h: (not h.series.is_loss, len(h.series.metric), h.step))
    name = f"{told.series.split} {told.series.metric}".strip()
    what = "NaN" if told.nan == told.count else "infinite" if told.nan == 0 else "NaN or infinite"
    stays = "from there to the end of the log" if told.stays else f"in {told.count} of {len(told.series.values)} rows"
    others = sorted({h.series.metric for h in holes} - {told.series.metric})
    also = f"; so {'is' if len(others) == 1 else 'are'} {', '.join(others[:5])}" if others else ""
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    broken = told.severity == "critical" or told.series.role == "grad_norm"
    return Finding(
        "non-finite",
        told.severity,
        run,
        f"{name} is {what} at step {told.step}, {stays}{also}{more}",
        metric=told.series.metric,
        first_step=min(h.step for h in holes),
        last_step=max(s if (s := h.series.step_at(h.last)) is not None else h.last for h in holes),
        evidence={
            "split": told.series.split,
            "rank": told.series.rank,
            "count": told.count,
            "nan": told.nan,
            "infinite": told.count - told.nan,
            "n": len(told.series.values),
            "stays": told.stays,
            "first_metric": earliest.series.metric,
            "metrics": ", ".join([told.series.metric, *others]),
        },
        causes=_causes(told, earliest),
        suggestions=_TRY if broken else ("check how this metric is computed when it has no data",),
    )


def _causes(told: _Hole, earliest: _Hole) -> tuple[str, ...]:
    if told.severity == "info" and told.series.role == "grad_norm":
        return ("every loss stayed finite: a loss scaler of mixed precision probably skipped these steps",)
    if told.severity == "info" and told.count == told.last + 1 < len(told.series.values):
        return (f"finite from row {told.last + 2} on: it was probably not defined before",)
    if told.severity == "warning" and told.series.role == "grad_norm":
        return ("every loss reads finite, but a loss scaler skips a step or two and goes on: the gradients are broken",)
    if earliest.step < told.step:
        return (f"{earliest.series.metric} was not finite first, at step {earliest.step}",)
    if told.count == len(told.series.values):
        return ("no row of it is finite: it was probably never computed",)
    return ("cannot tell from this log what came first; record grad_norm and the loss's components to know",)
