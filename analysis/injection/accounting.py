"""Faults of the loss's account and of the curriculum, in the numbers that a `losses` record becomes."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from analysis.injection.draft import Draft, Part
from analysis.injection.fault import Fault
from analysis.injection.shapes import Floats
from parsers.naming.role_layout import SeriesRole

__all__ = ["FAULTS"]

_PART = re.compile(r"losses/(?P<name>.+)/(?P<what>raw|weight|weighted|contribution)")
_TOTAL, _SHOWN = "losses/total", "losses/displayed"
#: Rows that tell with how many decimals a number is printed.
_FEWEST = 10
_RECORD = "record the account of the loss: rec.losses(step, {'kd': (raw, weight)}, total=total)"


def _components(draft: Draft, *needed: str) -> dict[str, dict[str, SeriesRole]]:
    """Component -> what is logged of it -> series; those only that have all that is `needed`."""
    found: dict[str, dict[str, SeriesRole]] = {}
    for one in draft.run.roles:
        if part := _PART.fullmatch(one.metric):
            found.setdefault(part["name"], {})[part["what"]] = one
    if draft.metric is not None:
        asked = _PART.fullmatch(draft.metric)
        found = {name: found[name] for name in found if name in (draft.metric, asked and asked["name"])}
    fit = {name: parts for name, parts in found.items() if set(needed) <= set(parts)}
    if not fit:
        raise draft.refused(f"no component is logged with {' and '.join(needed)}; {_RECORD}")
    return fit


def _total(draft: Draft) -> SeriesRole:
    total = draft.found(_TOTAL)
    if total is None:
        raise draft.refused(f"no total is logged beside the components; {_RECORD}")
    return total


def _values(draft: Draft, series: SeriesRole) -> pl.DataFrame:
    """Rank, step and value of a series, and whether the row is at the onset or behind it."""
    parts = [
        pl.DataFrame({"rank": np.full(len(p.step), p.rank), "step": p.step, "own": p.value, "inside": p.inside})
        for p in draft.parts(series)
    ]
    return pl.concat(parts)


def _at(table: pl.DataFrame, part: Part) -> Floats:
    """What a table of rank, step and `delta` says at the rows of a part; 0 where it says nothing."""
    told = table.filter(pl.col("rank") == part.rank).unique("step", keep="last").select("step", "delta")
    rows = pl.DataFrame({"step": part.step}).join(told, on="step", how="left", maintain_order="left")
    return rows["delta"].fill_null(0.0).to_numpy()


def _enter(draft: Draft, table: pl.DataFrame, *, shown_too: bool = True) -> None:
    """Add `delta` to the total, and show the new total wherever the old one was shown."""
    total, shown = draft.found(_TOTAL), draft.found(_SHOWN)
    if total is not None:
        old = _values(draft, total)
        draft.change(total, lambda part: part.value + _at(table, part))
        if shown is not None and shown_too:
            draft.change(shown, lambda part: _shown(part, _at(old.with_columns(delta="own"), part), _at(table, part)))


def _shown(part: Part, total: Floats, delta: Floats) -> Floats:
    """What a display shows once `delta` is added: the rounded total where it showed that."""
    decimals = _printed(part)
    if decimals is None:
        return part.value + delta
    told = np.abs(part.value - total) <= 0.50001 * 10.0**-decimals
    return np.where(delta == 0, part.value, np.round(np.where(told, total, part.value) + delta, decimals))


def _printed(part: Part) -> int | None:
    """The decimals that a series is printed with, two to ten, where ten rows or more tell; a display that suddenly
    shows more of them would be another fault."""
    known = part.value[np.isfinite(part.value)]
    fits = (n for n in range(2, 11) if np.array_equal(np.round(known, n), known))
    return next(fits, None) if len(known) >= _FEWEST else None


def _largest(draft: Draft, components: dict[str, dict[str, SeriesRole]], what: str) -> str:
    """The component whose numbers are the largest behind the onset: in nine rows of ten, then in the median."""

    def size(name: str) -> tuple[float, float]:
        rows = [np.abs(p.value[p.inside & np.isfinite(p.value)]) for p in draft.parts(components[name][what])]
        known = np.concatenate(rows) if rows else np.empty(0)
        return (float(np.quantile(known, 0.1)), float(np.median(known))) if len(known) else (0.0, 0.0)

    return max(components, key=size)


def _sum(draft: Draft) -> None:
    total = _total(draft)
    _components(draft, "weighted")
    draft.begin(total)
    more = _values(draft, total).filter("inside").with_columns(delta=pl.col("own") * draft.size)
    _enter(draft, more, shown_too=draft.consequences)


def _display(draft: Draft) -> None:
    shown = draft.found(_SHOWN)
    if shown is None:
        raise draft.refused("no displayed loss is logged beside the total; record it: rec.losses(..., displayed=shown)")
    components = _components(draft, "weighted")
    draft.begin(shown)
    own = _values(draft, components[_largest(draft, components, "weighted")]["weighted"]).filter("inside")
    left_out = own.with_columns(delta=pl.col("own") * -draft.size)
    total = draft.found(_TOTAL)
    told = None if total is None else _values(draft, total).with_columns(delta="own")
    draft.change(shown, lambda part: _shown(part, part.value if told is None else _at(told, part), _at(left_out, part)))


def _unweighted(draft: Draft) -> None:
    components = _components(draft, "raw", "weight", "weighted")
    draft.begin(next(iter(components.values()))["weighted"])
    name = _largest(draft, components, "weighted")
    _scaled(draft, components[name], 1 + draft.size, whole=False)


def _inactive(draft: Draft) -> None:
    components = _components(draft, "weight", "weighted")
    draft.begin(next(iter(components.values()))["weighted"])
    _scaled(draft, components[_largest(draft, components, "weighted")], 0.0, whole=True)


def _scaled(draft: Draft, parts: dict[str, SeriesRole], factor: float, *, whole: bool) -> None:
    """What a component adds, times a factor; the total goes along."""
    own = _values(draft, parts["weighted"]).filter(pl.col("inside") | whole)
    for what in ("weighted", "contribution"):
        if what in parts:
            draft.change(parts[what], lambda part: np.where(part.inside | whole, part.value * factor, part.value))
    if draft.consequences:
        _enter(draft, own.with_columns(delta=pl.col("own") * (factor - 1)))


def _off_schedule(draft: Draft) -> None:
    """The weight that is used, and what follows from it, are 1 + `size` times what the curriculum says."""
    weights = {
        one.metric.removeprefix("curriculum/weight/"): one
        for one in draft.run.roles
        if one.metric.startswith("curriculum/weight/")
    }
    used = {} if draft.found(_TOTAL) is None else _components(draft, "weight")
    series = {**{name: parts["weight"] for name, parts in used.items()}, **weights}
    if draft.metric is not None:
        series = {name: series[name] for name in series if draft.metric in (name, series[name].metric)}
    if not series:
        raise draft.refused("no weights are logged; record them: rec.curriculum(step, phase, progress, weights)")
    draft.begin(next(iter(series.values())))
    name = _largest(draft, {key: {"weight": one} for key, one in series.items()}, "weight")
    for one in (weights.get(name), used.get(name, {}).get("weight")):
        if one is not None:
            draft.scale(one, lambda rows: np.where(rows >= 0, 1 + draft.size, 1.0))
    if draft.consequences and "weighted" in used.get(name, {}):
        _scaled(draft, used[name], 1 + draft.size, whole=False)


def _bypass(draft: Draft) -> None:
    """A component enters the total by `size` of its raw value where its weight is 0."""
    total = _total(draft)
    components = _components(draft, "raw", "weight")
    draft.begin(total)
    entering = {name: _while_off(draft, parts) for name, parts in components.items()}
    name = max(entering, key=lambda name: entering[name].height)
    if entering[name].is_empty():
        raise draft.refused("no component has a weight of 0 there: give an earlier `at`")
    _enter(draft, entering[name].with_columns(delta=pl.col("own") * draft.size))


def _while_off(draft: Draft, parts: dict[str, SeriesRole]) -> pl.DataFrame:
    raw = _values(draft, parts["raw"]).filter("inside")
    weight = _values(draft, parts["weight"]).select("rank", "step", weight="own")
    return raw.join(weight, on=["rank", "step"], how="inner").filter((pl.col("weight") == 0) & (pl.col("own") != 0))


FAULTS = (
    Fault(
        "loss-sum-mismatch",
        "the total (and what is displayed of it) is larger than its components by `size` of itself",
        _sum, "share of the total", 0.1, 0.0, 0.0, 1e3,
    ),
    Fault(
        "loss-display-mismatch",
        "the displayed loss leaves `size` of the largest component out",
        _display, "share of the component", 1.0, 0.0, 0.0, 1.0,
    ),
    Fault(
        "weight-not-applied",
        "the largest component enters with 1 + `size` times raw x weight; the total goes along",
        _unweighted, "share of raw x weight", 0.5, 0.0, 0.0, 1e3,
    ),
    Fault(
        "inactive-component",
        "the largest component adds exactly 0 in the whole run although it has a weight; the total goes along",
        _inactive, placed=False,
    ),
    Fault(
        "curriculum-off-schedule",
        "the largest weight is 1 + `size` times what it was; the component and the total go along",
        _off_schedule, "share of the weight", 0.5, 0.0, 0.0, 1e3,
    ),
    Fault(
        "curriculum-bypass",
        "a component enters the total by `size` of its raw value while its weight is 0",
        _bypass, "effective weight", 0.2, 0.0, 0.0, 1e3,
    ),
)  # fmt: skip
