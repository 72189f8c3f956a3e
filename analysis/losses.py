"""Loss accounting: raw x weight = weighted, the sum of components = total, displayed loss = total."""

from __future__ import annotations

import itertools
import math
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.accounting.bypass import hidden_weights
from analysis.accounting.loss_account import COMPONENTS, LARGEST, TOTALS, account
from analysis.accounting.loss_checks import judge_activity, judge_display, judge_products
from analysis.accounting.loss_sum import judge_sum
from analysis.accounting.loss_table import loss_table
from analysis.accounting.plain_losses import plain_losses
from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import SEVERITIES, Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from eventstream.errors import PlanError
from parsers.plan import Plan, is_other
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LossAccounting", "losses"]

_KINDS = ("loss-sum-mismatch", "loss-display-mismatch", "weight-not-applied", "inactive-component")


@dataclass(frozen=True, eq=False, repr=False)
class LossAccounting(Result):
    """What every component of the loss should have added and did add, per record.

    `frame` has one row per record and component: step, component, raw, weight, weighted, contribution (as logged,
    null where not), entered (what stands in the total: contribution, else weighted, else raw x weight), expected (raw
    x weight), residual (entered - expected), tolerance (what printing and arithmetic allow), share (of the total).
    `totals` has one row per record: step, total, displayed, scaled_total (for gradient accumulation), summands (how
    many), active (how many are not 0), sum (of what entered, or mean where the plan says so), residual (total - sum),
    tolerance, display_difference (displayed - total), display_tolerance. A step that was logged repeatedly has
    several records, in order. `explanation` says what the total of a plain log is made of, or is empty.
    """

    totals: pl.DataFrame = field(default_factory=lambda: TOTALS.to_frame())
    explanation: str = ""

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """What each component adds to the total over the steps, and the total; options go to the lines."""
        drawn = axes(ax)
        with style():
            parts = self.frame.drop_nulls(["step", "entered"]).sort("component", maintain_order=True)
            looks = itertools.product(("-", "--", ":", "-."), COLOURS.values())
            for ((name,), part), (dash, colour) in zip(
                parts.group_by("component", maintain_order=True), looks, strict=False
            ):
                look = {"label": str(name), "ls": dash, "color": colour, **options}
                draw_series(drawn, part["step"].to_numpy(), part["entered"].to_numpy(), **_visible(part.height), **look)
            total = self.totals.drop_nulls(["step", "total"])
            look = {"label": "total", "color": "black", "lw": 1.0, **options}
            draw_series(drawn, total["step"].to_numpy(), total["total"].to_numpy(), **_visible(total.height), **look)
            worst = self.findings[0].message if self.findings else self.explanation or "the accounts balance"
            title = textwrap.shorten(f"{self.run}: {worst}", 105, placeholder=" ...")
            drawn.set_title(title, parse_math=False, fontsize=10)
            drawn.set_xlabel("step")
            drawn.set_ylabel("part of the loss")
            for text in drawn.legend().get_texts():
                text.set_parse_math(False)  # names are data
        return drawn


def losses(run: Run, *, tolerance: float | None = None, limits: Limits = DEFAULT_LIMITS) -> LossAccounting:
    """Whether the loss adds up: per component, in total, and in what was displayed.

    Reads `losses/...` numbers where the run has them, else metrics named like components and a total (`kd_loss`,
    `loss/kd`, `loss`), of which only the sum can be judged. `tolerance` is the absolute difference that is let pass;
    by default it follows the printed precision of every number (half a unit in the last place, carried through
    product and sum; decimals from the log's own record of them, else those that all values share) and float32
    arithmetic. Aggregation (sum or mean) is the plan's, sum by default.

    Findings: `loss-sum-mismatch`, with an explanation where one fits (a mean, a factor, a component left out or
    counted twice, a hidden component, a constant), `loss-display-mismatch`, `weight-not-applied`,
    `inactive-component`. Components that enter with weight 0 are `curriculum-bypass`, see `curriculum`. Records with
    NaN or infinite numbers are not judged; a run without losses gives an empty frame and says so. Raises `ValueError`
    for a tolerance that is no number above 0. `limits` may set from which relative difference on a mismatch is a
    warning.

    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"step": [1] * 4, "value": [2.0, 0.5, 1.0, 1.25],
    ...     "tag": ["losses/kd/raw", "losses/kd/weight", "losses/kd/weighted", "losses/total"]})
    >>> result = losses(finish("demo", "demo", "jsonl", rows))
    >>> result.totals.select("sum", "residual").row(0), result.findings[0].kind
    ((1.0, 0.25), 'loss-sum-mismatch')
    """
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 < tolerance < math.inf):
        raise ValueError(f"tolerance: expected a number above 0 or None, found {tolerance!r}")
    gauge = Gauge(limits)
    plan, unread = _plan(run)
    table, explanation, reason = loss_table(run), "", "no losses are logged"
    inferred = None
    if table.components.is_empty():
        plain = plain_losses(run, plan)
        explanation, reason, inferred = plain.explanation, plain.reason or reason, plain.rows
        table = plain.table or table
    rows, totals = account(table, aggregation=plan.aggregation, tolerance=tolerance)
    findings = [
        *judge_sum(run.name, rows, totals, aggregation=plan.aggregation, gauge=gauge),
        *judge_display(run.name, totals, gauge),
        *judge_products(run.name, rows, gauge),
        *judge_activity(
            run.name, rows, _planned_peaks(plan, rows), {h.component for h in hidden_weights(rows, totals)}
        ),
    ]
    return LossAccounting(
        run.name,
        (rows if inferred is None else inferred).select(COMPONENTS.names()),
        findings=tuple(sorted(findings, key=_rank)),
        not_applicable=tuple(_not_judged(rows, totals, reason, unread)),
        measures=gauge.measures,
        totals=totals.select(TOTALS.names()),
        explanation=explanation,
    )


def _plan(run: Run) -> tuple[Plan, str]:
    plan = run.planned.without(run.planned.hints)  # a setting of its own does not say that it is constant
    try:
        Plan.from_mapping({key: value for key, value in run.plan.items() if not is_other(key, value)})
    except PlanError as error:
        return plan, f" (the plan cannot be used: {error})"
    return plan, ""


def _planned_peaks(plan: Plan, rows: pl.DataFrame) -> dict[str, float]:
    """Largest planned weight of each component over the steps that were logged."""
    if not plan.components:
        return {}
    steps = rows["step"].drop_nulls().unique().to_numpy()
    peaks = plan.planned_weights(steps).group_by("component").agg(pl.col("weight").abs().max())
    return {name: weight for name, weight in peaks.iter_rows() if weight is not None}


def _not_judged(rows: pl.DataFrame, totals: pl.DataFrame, reason: str, unread: str) -> list[NotApplicable]:
    printed = pl.col("weighted").is_not_null() | pl.col("contribution").is_not_null()
    products = rows.filter(printed & (pl.col("residual").abs() < LARGEST)).height
    incomplete = "no record holds a finite total and all its components"
    could = {
        "loss-sum-mismatch": (totals["residual"].count(), incomplete if rows.height else reason),
        "loss-display-mismatch": (totals["display_difference"].count(), "no displayed loss is logged beside the total"),
        "weight-not-applied": (products, "no component is logged with raw value, weight and weighted value"),
        "inactive-component": (rows["entered"].count(), "no weights are logged" if rows.height else reason),
    }
    return [NotApplicable(kind, could[kind][1] + unread) for kind in _KINDS if not could[kind][0]]


def _rank(finding: Finding) -> tuple[int, str]:
    return -SEVERITIES.index(finding.severity), finding.kind


def _visible(points: int) -> dict[str, Any]:
    """A lone point draws no line, so it gets a marker."""
    return {"marker": "o", "ms": 4} if points < 3 else {}
