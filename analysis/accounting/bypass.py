"""Components that enter the total although their weight is 0, found from the numbers alone."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.accounting.effective_weights import EffectiveWeight, explain_residual, fit_weights
from analysis.accounting.loss_account import LARGEST, span
from analysis.findings import Finding

__all__ = ["bypass_finding", "find_bypasses", "hidden_weights"]

Floats = NDArray[np.float64]

#: A bypass of a larger share of the total than this is critical.
CRITICAL_SHARE = 0.01
#: A bypass shows in at least this many records, or in all where fewer could show it.
_LEAST_ROWS = 3


def find_bypasses(rows: pl.DataFrame, totals: pl.DataFrame) -> list[EffectiveWeight]:
    """Components with weight 0 that enter the total, with the weight that they have in truth, largest share first.

    `rows` and `totals` are the frames of `analysis.accounting.loss_account.account`; `rows.weight` says what is
    declared. First what the log prints as entering (contribution, or weighted where no contribution is printed) is
    held against 0.
    Then what is left of the totals is explained by raw values of components with weight 0, where it can be.
    """
    direct = [found for (_, part) in rows.group_by("component", maintain_order=True) if (found := _direct(part))]
    listed = {found.component for found in direct}
    left = [found for found in hidden_weights(rows, totals) if found.component not in listed]
    return sorted(direct + left, key=lambda found: (-abs(_number(found.share)), found.component))


def _direct(part: pl.DataFrame) -> EffectiveWeight | None:
    """A component whose printed entry differs from 0 by more than printing allows while its weight is 0."""
    part = part.sort("at")
    weight = pl.col("weight").fill_null(math.nan)
    # at a change of phase the printed weight may belong to the step before or after: those records prove nothing
    beside = pl.max_horizontal(
        weight.abs().fill_nan(0).shift(1).fill_null(0), weight.abs().fill_nan(0).shift(-1).fill_null(0)
    )
    allowed = pl.coalesce("tolerance", "half_entered")
    could = part.filter((weight == 0) & (beside == 0) & (pl.col("entered").abs() < LARGEST))
    shown = could.filter(pl.col("entered").abs() > allowed)
    if shown.is_empty() or shown.height < min(_LEAST_ROWS, could.height):
        return None
    component = str(part["component"][0])
    seen = shown.filter((pl.col("raw").abs() < LARGEST) & (pl.col("raw") != 0))
    value, low, high = math.nan, math.nan, math.nan
    if seen.height:
        raw, entered = _column(seen, "raw"), _column(seen, "entered")
        fit = fit_weights(raw[:, None], entered, _column(seen, "half_raw")[:, None], _column(seen, "half_entered"))
        value, low, high = float(fit.weights[0]), float(fit.low[0]), float(fit.high[0])
    share = shown["share"].abs().median()
    return EffectiveWeight(component, value, low, high, shown.height, _number(share), *span(shown))


def hidden_weights(rows: pl.DataFrame, totals: pl.DataFrame) -> list[EffectiveWeight]:
    """What the totals hold beyond the sum, as raw values of components that enter with nothing, times a constant.

    Only components with weight 0 (or with a raw value and no weight at all) and nothing printed as entering are
    candidates. Empty where no total is off, or where these do not explain it.
    """
    off = totals.filter(pl.col("residual").abs() > pl.col("tolerance")).select("at", "total", "residual", "tolerance")
    idle = rows.filter(
        (pl.col("raw").abs() < LARGEST) & (pl.col("weight").fill_null(0) == 0) & (pl.col("entered").fill_null(0) == 0)
    )
    if off.is_empty() or idle.is_empty():
        return []
    judged = idle.join(off, on="at", how="inner", suffix="_of_total").sort("at", "component")
    names = sorted(judged["component"].unique().to_list())
    wide = off.join(judged.select("at", "step").unique("at"), on="at", how="inner").sort("at")
    raws: dict[str, Floats] = {}
    halves: dict[str, Floats] = {}
    for name in names:
        own = wide.select("at").join(judged.filter(pl.col("component") == name), on="at", how="left").sort("at")
        raws[name] = own["raw"].fill_null(0.0).to_numpy()
        halves[name] = own["half_raw"].fill_null(0.0).to_numpy()
    found = explain_residual(_column(wide, "residual"), _column(wide, "tolerance"), raws, halves)
    total = np.abs(_column(wide, "total"))
    made = []
    for name, (weight, low, high) in (found or {}).items():
        there = (raws[name] != 0) & (total > 0)
        share = float(np.median(np.abs(weight * raws[name][there]) / total[there])) if there.any() else math.nan
        active = wide.filter(pl.Series(raws[name] != 0))
        made.append(EffectiveWeight(name, weight, low, high, active.height, share, *span(active)))
    return made


def bypass_finding(run: str, found: EffectiveWeight) -> Finding:
    """The finding for a bypass: critical above 1 % of the total, else a warning."""
    share = _number(found.share)
    known = math.isfinite(found.weight)
    weight = f"effective weight {found.weight:#.3g}" if known else "effective weight unknown, no raw value is logged"
    if known and found.low < found.high:
        weight += f" (± {(found.high - found.low) / 2:.2g} at 95 %)"
    part = f", {100 * share:.2g} % of the total" if share else ""
    where = f"in {found.rows} record{'s' if found.rows != 1 else ''}"
    return Finding(
        "curriculum-bypass",
        "critical" if share > CRITICAL_SHARE else "warning",
        run,
        f"{found.component} enters the total although its weight is 0: {weight}{part}, {where}",
        metric=found.component,
        first_step=found.first_step,
        last_step=found.last_step,
        evidence={
            "declared_weight": 0.0,
            "effective_weight": found.weight,
            "weight_low": found.low,
            "weight_high": found.high,
            "share_of_total": found.share,
            "records": found.rows,
        },
        causes=(
            f"a fixed factor of {found.weight:#.3g} is applied to {found.component} where the curriculum weight belongs"
            if known
            else f"{found.component} is added to the total without its curriculum weight",
            "the component is added inside a module (router, auxiliary head) that does not know the curriculum",
        ),
        suggestions=(
            f"multiply {found.component} by its curriculum weight at the place where the total is summed",
            "log the weight at the moment of summing, not where the schedule is computed",
            "or declare the effective weight in the plan if the component is meant to be active",
        ),
    )


def _column(frame: pl.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy().astype(np.float64)


def _number(value: object) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
