"""The picture of a diagnosis: the main loss of a run with the spans of its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures import COLOURS, axes, draw_series
from analysis.findings import SEVERITIES, Finding, Severity
from parsers.naming.roles import LOSSES
from parsers.run import Run
from parsers.tables.branches import branches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_timeline", "main_series"]

#: How each severity is drawn: colour and hatch, so that it can be told without colour.
_MARK: dict[Severity, tuple[str, str]] = {
    "info": (COLOURS["sky"], ""),
    "warning": (COLOURS["orange"], "//"),
    "critical": (COLOURS["vermilion"], "xx"),
    "fatal": (COLOURS["vermilion"], "XX"),
}


def main_series(run: Run) -> tuple[str, str] | None:
    """Metric and split of the series that stands for the run: its training loss, else its eval loss (`run.roles`).

    Falls back to the longest loss of any kind, then to the longest series; None when the run has no numbers.
    """
    roles = run.roles
    chosen = roles["train_loss"].series or roles["eval_loss"].series
    if chosen is None and len(roles):
        chosen = max(roles, key=lambda one: (one.role in LOSSES, one.side == "train", one.count))
    return None if chosen is None else (chosen.metric, chosen.split)


def draw_timeline(run: Run, findings: Sequence[Finding], ax: Axes | None = None, **line: Any) -> Axes:
    """The main series over steps, each finding's span shaded in the colour and hatch of its severity."""
    drawn = axes(ax)
    series = main_series(run)
    if series is None:
        drawn.set_title(f"{run.name}: nothing was recorded", parse_math=False)
        return drawn
    metric, split = series
    every = run.series(metric, split=split, live=False)
    every = every.filter(every["rank"] == every["rank"].min())
    rows, dead = branches(every, run.attempts if run.last_attempt else None)
    steps = rows["step"].cast(float).to_numpy() if rows["step"].null_count() == 0 else np.arange(float(rows.height))
    for lost in dead.drop_nulls("step").partition_by("attempt", maintain_order=True):
        behind: dict[str, Any] = {"color": COLOURS["blue"], "alpha": 0.4, "lw": 0.8, "zorder": 1.5}
        draw_series(drawn, lost["step"].cast(float).to_numpy(), lost["value"].to_numpy(), **behind)
    draw_series(drawn, steps, rows["value"].to_numpy(), **{"color": COLOURS["blue"], **line})
    for finding in sorted(findings, key=lambda f: SEVERITIES.index(f.severity)):
        if finding.first_step is None or finding.severity == "info":
            continue
        colour, hatch = _MARK[finding.severity]
        last = finding.last_step if finding.last_step is not None else finding.first_step
        width = max(last - finding.first_step, (float(steps.max()) - float(steps.min())) * 0.004)
        drawn.axvspan(finding.first_step, finding.first_step + width, color=colour, alpha=0.18, hatch=hatch, lw=0)
        drawn.annotate(
            finding.kind,
            (finding.first_step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -9),
            textcoords="offset points",
            fontsize=7,
            color=colour,
        )
    drawn.set_xlabel("step")
    drawn.set_ylabel(f"{split} {metric}".strip()[:60], parse_math=False)
    worst = findings[0].kind if findings else "nothing found"
    drawn.set_title(f"{run.name}: {worst}"[:90], parse_math=False)
    return drawn
