"""The health of a run at a glance: one row an indicator, healthy, warning, critical or unknown, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.checks import CHECKS
from analysis.diagnose import Diagnosis, diagnose
from analysis.figures import COLOURS, axes, style
from analysis.findings import Finding
from analysis.indicators.table import INDICATORS, Vital, vital
from analysis.limits import DEFAULT_LIMITS, Limits
from analysis.result import Result
from analysis.rules import Rules, rules_of
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.norms import Norms

__all__ = ["Health", "health", "health_of"]

_FRAME = pl.Schema(
    {
        "indicator": pl.String,
        "status": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "unit": pl.String,
        "healthy": pl.String,
        "reason": pl.String,
        "first_step": pl.Int64,
    }
)
_LOOKS = {"unknown": "grey", "healthy": "green", "warning": "orange", "critical": "vermilion"}
_KINDS = {kind for indicator in INDICATORS for kind in indicator.kinds}


@dataclass(frozen=True, eq=False, repr=False)
class Health(Result):
    """The indicators of a run. `frame` has one row each, always the same ones in the same order.

    Columns: indicator; status (healthy, warning, critical, or unknown where nothing could be judged); metric, value and
    unit (null where there is no number), low and high (its 95 % interval, of the trend only); healthy (the range that
    is, in words); reason; first_step (of the worst finding, else null). `findings` are those that decided.
    """

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """A row an indicator with its number, at its status; `options` go to the marks."""
        drawn = axes(ax, height=0.3 * self.frame.height + 0.8)
        rows = list(self.frame.iter_rows(named=True))
        with style():
            for place, row in enumerate(reversed(rows)):
                at = list(_LOOKS).index(row["status"])
                colour = COLOURS.get(_LOOKS[row["status"]], _LOOKS[row["status"]])
                drawn.scatter([at], [place], **{"color": colour, "s": 60, **options})
                value = "" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
                drawn.text(at + 0.12, place, value[:40], va="center", fontsize=7, parse_math=False)
            drawn.set_yticks(range(len(rows)), [row["indicator"].replace("_", " ") for row in reversed(rows)])
            drawn.set_xticks(range(len(_LOOKS)), list(_LOOKS))
            drawn.set_xlim(-0.3, len(_LOOKS))
        drawn.set_xlabel("status, with the number as judged")
        drawn.set_ylabel("indicator")
        known = self.frame.filter(pl.col("status") != "unknown").height
        said = self.findings[0].message if self.findings else f"{known} of {len(rows)} indicators known"
        drawn.set_title(f"{self.run}: {self.status}, {said}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn


def health(
    run: Run, *, rules: Rules | Mapping[str, Any] | None = None, norms: Norms | Path | str | None = None
) -> Health:
    """The indicators of a run's health in one table: loss, gradients, resources, GAN and speakers.

    Nothing is judged here: each status is the worst finding of `at.diagnose` among the kinds of its indicator, and each
    number is what the analysis measured, or the late level of a series. `rules` and `norms` are those of `diagnose`,
    and move the ranges too. The loss's trend is Theil and Sen's slope over the last fifth of the training loss (the
    generator's, in a GAN), in per cent of its level, with its interval of 95 %. A run of which nothing can be judged
    gives rows that are `unknown`, with the reason; it is never called healthy for want of data.

    >>> from parsers.finish import finish
    >>> rows = {"tag": ["loss"] * 300, "step": list(range(300)), "value": [2 / (1 + 0.05 * i) for i in range(300)]}
    >>> frame = health(finish("r", "r", "jsonl", pl.DataFrame(rows))).frame
    >>> frame.select("indicator", "status").row(0), frame["value"][0] < 0, frame["status"][-1]
    (('loss_trend', 'healthy'), True, 'unknown')
    """
    ruled = rules if isinstance(rules, Rules) else rules_of(rules or {})
    needed = [check.name for check in CHECKS if _KINDS & set(check.kinds)]
    return health_of(diagnose(run, checks=needed, rules=ruled, norms=norms), limits=_limits(ruled, norms, run))


def _limits(rules: Rules, norms: Norms | Path | str | None, run: Run) -> Limits:
    if norms is None:
        return rules.limits
    from analysis.norms import Norms, read_norms

    learned = norms if isinstance(norms, Norms) else read_norms(norms)
    return replace(rules.limits, learned=learned.learned_for(run))


def health_of(diagnosis: Diagnosis, *, limits: Limits = DEFAULT_LIMITS) -> Health:
    """The indicators of a run that is diagnosed already; `limits` are those that the diagnosis was made with.

    >>> from parsers.finish import finish
    >>> health_of(diagnose(finish("r", "r", "jsonl"))).frame["status"].unique().to_list()
    ['unknown']
    """
    vitals = [vital(indicator, diagnosis, limits) for indicator in INDICATORS]
    findings: dict[int, Finding] = {id(f): f for one in vitals for f in one.findings}
    return Health(
        run=diagnosis.run,
        frame=pl.DataFrame([_row(one) for one in vitals], schema=_FRAME, orient="row"),
        findings=tuple(f for f in diagnosis.findings if id(f) in findings),
        not_applicable=tuple(n for n in diagnosis.not_applicable if n.kind in _KINDS),
        measures=tuple(one for one in diagnosis.measures if one.kind in _KINDS),
    )


def _row(one: Vital) -> tuple[Any, ...]:
    reading = one.reading
    numbers = (None,) * 3 if reading is None else (reading.value, reading.low, reading.high)
    metric, unit = (None, None) if reading is None else (reading.metric, reading.unit)
    return (one.name, one.state, metric, *numbers, unit, one.healthy, one.reason, one.first_step)
