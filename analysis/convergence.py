"""`convergence`: whether the training loss goes on improving, swings instead of settling, or changes its noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import SEVERITIES, Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from analysis.settling import plateau, spectrum, spread
from analysis.settling.plateau_findings import plateau_findings
from analysis.settling.signal import Signal, signals_of
from analysis.settling.spread import Shift
from analysis.settling.spread_findings import spread_findings
from analysis.settling.swing_findings import swing_findings
from analysis.settling.swings import Swing
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Convergence", "convergence"]

_SCHEMA = pl.Schema(
    [
        ("run", pl.String),
        ("rank", pl.Int32),
        ("split", pl.String),
        ("metric", pl.String),
        ("rows", pl.Int64),
        ("first", pl.Float64),
        ("last", pl.Float64),
        ("improvement", pl.Float64),
        ("improvement_at_most", pl.Float64),
        ("improved", pl.Boolean),
        ("period_rows", pl.Float64),
        ("swing", pl.Float64),
        ("spread_step", pl.Int64),
        ("spread_factor", pl.Float64),
    ]
)
_FEWEST = {"plateau": plateau.FEWEST, "oscillation": spectrum.FEWEST, "variance-shift": spread.FEWEST}
#: Colours of the spans that findings of each kind cover in the figure.
_SPANS = {"plateau": "orange", "oscillation": "purple", "variance-shift": "sky"}


@dataclass(frozen=True, eq=False, repr=False)
class Convergence(Result):
    """How the training loss settles.

    `frame`: one row a loss judged: run, rank, split, metric, rows (finite values), first and last (geometric means of
    its first and last tenth), improvement (share of the level by which a line through all of it falls), the largest
    improvement that its noise leaves possible, whether any part of it did improve; period_rows and swing (trough to
    crest, a share of the level) of its regular swings; spread_step and spread_factor of the clearest lasting change of
    its noise. Null: there is none, or it could not be judged.
    """

    signals: tuple[Signal, ...] = field(kw_only=True, default=())

    def plot(self, ax: Axes | None = None, **_: Any) -> Axes:
        """The loss over its steps, with the spans of the findings."""
        drawn = axes(ax)
        with style():
            for signal in self.signals:
                known = bool(np.isfinite(signal.step).all())
                x = signal.step if known else np.arange(float(len(signal.value)))
                draw_series(drawn, x, signal.value, color=COLOURS["blue"], label=signal.name)
                drawn.set_xlabel("step" if known else "row")
                drawn.set_ylabel(signal.name)
                if signal.scaled is not None and np.ptp(signal.scaled) > 1.0:
                    drawn.set_yscale("log")
            for finding in self.findings:
                if finding.first_step is not None and finding.last_step is not None:
                    colour = COLOURS[_SPANS[finding.kind]]
                    drawn.axvspan(
                        finding.first_step, finding.last_step, color=colour, alpha=0.2, lw=0, label=finding.kind
                    )
            if drawn.get_legend_handles_labels()[0]:
                drawn.legend()
        title = self.findings[0].message if self.findings else f"{self.run}: no plateau, no swings, steady noise"
        drawn.set_title(title if self.signals else f"{self.run}: no training loss", parse_math=False)
        return drawn


def convergence(run: Run, *, limits: Limits = DEFAULT_LIMITS) -> Convergence:
    """Whether the training loss of a run improves to its end, settles without swinging, and keeps its noise.

    - `plateau`: the loss never improved (its noise leaves room for 3 % at most over the whole run, and neither its
      first rows nor any later stretch stand out), or stands while the learning rate is 0, a
      thousandth of its highest, or the norm of the weights is the same to its last digit: a warning, critical where
      the rate is 0 throughout. It breaks off in the middle of a steady fall, as no sum of decaying parts does: a
      warning. It levelled off long before the end, or set out late: information, since healthy runs do so.
    - `oscillation`: swings of one period (ten cycles or more) that red noise does not explain, and that go from trough
      to crest by a tenth of the level or more: a warning; information where epochs, the learning rate or evaluations
      recur as often, where each cycle begins with a leap, and in GANs.
    - `variance-shift`: the noise grows or shrinks by a factor of 2 at one place and stays so, beyond what the level,
      the age of the run and the learning rate explain: a warning; information where a change of batch size, learning
      rate, attempt or logging interval stands beside it, or regular swings set in.

    Judged is the loss that stands for the training (`run.roles["train_loss"]`) on the lowest rank, on the logarithmic
    scale, live branch only; values that are not finite are left out. A loss with values of 0 or below has no
    logarithm: of it only a constant is found. Losses of reinforcement learning need not fall, and are not judged; those
    beside a GAN's players give information only. `limits` are those in force (`analysis.limits`). No threshold depends
    on the length of the log: shapes are judged on 48 blocks, noise on 40, swings on windows of a fixed size.

    >>> from parsers.finish import finish
    >>> noise = np.random.default_rng(0).normal(size=300)
    >>> rows = {"tag": ["loss"] * 300, "step": list(range(300)), "value": (2.3 * np.exp(0.02 * noise)).tolist()}
    >>> found = convergence(finish("dead", "dead", "jsonl", pl.DataFrame(rows)))
    >>> print(found.findings[0].message)
    loss never improved: it stays about 2.296 over 300 rows, and its noise leaves room for 1.7 % at most
    """
    gauge = Gauge(limits)
    signals = tuple(signals_of(run))
    findings: list[Finding] = []
    rows = []
    for signal in signals:
        if signal.company == "policy" or len(signal.value) == 0:
            continue
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # values near the largest float
            told, row = _judged(run, signal, gauge)
        findings += told
        rows.append(row)
    findings.sort(key=lambda f: -SEVERITIES.index(f.severity))
    return Convergence(
        run.name,
        pl.DataFrame(rows, schema=_SCHEMA, orient="row"),
        findings=tuple(replace(f, run=run.name) for f in findings),
        not_applicable=_not_applicable(signals, {f.kind for f in findings}),
        measures=gauge.measures,
        signals=signals,
    )


def _judged(run: Run, signal: Signal, gauge: Gauge) -> tuple[list[Finding], tuple[Any, ...]]:
    flat = plateau_findings(run, signal, gauge) if len(signal.value) >= plateau.FEWEST else []
    swings, swing = swing_findings(run, signal, gauge) if len(signal.value) >= spectrum.FEWEST else ([], None)
    shifts, shift = (
        spread_findings(run, signal, gauge, swing if swings else None)
        if len(signal.value) >= spread.FEWEST
        else ([], None)
    )
    return [*flat, *swings, *shifts], _row(run.name, signal, swing, shift)


def _row(name: str, signal: Signal, swing: Swing | None, shift: Shift | None) -> tuple[Any, ...]:
    scaled, series = signal.scaled, signal.series
    tenth = max(1, len(signal.value) // 10)
    flat = None if scaled is None else plateau.never_improved(scaled)
    ends: tuple[float | None, float | None] = (None, None)
    if scaled is not None:
        ends = float(np.exp(scaled[:tenth].mean())), float(np.exp(scaled[-tenth:].mean()))
    told = (None, None, None) if flat is None else (flat.improvement, flat.at_most, flat.improved)
    period, height = (None, None) if swing is None else (swing.period, float(np.expm1(min(swing.height, 50.0))))
    at, factor = (None, None) if shift is None else (signal.step_at(shift.row), shift.factor)
    place = (name, series.rank, series.split, series.metric, len(signal.value))
    return (*place, *ends, *told, period, height, at, factor)


def _not_applicable(signals: tuple[Signal, ...], found: set[str]) -> tuple[NotApplicable, ...]:
    said = []
    for kind, fewest in _FEWEST.items():
        reason = _reason(signals, kind, fewest)
        if reason and kind not in found:
            said.append(NotApplicable(kind, reason))
    return tuple(said)


def _reason(signals: tuple[Signal, ...], kind: str, fewest: int) -> str:
    if not signals:
        return "no series of this log is known as the training loss (see run.roles)"
    signal = signals[0]
    if len(signal.value) < fewest:
        return f"{signal.name} has {len(signal.value)} finite values; at least {fewest} are needed"
    if signal.company == "policy":
        return "losses of reinforcement learning need not fall, nor settle"
    if signal.scaled is None and not signal.is_constant:
        return f"{signal.name} is 0 or below at some steps, so that no share of its level can be told"
    if kind != "plateau" and signal.is_constant:
        return f"{signal.name} never changes"
    return ""
