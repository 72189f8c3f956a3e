"""Checks of single components and of the displayed loss: product of raw and weight, components that never enter."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.accounting.loss_account import LARGEST, printed, span
from analysis.findings import Finding, Severity
from analysis.limits import Gauge, Limits

__all__ = ["judge_activity", "judge_display", "judge_products"]

Floats = NDArray[np.float64]

#: Typical relative error of raw x weight from which it is critical, where the limit of the kind is at its default.
_CRITICAL = 0.1
_FACTOR_AGREES = 1e-3
_DISPLAY_CAUSES = (
    "the progress bar shows an average, or the loss of another step",
    "a term is added to the one and not to the other",
)
_DISPLAY_SUGGESTIONS = (
    "display the value that is passed to backward()",
    "label the displayed value when it is smoothed or scaled",
)


def judge_products(run: str, rows: pl.DataFrame, gauge: Gauge | None = None) -> list[Finding]:
    """Components whose entry is not raw x weight although the weight is not 0 (weight 0 is a bypass, see curriculum).

    One common factor for two or more components is another convention (gradient accumulation, mean) and is one info.
    """
    gauge = gauge or Gauge()
    printed_entry = pl.col("contribution").is_not_null() | pl.col("weighted").is_not_null()
    judged = rows.filter(
        printed_entry & (pl.col("residual").abs() < LARGEST) & (pl.col("weight") != 0) & (pl.col("expected") != 0)
    )
    off = judged.filter(pl.col("residual").abs() > pl.col("tolerance"))
    for name in judged["component"].unique(maintain_order=True):
        gauge.keep("weight-not-applied", _relative(off.filter(pl.col("component") == name)), str(name))
    if off.is_empty():
        return []
    factor = _common_factor(judged, off)
    if factor is not None:
        return [_scaled(run, off, factor)]
    parts = off.group_by("component", maintain_order=True)
    return [_product(run, part, judged.filter(pl.col("component") == name), gauge.limits) for (name,), part in parts]


def _relative(off: pl.DataFrame) -> float:
    """Typical relative error of the records that are off; 0 where none is."""
    if off.is_empty():
        return 0.0
    return float(np.median(np.abs(off["residual"].to_numpy() / off["expected"].to_numpy())))


def _common_factor(judged: pl.DataFrame, off: pl.DataFrame) -> float | None:
    """The one factor between entry and raw x weight of all components, where there are at least two and it is one."""
    ratios = off.select("component", ratio=pl.col("entered") / pl.col("expected"))
    typical = ratios.group_by("component").agg(pl.col("ratio").median(), pl.col("ratio").std().alias("spread"))
    middle = float(np.median(typical["ratio"].to_numpy()))
    if typical.height < 2 or typical.height < judged["component"].n_unique() or middle <= 0:
        return None
    agree = np.abs(ratios["ratio"].to_numpy() / middle - 1) <= _FACTOR_AGREES
    return middle if np.mean(agree) >= 0.95 else None


def _scaled(run: str, off: pl.DataFrame, factor: float) -> Finding:
    first_step, last_step = span(off)
    return Finding(
        "weight-not-applied",
        "info",
        run,
        f"all components enter with {factor:.4g} times raw x weight: one scale for all, as for a mean or gradient"
        " accumulation",
        first_step=first_step,
        last_step=last_step,
        evidence={"factor": factor, "records_off": off.height},
        causes=("the entries are divided for gradient accumulation or averaged",),
    )


def _product(run: str, off: pl.DataFrame, judged: pl.DataFrame, limits: Limits) -> Finding:
    component = str(off["component"][0])
    relative = _relative(off)
    limit, scale = limits.of("weight-not-applied", component), limits.scale("weight-not-applied", component)
    applied = off.filter(pl.col("raw") != 0).select((pl.col("entered") / pl.col("raw")).median()).item()
    boundary = off.height <= 2 < judged.height and _beside_a_change(off, judged)
    severity: Severity = "info"
    if relative >= limit and not boundary:
        severity = "critical" if relative >= _CRITICAL * scale and off.height * 2 >= judged.height else "warning"
    first = off.row(0, named=True)
    first_step, last_step = span(off)
    cause = (
        "the weight is logged one step before or after it is applied"
        if boundary
        else f"a weight of {applied:.4g} is applied to {component} instead of the logged one"
    )
    return Finding(
        "weight-not-applied",
        severity,
        run,
        f"{component}: {printed(first['entered'])} enters, raw x weight is {printed(first['raw'])} x"
        f" {printed(first['weight'])} = {printed(first['expected'])} at step {first['step']};"
        f" {off.height} of {judged.height} records are off, typically by {100 * relative:.2g} %",
        metric=component,
        first_step=first_step,
        last_step=last_step,
        evidence={
            "records_off": off.height,
            "records_judged": judged.height,
            "relative_difference": relative,
            "limit": limit,
            "applied_weight": applied,
            "declared_weight": float(first["weight"]),
            "at_change_of_weight": boundary,
        },
        causes=(cause, "the logged raw value is averaged differently from the weighted one"),
        suggestions=(
            f"compare the weight at the place where {component} is multiplied with the one that is logged",
            "log raw, weight and weighted value at the same moment",
        ),
    )


def _beside_a_change(off: pl.DataFrame, judged: pl.DataFrame) -> bool:
    changed = judged.sort("at").with_columns(
        moved=(pl.col("weight") != pl.col("weight").shift(1)) | (pl.col("weight") != pl.col("weight").shift(-1))
    )
    return bool(changed.filter(pl.col("at").is_in(off["at"].to_list()))["moved"].fill_null(True).all())


#: So much of the records, at the end, a component must be 0 to have ceased.
_CEASED = 0.1
#: What is said of a displayed loss that is a whole multiple of the total.
_SUMMED = "it is the total times"


def judge_display(run: str, totals: pl.DataFrame, gauge: Gauge | None = None) -> list[Finding]:
    """The finding that the displayed loss is not the total, with what relates the two, or none."""
    gauge = gauge or Gauge()
    limit = gauge.limits.of("loss-display-mismatch", "displayed")
    both = totals.filter(pl.col("display_difference").is_not_null())
    off = both.filter(pl.col("display_difference").abs() > pl.col("display_tolerance"))
    if off.is_empty():
        gauge.keep("loss-display-mismatch", 0.0 if both.height else math.nan, "displayed")
        return []
    difference, size = off["display_difference"].to_numpy(), np.abs(off["total"].to_numpy())
    relative = float(np.median(np.abs(difference) / np.maximum(size, 1e-300)))
    related = _relation(both)
    # a sum over steps that nothing divides again reads too high, whatever the reason; the rest are conventions
    usual = related is not None and not related.startswith(_SUMMED)
    gauge.keep("loss-display-mismatch", 0.0 if usual else relative, "displayed")
    first_step, last_step = span(off)
    first = off.row(0, named=True)
    return [
        Finding(
            "loss-display-mismatch",
            "info" if usual or relative < limit else "warning",
            run,
            _display_message(first, off.height, both.height, relative) + (f"; {related}" if related else ""),
            metric="displayed",
            first_step=first_step,
            last_step=last_step,
            evidence={
                "displayed": float(first["displayed"]),
                "total": float(first["total"]),
                "difference": round(float(first["display_difference"]), 12),
                "median_difference": round(float(np.median(difference)), 12),
                "relative_difference": relative,
                "limit": limit,
                "records_off": off.height,
                "records_judged": both.height,
            },
            causes=((related,) if related else ()) + _DISPLAY_CAUSES,
            suggestions=_DISPLAY_SUGGESTIONS,
        )
    ]


def _display_message(first: dict[str, Any], off: int, judged: int, relative: float) -> str:
    half = first["half_displayed"]
    shown, total, apart = (
        printed(abs(first[name]) if name == "display_difference" else first[name], half)
        for name in ("displayed", "total", "display_difference")
    )
    return (
        f"the displayed loss differs from the total by {apart}: {shown} against {total} at step {first['step']}"
        f" (typically {100 * relative:.2g} %, in {off} of {judged} records)"
    )


def _relation(both: pl.DataFrame) -> str | None:
    """How displayed and total belong together, where they do: scaled, one record late, running mean, smoothed."""
    shown, total, scaled = (both[c].fill_null(math.nan).to_numpy() for c in ("displayed", "total", "scaled_total"))
    allowed = both["display_tolerance"].to_numpy()
    if np.mean(np.abs(shown - scaled) <= allowed) >= 0.95:
        return "it is the total scaled for gradient accumulation"
    if len(shown) < 10:
        return None
    whole = round(float(np.median(np.maximum(shown / total, total / shown))))
    if whole > 1:
        for word, guess in (("it is the total divided by", total / whole), (_SUMMED, total * whole)):
            if np.mean(np.abs(shown - guess) <= allowed * whole) >= 0.95:
                return f"{word} {whole}"
    if np.mean(np.abs(shown[1:] - total[:-1]) <= allowed[1:]) >= 0.95:
        return "it is the total of the record before"
    mean = np.cumsum(total) / np.arange(1, len(total) + 1)
    if np.mean(np.abs(shown - mean) <= allowed + 1e-6 * np.abs(mean)) >= 0.95:
        return "it is the running mean of the total"
    return _smoothed(shown, total)


def _smoothed(shown: Floats, total: Floats) -> str | None:
    towards, moved = total[1:] - shown[:-1], np.diff(shown)
    if not np.any(towards):
        return None
    rate = float(towards @ moved / (towards @ towards))
    left = moved - rate * towards
    if 0 < rate < 1 and np.sum(left**2) <= 0.02 * np.sum(moved**2):
        return f"it is the total smoothed with a rate of {rate:.3g}"
    difference = shown - total
    middle = float(np.median(difference))
    if abs(middle) < 0.5 * 1.4826 * float(np.median(np.abs(difference - middle))):
        return "it scatters around the total, as a smoothed value or another batch's does"
    return None


def judge_activity(
    run: str, rows: pl.DataFrame, planned_active: dict[str, float], hidden: Collection[str] = ()
) -> Iterator[Finding]:
    """Components that never enter the total: a warning where their weight, or the plan's, says that they should.

    So are those that cease to, from one record to the next, while they have weight.

    `planned_active` maps components to the largest weight that the plan gives them at a logged step; `hidden` are
    components that the totals hold although nothing says so, which therefore do not stay out.
    """
    entering = rows.filter(pl.col("entered").is_not_null())
    entering = entering if entering["at"].is_sorted() else entering.sort("at", maintain_order=True)
    for name in entering["component"].unique(maintain_order=True):
        known = entering.filter(pl.col("component") == name)
        if name not in hidden and known.filter(pl.col("entered") != 0).is_empty():
            yield _inactive(run, name, known, planned_active.get(name, 0.0))
        elif (since := _ceases(known)) is not None:
            yield _ceased(run, name, known, since)


def _ceases(known: pl.DataFrame) -> int | None:
    """The record from which a component with weight is exactly 0 to the end, a tenth of the records or more; else None.

    None where it had been 0 before, or had shrunk to half of what it was: a margin that is met more and more often.
    """
    entered, weight = np.abs(known["entered"].to_numpy()), known["weight"].fill_null(0.0).to_numpy()
    alive = np.flatnonzero(entered != 0)
    since, n = (int(alive[-1]) + 1 if len(alive) else 0), len(entered)
    if n - since < max(_CEASED * n, 5) or since < 5 or not np.all(weight[since:] > 0):
        return None
    before = entered[:since][weight[:since] > 0]
    if len(before) < 5 or np.any(before == 0):
        return None
    return since if before[-3:].min() >= 0.5 * np.median(before[-20:]) else None


def _ceased(run: str, name: str, known: pl.DataFrame, since: int) -> Finding:
    first, (_, last_step) = int(known["step"][since]), span(known)
    before = float(np.median(np.abs(known["entered"].to_numpy()[:since])))
    return Finding(
        "inactive-component",
        "warning",
        run,
        f"{name} is exactly 0 in all {known.height - since} records from step {first} on, where it added {before:.3g} "
        f"before, and its weight is still {float(known['weight'][-1]):g}",
        metric=name,
        first_step=first,
        last_step=last_step,
        evidence={
            "records": known.height,
            "records_at_zero": known.height - since,
            "typical_before": before,
            "largest_weight": float(known["weight"][since:].max()),  # type: ignore[arg-type]
        },
        causes=("its inputs went missing, or are masked out or detached, from that step on (records_at_zero)",),
        suggestions=(f"look at what changed at step {first}: data, phase, a flag", f"check that {name} is computed"),
    )


def _inactive(run: str, name: str, known: pl.DataFrame, planned: float) -> Finding:
    logged = float(np.nanmax(np.append(np.abs(known["weight"].drop_nulls().to_numpy()), 0.0)))
    raw = known["raw"].drop_nulls().to_numpy()
    should = logged > 0 or planned > 0
    first_step, last_step = span(known)
    records = f"{known.height} record{'s' if known.height != 1 else ''}"
    stated = f"weight up to {logged:g}, but it adds 0" if logged > 0 else "weight 0, it adds 0"
    if planned > 0:
        stated += f"; planned weight up to {planned:g}"
    return Finding(
        "inactive-component",
        "warning" if should and known.height >= 3 else "info",
        run,
        f"{name} stays out of the total in {'all ' if known.height > 1 else ''}{records}: {stated}",
        metric=name,
        first_step=first_step,
        last_step=last_step,
        evidence={
            "records": known.height,
            "largest_weight": logged,
            "planned_weight": planned,
            "median_raw": float(np.median(raw)) if len(raw) else math.nan,
            "largest_printing_error": float(np.max(known["half_entered"].fill_null(0.0).to_numpy())),
        },
        causes=("its loss is exactly 0: inputs missing, masked out, or detached",) if should else (),
        suggestions=(f"check that {name} is computed and added",) if should else (),
    )
