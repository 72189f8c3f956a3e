"""Whether the components add up to the total, and what explains the difference where they do not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.accounting.bypass import hidden_weights
from analysis.accounting.loss_account import printed, span
from analysis.findings import Finding, Severity
from analysis.limits import Gauge, Limits

__all__ = ["Explanation", "explain_sum", "judge_sum"]

Floats = NDArray[np.float64]

#: Explanations must hold in this share of the records that are off.
_HOLDS = 0.95
#: Median difference relative to the total from which it is critical, and up to which two records are told mildly: both
#: move with the limit of the kind, from which on it is a warning.
_CRITICAL, _FEW = 0.05, 0.01
#: Records needed before differences that scatter around 0 count as scatter.
_LEAST_FOR_SCATTER = 20


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the difference between total and sum is: a sentence, a short name, the number in it."""

    name: str
    sentence: str
    number: float = math.nan
    component: str | None = None


def judge_sum(
    run: str, rows: pl.DataFrame, totals: pl.DataFrame, *, aggregation: str | None, gauge: Gauge | None = None
) -> list[Finding]:
    """The finding that components do not add up, or none; frames as `loss_account.account` makes them."""
    gauge = gauge or Gauge()
    judged = totals.filter(pl.col("residual").is_not_null())
    off = judged.filter(pl.col("residual").abs() > pl.col("tolerance"))
    if off.is_empty():
        gauge.keep("loss-sum-mismatch", 0.0 if judged.height else math.nan)
        return []
    relative = off.select((pl.col("residual").abs() / pl.col("total").abs().clip(1e-300)).median()).item()
    found = explain_sum(rows, judged, off)
    metric = found.component if found else None
    gauge.keep("loss-sum-mismatch", relative, metric)
    limit = gauge.limits.of("loss-sum-mismatch", metric)
    severity = _severity(off, judged, relative, found, aggregation, gauge.limits, metric)
    worst = off.row(int(np.argmax(off["residual"].abs().to_numpy())), named=True)
    share = off.height / judged.height
    first_step, last_step = span(off)
    message = (
        f"the components do not add up to the total in {off.height} of {judged.height} records"
        f" (typically {100 * relative:.2g} % off; at step {worst['step']} total {printed(worst['total'])},"
        f" {aggregation or 'sum'} of components {printed(worst['sum'])})"
    )
    return [
        Finding(
            "loss-sum-mismatch",
            severity,
            run,
            message + (f": {found.sentence}" if found else ""),
            metric=metric,
            first_step=first_step,
            last_step=last_step,
            evidence={
                "records_off": off.height,
                "records_judged": judged.height,
                "share_off": share,
                "relative_difference": relative,
                "limit": limit,
                "largest_difference": float(worst["residual"]),
                "tolerance": float(worst["tolerance"]),
                "explanation": found.name if found else "none",
                "number": found.number if found and math.isfinite(found.number) else None,
            },
            causes=((found.sentence,) if found else ()) + _other_causes(found),
            suggestions=(
                "log every term at the place where the total is summed",
                "declare the aggregation (sum or mean) in the plan",
                "look for regularisation terms that are added to the total and not logged",
            ),
        )
    ]


def _severity(
    off: pl.DataFrame,
    judged: pl.DataFrame,
    relative: float,
    found: Explanation | None,
    aggregation: str | None,
    limits: Limits,
    metric: str | None,
) -> Severity:
    limit, scale = limits.of("loss-sum-mismatch", metric), limits.scale("loss-sum-mismatch", metric)
    if found and found.name in ("left-out", "twice") and off.height >= 3:
        return "critical" if relative >= _CRITICAL * scale else "warning"  # a wrong sum, however small the component
    if relative < limit:
        return "info"
    if found and aggregation is None and found.name in ("mean", "divided"):
        return "info"  # another convention, not a fault: nobody declared which one is meant
    if found and found.name == "scatter":
        return "info"
    if off.height < 3 <= judged.height and relative < _FEW * scale:
        return "info"
    return "critical" if relative >= _CRITICAL * scale and off.height * 2 >= judged.height else "warning"


def explain_sum(rows: pl.DataFrame, judged: pl.DataFrame, off: pl.DataFrame) -> Explanation | None:
    """The simplest explanation that leaves 95 % of the records within tolerance; None when there is none.

    Tried in this order: another scale (mean, division by a whole number, one constant factor), one component left
    out or counted twice, raw values of components that should not enter, a constant term, scatter around 0.
    """
    return _scale(judged) or _component(rows, off) or _hidden(rows, judged) or _constant(off) or _scatter(judged)


def _scale(judged: pl.DataFrame) -> Explanation | None:
    total, summed, tolerance = (judged[c].to_numpy() for c in ("total", "sum", "tolerance"))
    usable = (summed != 0) & np.isfinite(total)
    if not usable.any():
        return None
    ratio = float(np.median(total[usable] / summed[usable]))
    for name, column in (("mean", "summands"), ("mean", "active")):
        count = judged[column].to_numpy()
        if np.median(count) > 1 and _fits(total - summed / np.maximum(count, 1), tolerance):
            what = "all components" if column == "summands" else "the components that are not 0"
            return Explanation(name, f"the total is the mean over {what}, not the sum", float(np.median(count)))
    whole = round(1 / ratio) if 0 < ratio < 0.6 else 0
    if whole > 1 and _fits(total - summed / whole, tolerance):
        return Explanation("divided", f"the total is the sum divided by {whole}, as for gradient accumulation", whole)
    if len(total) >= 3 and _fits(total - ratio * summed, tolerance * max(1.0, abs(ratio))):
        return Explanation("scaled", f"the total is {ratio:.4g} times the sum", ratio)
    return None


def _component(rows: pl.DataFrame, off: pl.DataFrame) -> Explanation | None:
    for (name,), part in rows.group_by("component", maintain_order=True):
        own = off.select("at", "residual", "tolerance").join(part.select("at", "entered"), on="at", how="left")
        entered, residual = own["entered"].fill_null(math.nan).to_numpy(), own["residual"].to_numpy()
        tolerance = own["tolerance"].to_numpy()
        if np.mean(np.abs(entered) > 3 * tolerance) < _HOLDS:
            continue
        if _fits(residual + entered, tolerance):
            return Explanation("left-out", f"{name} is missing from the total", math.nan, str(name))
        if _fits(residual - entered, tolerance):
            return Explanation("twice", f"{name} is counted twice", math.nan, str(name))
    return None


def _hidden(rows: pl.DataFrame, judged: pl.DataFrame) -> Explanation | None:
    found = hidden_weights(rows, judged)
    if not found:
        return None
    terms = " + ".join(f"{f.weight:#.3g} x {f.component}" for f in found)
    only = found[0] if len(found) == 1 else None
    return Explanation(
        "hidden",
        f"the difference is {terms} (raw), which should not enter",
        only.weight if only else math.nan,
        only.component if only else None,
    )


def _constant(off: pl.DataFrame) -> Explanation | None:
    residual, tolerance = off["residual"].to_numpy(), off["tolerance"].to_numpy()
    middle = float(np.median(residual))
    if len(residual) < 3 or not _fits(residual - middle, 2 * tolerance):
        return None
    return Explanation(
        "constant", f"a constant term of {middle:.4g} is in the total and not among the components", middle
    )


def _scatter(judged: pl.DataFrame) -> Explanation | None:
    residual = judged["residual"].to_numpy()
    middle = float(np.median(residual))
    spread = 1.4826 * float(np.median(np.abs(residual - middle)))
    if len(residual) < _LEAST_FOR_SCATTER or spread == 0 or abs(middle) > 0.5 * spread:
        return None
    return Explanation(
        "scatter",
        "the difference scatters around 0, as when total and components are averaged over different batches or ranks",
        spread,
    )


def _fits(left: Floats, tolerance: Floats) -> bool:
    return bool(np.mean(np.abs(left) <= tolerance) >= _HOLDS)


def _other_causes(found: Explanation | None) -> tuple[str, ...]:
    if found:
        return ()
    return (
        "a term that is not logged is part of the total",
        "total and components come from different batches, ranks or moments",
    )
