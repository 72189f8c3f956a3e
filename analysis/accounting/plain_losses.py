"""Loss accounting of plain logs: `kd_loss`, `loss/feature` and a total `loss`, without `losses/...` records."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.accounting.effective_weights import fit_weights
from analysis.accounting.loss_account import LARGEST, account
from analysis.accounting.loss_table import FIELDS, WHOLE, LossTable
from analysis.accounting.precision import FLOAT32, arithmetic_eps, half_unit, printed_decimals
from parsers.plan import Plan
from parsers.run import Run

__all__ = ["PlainLosses", "explain_total", "plain_losses"]

Floats = NDArray[np.float64]

_TOTAL = ("total_loss", "loss_total", "loss/total", "losses/total", "total/loss", "loss")
_PART = re.compile(r"^(?:(?:loss|losses)[/._](?P<after>.+)|(?P<before>.+)[/._]loss)$", re.IGNORECASE)
#: Names that are another view of the total and no part of it.
_NOT_PARTS = re.compile(r"(?:^|[/._])(?:total|avg|mean|epoch|step|smooth(?:ed)?|ema|best|min|max|std|scale)(?:[/._]|$)")
#: Shared records below which nothing is inferred, per component.
_ROWS_PER_PART = 10
#: A regression explains a total when this much of its variance is covered.
_EXPLAINED = 0.999
#: The share of records in which a plain sum must hold to be the rule from which the others deviate.
_SUM_HOLDS = 0.9


@dataclass(frozen=True, eq=False)
class PlainLosses:
    """The accounting of a plain log: a `table` to be judged (None: nothing to judge), or why there is none.

    `explanation` says what the total is made of in words, with R2; `rows` are the inferred weights by record.
    """

    table: LossTable | None
    explanation: str = ""
    reason: str = ""
    rows: pl.DataFrame | None = None


def plain_losses(run: Run, plan: Plan) -> PlainLosses:
    """What the metrics named like losses say: a plain sum, planned weights times raw values, or inferred weights.

    Without weights, only the sum can be judged: when total = sum of components holds in 90 % of the records, the
    others deviate from it. Else the total is regressed on the components (weights not negative); what is not
    explained (R2 below 0.999) is not judged at all, since nothing says that these components make up this total.
    """
    total, parts = _names(run)
    if not total or len(parts) < 2:
        return PlainLosses(None, reason="no loss components with weights or a total in this log")
    wide = _aligned(run, total, parts)
    names = [name for name in parts if name in wide.columns]
    if wide.is_empty() or len(names) < 2:
        return PlainLosses(None, reason=f"{total} and its components are never logged at the same step")
    planned = _planned(wide, names, plan)
    if planned is not None:
        return PlainLosses(planned, explanation="components are judged with the weights of the plan")
    as_sum = _table(wide, names, "contribution")
    _, totals = account(as_sum)
    holds = float((totals["residual"].abs() <= totals["tolerance"]).mean() or 0.0)  # type: ignore[arg-type]
    if holds >= _SUM_HOLDS:
        terms = " + ".join(names)
        return PlainLosses(as_sum, explanation=f"the total is {terms} in {100 * holds:.3g} % of the records")
    return _inferred(wide, names)


def _names(run: Run) -> tuple[str, dict[str, str]]:
    """Metric of the total, and component name to metric of its parts: by their names, but as the user says."""
    known = {metric.lower(): metric for metric in run.metrics}
    whole = run.roles["train_loss"].series
    if whole is not None and whole.by == "user":
        total = whole.metric
    else:
        total = next((known[name] for name in _TOTAL if name in known), "")
    parts = {}
    for metric in run.metrics:
        match, said = _PART.match(metric), run.roles.of(metric)
        by_name = match is not None and not _NOT_PARTS.search(metric.lower())
        if metric != total and (said.role == "component_loss" if said.by == "user" else by_name):
            parts[(match["after"] or match["before"]) if match else metric] = metric
    return total, parts


def _aligned(run: Run, total: str, parts: dict[str, str]) -> pl.DataFrame:
    """One row per step at which total and all components were logged once or more: step, total, one column each."""
    wanted = {total: "total", **{metric: name for name, metric in parts.items()}}
    rows = run.live(run.lazy().filter(pl.col("metric").is_in(list(wanted))).collect())
    rows = rows.filter((pl.col("rank") == pl.col("rank").min()) & pl.col("step").is_not_null())
    rows = rows.filter(pl.col("split") == _split(rows, total))
    rows = rows.with_columns(pl.col("metric").replace(wanted).alias("name")).unique(["name", "step"], keep="last")
    if "total" not in rows["name"]:
        return pl.DataFrame()
    wide = rows.pivot(on="name", index="step", values="value").sort("step")
    count = wide.height
    often = [c for c in wide.columns if c in parts and wide[c].null_count() < 0.5 * count]
    return wide.select("step", "total", *often).drop_nulls()


def _split(rows: pl.DataFrame, total: str) -> str:
    """Split of the total's series: training before others, the longer first."""
    counts = rows.filter(pl.col("metric") == total).group_by("split").len()
    ordered = counts.with_columns(training=pl.col("split").is_in(["", "train"])).sort(
        ["training", "len", "split"], descending=True
    )
    return str(ordered["split"][0]) if ordered.height else ""


def _table(wide: pl.DataFrame, names: list[str], field: str, weights: pl.DataFrame | None = None) -> LossTable:
    """A loss table that holds the components' values as `field`."""
    values = wide.select("total", *names).to_numpy()
    half = half_unit(printed_decimals(values.ravel()))
    wide = wide.with_row_index("at").cast({"at": pl.Int64})
    long = wide.unpivot(names, index=["at", "step"], variable_name="component", value_name=field)
    if weights is not None:
        long = long.join(weights, on=["step", "component"], how="left")
    null = [pl.lit(None, pl.Float64).alias(f) for f in FIELDS if f not in long.columns]
    halves = [pl.lit(half if f == field else 0.0).alias(f"half_{f}") for f in FIELDS]
    components = long.with_columns(*null, *halves).sort("at", "component")
    missing = [pl.lit(None, pl.Float64).alias(w) for w in WHOLE if w != "total"]
    totals = wide.select("at", "step", "total", *missing, *(pl.lit(half).alias(f"half_{w}") for w in WHOLE))
    order = ["at", "step", "component", *FIELDS, *(f"half_{f}" for f in FIELDS)]
    return LossTable(components.select(order), totals, arithmetic_eps(wide["total"].to_numpy()))


def _planned(wide: pl.DataFrame, names: list[str], plan: Plan) -> LossTable | None:
    """The table with the plan's weights, where it has one for every component and values are raw rather than weighted.

    A log does not say whether `kd_loss` is raw or weighted: the reading that leaves less of the total is taken.
    """
    if not set(names) <= set(plan.components):
        return None
    weights = plan.planned_weights(wide["step"].to_numpy()).select("step", "component", "weight").unique()
    raw = _table(wide, names, "raw", weights)
    if raw.components["weight"].null_count():
        return None
    left = [account(t)[1]["residual"].abs().median() for t in (raw, _table(wide, names, "contribution"))]
    if left[0] is None or left[1] is None:
        return None
    return raw if left[0] <= left[1] else None  # type: ignore[operator]


def _inferred(wide: pl.DataFrame, names: list[str]) -> PlainLosses:
    values = wide.select("total", *names).to_numpy()
    finite = np.all(np.abs(values) < LARGEST, axis=1)
    if finite.sum() < _ROWS_PER_PART * len(names):
        return PlainLosses(None, reason=f"too few shared records ({int(finite.sum())}) to infer {len(names)} weights")
    half = half_unit(printed_decimals(values.ravel()))
    weights, explained = explain_total(values[finite, 0], values[finite, 1:], half)
    if explained < _EXPLAINED:
        return PlainLosses(
            None, reason=f"no weights are logged and no constant weights explain the total (R2 = {explained:.3f})"
        )
    terms = " + ".join(f"{w:.4g} x {n}" for w, n in zip(weights, names, strict=True) if w > 0)
    table = _table(wide, names, "raw", pl.DataFrame({"step": wide["step"]}).unique().join(
        pl.DataFrame({"component": names, "weight": weights}), how="cross"))  # fmt: skip
    rows, _ = account(table)
    return PlainLosses(None, f"the total is explained by {terms} (R2 = {explained:.6f})", _ONLY_SUM, rows)


_ONLY_SUM = "no weights are logged or planned; they were inferred, and what is inferred cannot be judged"


def explain_total(total: Floats, parts: Floats, half: float = 0.0) -> tuple[list[float], float]:
    """Weights (not negative) of the columns of `parts` that explain `total`, and the share of its variance, R2.

    Least squares without a constant; a component whose weight comes out negative is left out, the most negative
    first. `half` is the printing error. Everything must be finite; a constant total has an R2 of 1 or 0.

    >>> x = np.random.default_rng(0).random((50, 2))
    >>> weights, r2 = explain_total(x @ [0.7, 0.3], x)
    >>> [round(w, 6) for w in weights], round(r2, 6)
    ([0.7, 0.3], 1.0)
    """
    kept = list(range(parts.shape[1]))
    weights = np.zeros(parts.shape[1])
    while kept:
        fit = fit_weights(parts[:, kept], total, np.full((len(total), len(kept)), half), np.full(len(total), half))
        if fit.weights.min() >= 0:
            weights[kept] = fit.weights
            break
        kept.pop(int(fit.weights.argmin()))
    left = float(np.sum((total - parts @ weights) ** 2))
    spread = float(np.sum((total - total.mean()) ** 2))
    if spread == 0:
        return weights.tolist(), 1.0 if left <= len(total) * max(half, FLOAT32 * abs(total[0])) ** 2 else 0.0
    return weights.tolist(), 1 - left / spread
