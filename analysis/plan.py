"""The plan of a run as it was understood, and whether the run kept its length and saved at the steps it says."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from analysis.figures import COLOURS, axes, style
from analysis.findings import SEVERITIES
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.planned.lengths import judge_length
from analysis.planned.reached import Reached, reached
from analysis.planned.rows import FRAME, plan_rows
from analysis.planned.saves import judge_saves, saves_of
from analysis.result import Result
from parsers.plan import Plan
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FRAME", "PlanResult", "plan"]


@dataclass(frozen=True, eq=False, repr=False)
class PlanResult(Result):
    """What a run was meant to do and how far it came.

    `frame` has one row per entry of the plan: key, value (JSON), source (file and path, `hparams.yaml: optimizer.lr`),
    understood, observed (null where the log is not asked here), kept (null where nothing is held against it), note.
    Entries that were not understood follow, with the reason as their note. `plan` is the plan itself, `lengths` are
    the planned lengths with what was reached, `saves` the steps of the recorded checkpoints.
    """

    plan: Plan = field(default_factory=Plan)
    lengths: tuple[Reached, ...] = ()
    saves: tuple[int, ...] = field(default=())

    @property
    def not_understood(self) -> tuple[str, ...]:
        """What was read and could not be used, in plain words."""
        return self.plan.not_understood

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Per cent of each planned length that was reached, over the plan in grey; checkpoints as ticks.

        `options` go to the bars.
        """
        drawn = axes(ax)
        with style():
            for place, one in enumerate(self.lengths):
                colour = COLOURS["blue" if one.done else "vermilion"]
                drawn.barh(place, 100.0, height=0.7, color="0.88")
                drawn.barh(place, 100.0 * one.share, **{"height": 0.4, "color": colour, **options})
                if one.unit == "steps":
                    marks = [100.0 * step / one.planned for step in self.saves]
                    drawn.plot(marks, [place] * len(marks), "|", color="black", ms=9, label="checkpoint")
            names = [f"{one.reached:,.6g} of {one.planned:,.6g} {one.unit}" for one in self.lengths]
            drawn.set_yticks(range(len(names)), names)
            if any(one.unit == "steps" for one in self.lengths) and self.saves:
                drawn.legend()
        drawn.set_xlabel("done (% of the plan)")
        drawn.set_ylabel("planned length")
        said = (
            self.findings[0].message if self.findings else "as long as planned" if self.lengths else self.plan.summary
        )
        title = textwrap.shorten(f"{self.run}: {said}", 105, placeholder=" ...")
        drawn.set_title(title, parse_math=False, fontsize=10)
        return drawn

    def __repr__(self) -> str:
        first, *rest = super().__repr__().split("\n")
        return "\n".join([first, f"  plan: {self.plan.summary}", *rest])


def plan(run: Run, *, now: datetime | None = None, limits: Limits = DEFAULT_LIMITS) -> PlanResult:
    """The plan of a run as understood (`run.planned`), and whether its length and its saves fit the log.

    The plan is what `--plan`, `at.load(plan=...)`, `run.with_plan` or the manifest declare, then the configuration in
    or beside the log; docs/plan.md names what is understood. `unfinished-run`: the log ends before the planned steps or
    epochs by more than one record; a warning where the share done is at or below the limit and nothing in the log says
    that it was stopped on purpose, is still running, or is the state of a checkpoint. `overlong-run`: it goes on beyond
    them. `checkpoint-mismatch`: a save whose name, recorded step and log disagree.

    Of several planned lengths (steps and epochs) the one that was reached counts. A run whose last record is younger,
    at `now` (by default the time of the call), than 20 of its rhythms (1 minute to 1 hour) still runs. Without a plan,
    without steps or epochs in the log, or without checkpoints the kinds concerned are `not_applicable`; repeated steps,
    NaN and constant series change nothing. Raises ValueError for a `now` without a time zone.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 30, "step": range(0, 300, 10), "value": [1.0] * 30})
    >>> run = finish("demo", "demo.csv", "csv", rows).with_plan({"max_steps": 1000})
    >>> print(plan(run).findings[0].message)
    the log ends at step 290 of 1,000 planned (29% done, plan: max_steps)
    """
    if now is not None and now.tzinfo is None:
        raise ValueError(f"now: expected a time with a time zone, found {now!r}; write datetime.now(UTC)")
    gauge, lengths = Gauge(limits), reached(run)
    found, skipped = judge_length(run, lengths, gauge, datetime.now(UTC) if now is None else now)
    saves, unjudged = judge_saves(run)
    findings = sorted([*found, *saves], key=lambda f: -SEVERITIES.index(f.severity))
    return PlanResult(
        run=run.name,
        frame=plan_rows(run.planned, lengths),
        findings=tuple(findings),
        not_applicable=(*skipped, *unjudged),
        measures=gauge.measures,
        plan=run.planned,
        lengths=tuple(lengths),
        saves=tuple(save.step for save in saves_of(run)),
    )
