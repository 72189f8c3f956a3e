from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.curriculum import FRAME, curriculum
from analysis.losses import losses
from parsers.finish import finish
from parsers.loading import load
from parsers.plan import Plan

PLAN: dict[str, Any] = {
    "max_steps": 3000,
    "curriculum": {
        "phases": [
            {"name": "warm", "start": 0, "weights": {"kd": 0.7, "feature": 0.0, "router": 0.0}},
            {"name": "align", "start": 1000, "weights": {"kd": 0.5, "feature": 0.3, "router": 0.0}, "ramp": "linear",
             "ramp_length": 200},
            {"name": "end", "start": 2000, "weights": {"kd": 0.4, "feature": 0.2, "router": 0.0}},
        ]
    },
}  # fmt: skip
NAMES = ["kd", "feature", "router"]
STEPS = np.arange(0, 3000, 10)


def planned(at: np.ndarray, plan: dict[str, Any] = PLAN) -> dict[str, np.ndarray]:
    """The planned weights read at other steps than their own; before the first phase the first phase's."""
    frame = Plan.from_mapping(plan).planned_weights(np.maximum(at, 0))
    return {n: frame.filter(pl.col("component") == n)["weight"].to_numpy() for n in NAMES}


def log(
    logs: SimpleNamespace,
    seed: int = 0,
    at: np.ndarray | None = None,
    plan: dict[str, Any] | None = PLAN,
    epoch: Any = None,
    **options: Any,
) -> Any:
    columns = logs.losses_of(logs.raws(seed, len(STEPS), NAMES), planned(STEPS if at is None else at), **options)
    return logs.run_of(columns, STEPS, plan=plan, epoch=epoch)


@pytest.mark.parametrize("options", [{}, {"decimals": 4}, {"decimals": 3}, {"listed": True}, {"divide": 4}])
def test_healthy_runs_are_silent(logs: SimpleNamespace, options: dict[str, Any]) -> None:
    loud = [seed for seed in range(20) if logs.kinds(curriculum(log(logs, seed, **options)), "info")]
    assert loud == [], "no seed of 20 may say anything"


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("decimals", [None, 4])
@pytest.mark.parametrize("share", [0.003, 0.03, 0.3])
def test_a_bypass_of_any_share_is_found_with_its_weight(
    logs: SimpleNamespace, share: float, decimals: int | None, listed: bool
) -> None:
    found, held = 0, 0
    for seed in range(10):
        raw = logs.raws(seed, len(STEPS), NAMES)
        weight = planned(STEPS)
        true = share * float(np.median(raw["kd"] * weight["kd"] + raw["feature"] * weight["feature"]))
        true = float(np.float32(true / np.median(raw["router"])))
        columns = logs.losses_of(raw, weight, hidden={"router": true}, decimals=decimals, listed=listed)
        result = curriculum(logs.run_of(columns, STEPS, plan=PLAN))
        bypasses = [b for b in result.bypasses if b.component == "router"]
        found += len(bypasses)
        assert [f.severity for f in result.findings] == ["critical" if bypasses[0].share > 0.01 else "warning"]
        assert bypasses[0].weight == pytest.approx(true, rel=0.02)
        assert bypasses[0].share == pytest.approx(share / (1 + share), rel=0.5)
        width = max(bypasses[0].high - bypasses[0].low, 1e-6 * true)
        held += abs(bypasses[0].weight - true) <= width
    assert found == 10 and held >= 9


def test_a_bypass_is_found_without_a_plan(logs: SimpleNamespace) -> None:
    result = curriculum(log(logs, plan=None, hidden={"router": 0.02}))
    assert [(b.component, round(b.weight, 6)) for b in result.bypasses] == [("router", 0.02)]
    assert result.not_applicable[0].reason == "no plan"


def test_a_bypass_that_begins_later_is_found_from_there_on(logs: SimpleNamespace) -> None:
    raw = logs.raws(0, len(STEPS), NAMES)
    columns = logs.losses_of(raw, planned(STEPS), listed=True)
    extra = np.where(STEPS >= 1500, 0.05 * raw["router"], 0.0)
    columns["losses/router/contribution"] = columns["losses/router/contribution"] + extra
    columns["losses/total"] = columns["losses/total"] + extra
    (finding,) = curriculum(logs.run_of(columns, STEPS, plan=PLAN)).findings
    assert (finding.kind, finding.first_step, finding.last_step) == ("curriculum-bypass", 1500, 2990)


def test_a_single_record_suffices_where_the_entry_is_printed(logs: SimpleNamespace) -> None:
    raw = {name: values[:1] for name, values in logs.raws(0, 5, NAMES).items()}
    weights = {"kd": 0.7, "feature": 0.1, "router": 0.0}
    columns = logs.losses_of(raw, weights, hidden={"router": 0.25}, listed=True)
    (bypass,) = curriculum(logs.run_of(columns, [1])).bypasses
    assert bypass.weight == pytest.approx(0.25) and bypass.rows == 1
    silent = logs.losses_of(raw, weights, hidden={"router": 0.25})
    assert curriculum(logs.run_of(silent, [1])).bypasses == (), "one total alone blames nobody"


def test_a_constant_raw_value_is_not_told_from_a_constant(logs: SimpleNamespace) -> None:
    raw = {**logs.raws(0, 60, ["kd", "feature"]), "router": np.full(60, 4.0)}
    columns = logs.losses_of(raw, {"kd": 0.7, "feature": 0.1, "router": 0.0}, hidden={"router": 0.25})
    run = logs.run_of(columns, np.arange(60))
    assert curriculum(run).bypasses == ()
    assert losses(run).findings[0].evidence["explanation"] == "constant"


def test_nan_records_do_not_hide_a_bypass(logs: SimpleNamespace) -> None:
    raw = logs.raws(0, len(STEPS), NAMES)
    columns = logs.losses_of(raw, planned(STEPS), hidden={"router": 0.02})
    for tag in columns:
        columns[tag] = np.where(np.arange(len(STEPS)) % 5 == 0, np.nan, columns[tag])
    (bypass,) = curriculum(logs.run_of(columns, STEPS, plan=PLAN)).bypasses
    assert bypass.weight == pytest.approx(0.02, rel=1e-4) and bypass.rows == 240


@pytest.mark.parametrize("shift", [-300, 100, 500])
def test_a_shifted_schedule_is_named_with_its_shift(logs: SimpleNamespace, shift: int) -> None:
    result = curriculum(log(logs, at=STEPS - shift))
    found = {f.metric: f for f in result.findings}
    assert set(found) == {"kd", "feature"} and result.status in ("warning", "critical")
    assert found["kd"].first_step == 1010 + min(shift, 0)
    assert all(f.evidence["explanation"] == "shift" for f in found.values())
    assert found["kd"].evidence["number"] == pytest.approx(shift, abs=10)
    assert ("late" if shift > 0 else "early") in found["kd"].message


@pytest.mark.parametrize("shift", [-1, 1])
def test_counting_from_0_or_from_1_is_said_and_no_fault(logs: SimpleNamespace, shift: int) -> None:
    result = curriculum(log(logs, at=STEPS - shift))
    assert {f.severity for f in result.findings} == {"info"}
    assert "counted from 0 and from 1" in result.findings[0].message


def test_a_schedule_counted_in_micro_batches_is_named(logs: SimpleNamespace) -> None:
    finding = curriculum(log(logs, at=STEPS * 4)).findings[0]
    assert finding.evidence["explanation"] == "scale" and finding.evidence["number"] == pytest.approx(4, rel=0.02)
    assert "4 times too fast" in finding.message


def test_a_schedule_counted_in_epochs_is_named(logs: SimpleNamespace) -> None:
    epochs = STEPS / 100
    finding = curriculum(log(logs, at=np.floor(epochs).astype(int), epoch=epochs)).findings[0]
    assert finding.evidence["explanation"] == "epoch" and "counted in epochs" in finding.message


def test_a_wrong_number_of_steps_is_named_from_weights_and_from_progress(logs: SimpleNamespace) -> None:
    plan = {
        "max_steps": 3000,
        "curriculum": {
            "axis": "progress",
            "phases": [
                {"name": "a", "start": 0, "weights": {"kd": 0.7, "feature": 0.0, "router": 0.0}},
                {"name": "b", "start": 0.25, "weights": {"kd": 0.5, "feature": 0.3, "router": 0.0}},
            ],
        },
    }
    weights = planned(STEPS // 3, plan)
    columns = logs.losses_of(logs.raws(0, len(STEPS), NAMES), weights)
    columns["curriculum/progress"] = STEPS / 9000
    result = curriculum(logs.run_of(columns, STEPS, plan=plan))
    by_metric = {f.metric: f for f in result.findings}
    assert by_metric["kd"].evidence["explanation"] == "denominator"
    assert by_metric["kd"].evidence["number"] == pytest.approx(9000, rel=0.02)
    assert by_metric["curriculum/progress"].evidence["implied_steps"] == pytest.approx(9000)


def test_one_wrong_weight_is_found_at_its_first_step(logs: SimpleNamespace) -> None:
    weights = planned(STEPS)
    weights["feature"] = np.where(STEPS >= 2000, 0.25, weights["feature"])
    columns = logs.losses_of(logs.raws(0, len(STEPS), NAMES), weights, decimals=4)
    (finding,) = curriculum(logs.run_of(columns, STEPS, plan=PLAN)).findings
    assert (finding.kind, finding.metric, finding.first_step) == ("curriculum-off-schedule", "feature", 2000)
    assert finding.evidence["first_observed"] == 0.25 and finding.evidence["first_planned"] == 0.2
    assert "weight 0.25 instead of 0.2 from step 2000 on, 100 of 300 records differ, by up to 0.05" in finding.message


def test_weights_that_only_the_curriculum_logs_are_compared(logs: SimpleNamespace) -> None:
    columns = {f"curriculum/weight/{name}": values for name, values in planned(STEPS).items()}
    assert curriculum(logs.run_of(columns, STEPS, plan=PLAN)).findings == ()
    columns["curriculum/weight/kd"] = columns["curriculum/weight/kd"] + 0.1
    assert [f.metric for f in curriculum(logs.run_of(columns, STEPS, plan=PLAN)).findings] == ["kd"]


def events(steps: np.ndarray, phases: list[str]) -> pl.DataFrame:
    rows = [("curriculum", int(s), json.dumps({"phase": p})) for s, p in zip(steps, phases, strict=True)]
    return pl.DataFrame(rows, schema={"kind": pl.String, "step": pl.Int64, "payload": pl.String}, orient="row")


@pytest.mark.parametrize(("change", "severity"), [(1000, None), (990, "info"), (600, "warning"), ("other names", None)])
def test_phases_are_compared_by_name(logs: SimpleNamespace, change: Any, severity: str | None) -> None:
    second = change if isinstance(change, int) else 1000
    names = ["p1", "p2", "p3"] if isinstance(change, str) else ["warm", "align", "end"]
    phases = [names[0] if s < second else names[1] if s < 2000 else names[2] for s in STEPS]
    run = log(logs)
    with_events = finish("demo", "demo", "x", run.scalars, events=events(STEPS, phases), plan=PLAN)
    found = curriculum(with_events).findings
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    if severity:
        assert found[0].first_step == change and "phase 'align' instead of 'warm'" in found[0].message


def test_a_plan_that_names_unknown_components_says_which_and_the_nearest(logs: SimpleNamespace) -> None:
    plan = json.loads(json.dumps(PLAN).replace("feature", "featrue"))
    result = curriculum(log(logs, plan=plan))
    (finding,) = result.findings
    assert (finding.severity, finding.metric) == ("info", "featrue")
    assert "unknown component 'featrue'; did you mean 'feature'?" in finding.message
    nothing = curriculum(logs.run_of({"loss": [1.0, 2.0]}, [1, 2], plan=plan))
    assert nothing.findings == () and "unknown component 'featrue'" in nothing.not_applicable[0].reason


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({}, "no plan"),
        ({"max_steps": 5}, "the plan states no weights"),
        ({"curriculum": {"phases": [{"start": "x"}]}}, "phases[0].start: expected a number, found 'x'"),
    ],
)
def test_without_a_usable_plan_the_reason_is_said(logs: SimpleNamespace, plan: dict[str, Any], reason: str) -> None:
    (said,) = curriculum(log(logs, plan=plan)).not_applicable
    assert said.kind == "curriculum-off-schedule" and reason in said.reason


def test_an_empty_run_has_the_same_columns(logs: SimpleNamespace) -> None:
    empty, full = curriculum(finish("a", "a", "x")), curriculum(log(logs))
    assert empty.frame.schema == full.frame.schema == FRAME
    assert empty.schedule.schema == full.schedule.schema
    assert {n.kind for n in empty.not_applicable} == {"curriculum-off-schedule", "curriculum-bypass"}


def test_planned_and_observed_are_drawn_as_the_frame_has_them(logs: SimpleNamespace) -> None:
    result = curriculum(log(logs, hidden={"router": 0.02}))
    axes = result.plot()
    labels = {line.get_label(): line for line in axes.get_lines()}
    assert "router (weight 0, enters with 0.0200)" in labels
    kd = result.frame.filter(pl.col("component") == "kd")
    assert labels["kd"].get_ydata().tolist() == kd["observed"].to_list()
    assert any(line.get_ydata().tolist() == kd["planned"].to_list() for line in axes.get_lines())
    assert "router enters the total" in axes.get_title(loc="left")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_healthy_samples_are_silent(samples: Path, seed: int) -> None:
    run = load(samples / f"distillation-healthy-seed{seed}")
    assert curriculum(run).findings == losses(run).findings == ()


def test_the_bypassing_sample_is_found_with_the_weights_that_its_script_applies(samples: Path) -> None:
    run = load(samples / "distillation-bypass")
    found = {b.component: b.weight for b in curriculum(run).bypasses}
    assert found == pytest.approx({"routing_feature_matching": 0.016, "routing_expert_importance": 0.5}, rel=1e-4)
    assert "loss-sum-mismatch" in {f.kind for f in losses(run).findings}
