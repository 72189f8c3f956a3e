"""The table of losses, made with arrays, is what a slow and obvious reading of the same numbers gives."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.accounting import loss_table as tables
from analysis.accounting.loss_rows import one_series_each, with_occurrence, with_precision
from analysis.accounting.loss_table import FIELDS, WHOLE, loss_table
from analysis.accounting.precision import printed_decimals
from analysis.accounting.schedule import _fits, _may_fit
from analysis.accounting.weights import observed_weights
from analysis.curriculum import curriculum
from analysis.losses import losses
from parsers.finish import finish
from parsers.run import Run

TAGS = [f"losses/{c}/{f}" for c in ("kd", "a/b") for f in FIELDS] + [f"losses/{w}" for w in WHOLE]
TAGS += ["train/losses/kd/raw", "losses/other", "curriculum/weight/kd", "curriculum/weight/lone"]


def run_of(rows: list[tuple[str, int | None, float]]) -> Run:
    frame = pl.DataFrame(rows, schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64}, orient="row")
    return finish("r", "r.jsonl", "jsonl", frame)


def obvious(run: Run) -> tuple[dict[tuple[Any, str], dict[str, float]], dict[Any, dict[str, float]]]:
    """By moment and component, and by moment: what was logged first, with the weights filled in; step None first."""
    rows = with_precision(with_occurrence(one_series_each(run, "losses/", "curriculum/weight/")), run)
    logged = [row for row in rows.to_dicts() if row["metric"].startswith("losses/")]
    moments = sorted({(r["step"] is not None, r["step"] or 0, r["occurrence"]) for r in logged})
    parts: dict[tuple[Any, str], dict[str, float]] = {}
    wholes: dict[Any, dict[str, float]] = {}
    for row in logged:
        at = moments.index((row["step"] is not None, row["step"] or 0, row["occurrence"]))
        middle, _, last = row["metric"].removeprefix("losses/").rpartition("/")
        if middle and last in FIELDS:
            own = parts.setdefault((at, middle), {"step": row["step"]})
        elif not middle and last in WHOLE:
            own = wholes.setdefault(at, {"step": row["step"]})
        else:
            continue
        own.setdefault(last, row["value"])
        own.setdefault(f"half_{last}", row["half"])
    known: dict[tuple[str, Any], tuple[float, float]] = {}
    for (_, name), own in sorted(parts.items(), key=lambda item: item[0]):
        if "weight" in own:
            known.setdefault((name, own["step"]), (own["weight"], own["half_weight"]))
    for row in rows.to_dicts():
        if row["metric"].startswith("curriculum/weight/"):
            key = (row["metric"].removeprefix("curriculum/weight/"), row["step"])
            known.setdefault(key, (row["value"], row["half"]))
    for (_, name), own in parts.items():
        if "weight" not in own:
            own.update(stated(known, name, own["step"]))
    return parts, wholes


def stated(known: dict[tuple[str, Any], tuple[float, float]], name: str, step: int | None) -> dict[str, float]:
    def order(place: int | None) -> float:
        return math.inf if place is None else place

    if (name, step) in known:
        weight, half = known[name, step]
        return {"weight": weight, "half_weight": half}
    own = sorted(((order(at), value) for (c, at), value in known.items() if c == name), key=lambda pair: pair[0])
    before = [value for at, value in own if at < order(step)]
    after = [value for at, value in own if at > order(step)]
    found = {"half_weight": before[-1][1]} if before else {}
    if before and after and same(before[-1][0], after[0][0]):
        found["weight"] = before[-1][0]
    return found


def same(found: Any, expected: Any) -> bool:
    return found == expected or (
        isinstance(found, float) and isinstance(expected, float) and found != found and expected != expected
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TAGS),
            st.one_of(st.none(), st.integers(0, 6), st.sampled_from([40, 10**6, 2**60])),
            st.sampled_from([0.5, 0.25, 1.125, 3.0, math.nan, math.inf]),
        ),
        max_size=60,
    )
)
@settings(max_examples=150, deadline=None)
def test_the_tables_are_those_of_an_obvious_reading(rows: list[tuple[str, int | None, float]]) -> None:
    run = run_of(rows)
    parts, wholes = obvious(run)
    table = loss_table(run)
    assert [(r["at"], r["component"]) for r in table.components.iter_rows(named=True)] == sorted(parts)
    for row in table.components.iter_rows(named=True):
        own = parts[row["at"], row["component"]]
        for name in ("step", *FIELDS):
            assert same(row[name], own.get(name)), (name, row, own)
        assert all(row[f"half_{name}"] == own.get(f"half_{name}", 0.0) for name in FIELDS), (row, own)
    assert table.totals["at"].to_list() == sorted(wholes)
    for row in table.totals.iter_rows(named=True):
        assert all(same(row[name], wholes[row["at"]].get(name)) for name in ("step", *WHOLE))


def test_columns_and_types_are_the_same_for_a_run_without_losses() -> None:
    empty, full = loss_table(run_of([])), loss_table(run_of([("losses/kd/raw", 1, 2.0), ("losses/total", 1, 2.0)]))
    for name in ("components", "totals", "stated"):
        assert getattr(empty, name).schema == getattr(full, name).schema and getattr(empty, name).is_empty()
    assert observed_weights(run_of([])).is_empty()


def test_accounts_and_curriculum_make_the_table_once_and_let_it_go_with_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    plain = tables._made
    monkeypatch.setattr(tables, "_made", lambda run: made.append(run.name) or plain(run))
    run = run_of([(f"losses/kd/{f}", s, 1.0) for s in range(9) for f in ("raw", "weight", "weighted")])
    losses(run), curriculum(run), losses(run, tolerance=0.5)
    assert made == ["r"]
    table = weakref.ref(loss_table(run))
    del run
    gc.collect()
    assert table() is None


@given(st.lists(st.sampled_from([0.5, 0.25, 0.1, 1 / 3, 2.0, 1e-9, math.nan, 0.0]), max_size=2000), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_printed_decimals_are_those_of_all_values_however_many(values: list[float], times: int) -> None:
    all_of_them = np.array(values * times)
    known = np.unique(np.abs(all_of_them[np.isfinite(all_of_them) & (all_of_them != 0)]))
    expected = None
    if len(known) >= 3:
        fits = [
            d for d in range(8) if np.all(np.abs(known * 10.0**d - np.rint(known * 10.0**d)) <= 1e-12 * known * 10.0**d)
        ]
        expected = fits[0] if fits else None
    assert printed_decimals(all_of_them) == expected


def test_a_late_value_that_is_not_rounded_is_seen() -> None:
    values = np.tile([0.5, 0.25, 0.125], 1000)
    assert printed_decimals(values) == 3
    assert printed_decimals(np.append(values, 1 / 3)) is None


@pytest.mark.parametrize("slope", [False, True])
def test_a_few_weights_never_speak_against_a_piece_that_fits(slope: bool) -> None:
    refused = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 1500))
        steps = np.cumsum(rng.integers(1, 9, count)).astype(float)
        noise = rng.uniform(-1, 1, count) * 10.0 ** rng.uniform(-1, 0.3)
        weights = rng.normal() * 100 + (rng.normal() * steps if slope else 0.0) + noise
        line = steps - steps.mean()
        fitted = weights - (line * (line @ weights) / (line @ line) if slope else 0.0)
        tolerance = float(np.ptp(fitted)) / 2 * (1 + 1e-9)
        assert _fits(steps, weights, tolerance, slope=slope)
        refused += not _may_fit(steps, weights, tolerance / 3, slope=slope)
    assert refused > 100, "and they spare work where a piece does not"
