from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from analysis.losses import losses

NAMES = ["kd", "feature", "attention"]
WEIGHTS = {"kd": 0.7, "feature": 0.05, "attention": 0.3}


def steps(rows: int) -> np.ndarray:
    return np.arange(1, rows + 1) * 10


@pytest.mark.parametrize("decimals", [None, 3, 4, 6])
def test_healthy_accounts_are_silent(logs: SimpleNamespace, decimals: int | None) -> None:
    loud = [
        seed
        for seed in range(40)
        if losses(
            logs.run_of(logs.losses_of(logs.raws(seed, 60, NAMES), WEIGHTS, decimals=decimals), steps(60))
        ).findings
    ]
    assert loud == [], "no seed of 40 may say anything at all"


@pytest.mark.parametrize("rows", [1, 2, 5, 2000])
def test_healthy_accounts_of_any_length_are_silent(logs: SimpleNamespace, rows: int) -> None:
    for seed in range(5):
        columns = logs.losses_of(logs.raws(seed, rows, NAMES), WEIGHTS, decimals=4)
        assert losses(logs.run_of(columns, steps(rows))).findings == ()


@pytest.mark.parametrize("decimals", [None, 4])
def test_an_unlogged_term_is_found_and_named_a_constant(logs: SimpleNamespace, decimals: int | None) -> None:
    for seed in range(20):
        columns = logs.losses_of(logs.raws(seed, 60, NAMES), WEIGHTS, decimals=decimals)
        columns["losses/total"] = columns["losses/total"] + 0.25
        finding = losses(logs.run_of(columns, steps(60))).findings[0]
        assert finding.kind == "loss-sum-mismatch"
        assert finding.evidence["explanation"] == "constant"
        assert finding.evidence["number"] == pytest.approx(0.25, abs=2e-4)


@pytest.mark.parametrize(("sign", "name", "words"), [(-1, "left-out", "missing"), (1, "twice", "counted twice")])
def test_a_component_left_out_or_counted_twice_is_named(
    logs: SimpleNamespace, sign: int, name: str, words: str
) -> None:
    for seed in range(20):
        columns = logs.losses_of(logs.raws(seed, 40, NAMES), WEIGHTS, decimals=4)
        columns["losses/total"] = columns["losses/total"] + sign * columns["losses/attention/weighted"]
        finding = losses(logs.run_of(columns, steps(40))).findings[0]
        assert (finding.kind, finding.metric) == ("loss-sum-mismatch", "attention")
        assert finding.evidence["explanation"] == name and words in finding.message
        assert finding.severity in ("warning", "critical")


@pytest.mark.parametrize("size", [0.002, 0.02, 0.2])
def test_a_hidden_component_of_any_size_explains_the_sum(logs: SimpleNamespace, size: float) -> None:
    weights = {**WEIGHTS, "router": 0.0}
    for seed in range(10):
        raw = logs.raws(seed, 80, [*NAMES, "router"])
        columns = logs.losses_of(raw, weights, hidden={"router": size})
        (finding,) = losses(logs.run_of(columns, steps(80))).findings
        assert finding.evidence["explanation"] == "hidden" and finding.metric == "router"
        assert finding.evidence["number"] == pytest.approx(size, rel=1e-3)


def test_a_planned_mean_is_silent_and_an_undeclared_one_is_said(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(3, 60, NAMES), WEIGHTS, mean=True)
    assert losses(logs.run_of(columns, steps(60), plan={"aggregation": "mean"})).findings == ()
    undeclared = losses(logs.run_of(columns, steps(60))).findings[0]
    assert (undeclared.severity, undeclared.evidence["explanation"]) == ("info", "mean")
    wrong = losses(logs.run_of(columns, steps(60), plan={"aggregation": "sum"})).findings[0]
    assert wrong.severity == "critical" and "the mean over all components" in wrong.message


def test_division_for_gradient_accumulation_is_said_and_no_fault(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(3, 60, NAMES), WEIGHTS, divide=8)
    result = losses(logs.run_of(columns, steps(60)))
    assert result.status == "healthy"
    assert result.findings[0].evidence["number"] == 8 and "divided by 8" in result.findings[0].message


def test_totals_averaged_over_other_batches_scatter_and_are_no_fault(logs: SimpleNamespace) -> None:
    for seed in range(20):
        columns = logs.losses_of(logs.raws(seed, 200, NAMES), WEIGHTS)
        columns["losses/total"] *= 1 + 0.03 * np.random.default_rng(seed).standard_normal(200)
        result = losses(logs.run_of(columns, steps(200)))
        assert result.status == "healthy", result
        assert result.findings[0].evidence["explanation"] == "scatter"


@pytest.mark.parametrize("decimals", [None, 4])
def test_another_weight_than_the_logged_one_is_found_with_the_applied_one(
    logs: SimpleNamespace, decimals: int | None
) -> None:
    for seed in range(20):
        columns = logs.losses_of(logs.raws(seed, 60, NAMES), {**WEIGHTS, "feature": 0.08}, decimals=decimals)
        columns["losses/feature/weight"] = np.full(60, 0.05)
        result = losses(logs.run_of(columns, steps(60)))
        assert logs.kinds(result) == ["weight-not-applied"]
        finding = result.findings[0]
        assert (finding.metric, finding.severity) == ("feature", "critical")
        assert finding.evidence["applied_weight"] == pytest.approx(0.08, rel=0.02)


def test_one_scale_for_all_components_is_said_once(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 60, NAMES), WEIGHTS)
    columns = {tag: v / 4 if tag.endswith(("weighted", "total")) else v for tag, v in columns.items()}
    result = losses(logs.run_of(columns, steps(60)))
    assert [(f.kind, f.severity) for f in result.findings] == [("weight-not-applied", "info")]
    assert result.findings[0].evidence["factor"] == pytest.approx(0.25)


def test_a_weight_logged_one_record_late_at_a_phase_boundary_is_no_warning(logs: SimpleNamespace) -> None:
    weight = np.where(np.arange(60) < 30, 0.7, 0.5)
    columns = logs.losses_of(logs.raws(1, 60, NAMES), {**WEIGHTS, "kd": weight})
    columns["losses/kd/weight"] = np.where(np.arange(60) < 31, 0.7, 0.5)
    result = losses(logs.run_of(columns, steps(60)))
    assert [(f.kind, f.severity) for f in result.findings] == [("weight-not-applied", "info")]
    assert result.findings[0].evidence["at_change_of_weight"] is True


def test_a_component_that_adds_nothing_despite_its_weight_is_a_warning(logs: SimpleNamespace) -> None:
    raw = {**logs.raws(1, 60, ["kd", "feature"]), "attention": np.zeros(60)}
    result = losses(logs.run_of(logs.losses_of(raw, WEIGHTS), steps(60)))
    assert [(f.kind, f.severity, f.metric) for f in result.findings] == [("inactive-component", "warning", "attention")]


def test_a_component_with_weight_0_is_info_unless_the_plan_wants_it(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 60, NAMES), {**WEIGHTS, "attention": 0.0})
    assert [f.severity for f in losses(logs.run_of(columns, steps(60))).findings] == ["info"]
    wanted = losses(logs.run_of(columns, steps(60), plan={"loss_weights": {"attention": 0.3}})).findings
    assert [(f.kind, f.severity) for f in wanted] == [("inactive-component", "warning")]
    assert "planned weight up to 0.3" in wanted[0].message


def display(logs: SimpleNamespace, shown: np.ndarray, total: np.ndarray) -> list[tuple[str, str]]:
    columns = {"losses/kd/weighted": total, "losses/total": total, "losses/displayed": shown}
    found = losses(logs.run_of(columns, steps(len(total)))).findings
    assert all(f.kind == "loss-display-mismatch" for f in found)
    return [(f.severity, f.message) for f in found]


def test_a_display_that_is_off_is_a_warning_and_explained_displays_are_not(logs: SimpleNamespace) -> None:
    total = logs.raws(5, 300, ["kd"])["kd"]
    ema = [total[0]]
    for value in total[1:]:
        ema.append(0.9 * ema[-1] + 0.1 * value)
    assert display(logs, total, total) == []
    assert display(logs, np.round(total, 3), total) == []
    assert display(logs, total * 1.02, total)[0][0] == "warning"
    mean = np.cumsum(total) / np.arange(1, 301)
    late = np.concatenate([total[:1] * 1.1, total[:-1]])
    for shown, words in ((np.array(ema), "smoothed with a rate of 0.1"), (mean, "running mean"),
                         (late, "the record before"), (total / 4, "divided by 4")):  # fmt: skip
        ((severity, message),) = display(logs, shown, total)
        assert severity == "info" and words in message


def test_nan_records_are_not_judged_and_the_others_are(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 60, NAMES), WEIGHTS)
    for tag in ("losses/kd/raw", "losses/kd/weighted", "losses/total"):
        columns[tag] = np.where(np.arange(60) % 7 == 0, np.nan, columns[tag])
    result = losses(logs.run_of(columns, steps(60)))
    assert result.findings == () and result.totals["residual"].null_count() == 9
    columns["losses/total"] = columns["losses/total"] + 5
    broken = losses(logs.run_of(columns, steps(60))).findings[0]
    assert (broken.kind, broken.evidence["records_judged"]) == ("loss-sum-mismatch", 51)


def test_repeated_steps_and_missing_steps_keep_their_records_apart(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 60, NAMES), WEIGHTS)
    assert losses(logs.run_of(columns, np.arange(60) // 4)).findings == ()
    unknown = losses(logs.run_of(columns, [None] * 60))
    assert unknown.findings == () and unknown.totals["residual"].count() == 60


def test_coarse_arithmetic_is_recognised_from_the_totals(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 80, NAMES), WEIGHTS)
    bits = columns["losses/total"].astype(np.float32).view(np.uint32)
    columns["losses/total"] = (((bits + 0x8000) >> 16) << 16).astype(np.uint32).view(np.float32).astype(float)
    assert losses(logs.run_of(columns, steps(80))).findings == ()


def test_the_given_tolerance_replaces_the_inferred_one(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 60, NAMES), WEIGHTS)
    columns["losses/total"] = columns["losses/total"] + 0.25
    run = logs.run_of(columns, steps(60))
    assert losses(run, tolerance=0.3).findings == ()
    assert losses(run, tolerance=0.2).findings[0].kind == "loss-sum-mismatch"


@pytest.mark.parametrize("tolerance", [0, -1.0, math.nan, math.inf, "small"])
def test_a_senseless_tolerance_is_refused(logs: SimpleNamespace, tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance: expected a number above 0 or None, found"):
        losses(logs.run_of({"loss": [1.0]}, [1]), tolerance=tolerance)


def test_a_plan_that_cannot_be_used_is_said_and_the_rest_is_judged(logs: SimpleNamespace) -> None:
    columns = logs.losses_of(logs.raws(1, 60, NAMES), WEIGHTS)
    columns["losses/total"] = columns["losses/total"] + 5
    result = losses(logs.run_of(columns, steps(60), plan={"aggregation": "max"}))
    assert "loss-sum-mismatch" in logs.kinds(result)
    assert "plan.aggregation: expected 'sum' or 'mean'" in result.not_applicable[0].reason


def test_the_drawn_lines_are_the_frame(logs: SimpleNamespace) -> None:
    result = losses(logs.run_of(logs.losses_of(logs.raws(1, 60, NAMES), WEIGHTS), steps(60)))
    lines = {line.get_label(): line for line in result.plot().get_lines()}
    assert set(lines) == {*NAMES, "total"}
    for name in NAMES:
        part = result.frame.filter(pl.col("component") == name)
        assert lines[name].get_ydata().tolist() == part["entered"].to_list()
    assert lines["total"].get_ydata().tolist() == result.totals["total"].to_list()


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_a_displayed_loss_that_is_a_multiple_of_the_total_is_a_warning_and_a_part_of_it_a_convention(
    logs: SimpleNamespace, factor: int
) -> None:
    for seed in range(10):
        columns = logs.losses_of(logs.raws(seed, 60, NAMES), WEIGHTS)
        for shown, severity in (
            (columns["losses/total"] * factor, "warning"),
            (columns["losses/total"] / factor, "info"),
        ):
            (finding,) = losses(logs.run_of({**columns, "losses/displayed": shown}, steps(60))).findings
            assert (finding.kind, finding.severity) == ("loss-display-mismatch", severity)


@pytest.mark.parametrize("since", [20, 60, 85])
def test_a_component_that_ceases_while_it_has_weight_is_found_with_its_step(logs: SimpleNamespace, since: int) -> None:
    for seed in range(10):
        raw = logs.raws(seed, 100, NAMES)
        raw["kd"] = np.where(np.arange(100) >= since, 0.0, raw["kd"])
        (finding,) = losses(logs.run_of(logs.losses_of(raw, WEIGHTS), steps(100))).findings
        assert (finding.kind, finding.severity, finding.metric) == ("inactive-component", "warning", "kd")
        assert finding.first_step == steps(100)[since] and finding.evidence["records_at_zero"] == 100 - since


def test_a_margin_that_is_met_and_a_weight_that_ends_are_no_inactive_component(logs: SimpleNamespace) -> None:
    for seed in range(20):
        raw = logs.raws(seed, 100, NAMES)
        margin = np.maximum(raw["kd"] - np.linspace(0, 1.2, 100) * np.median(raw["kd"]), 0)
        assert logs.kinds(losses(logs.run_of(logs.losses_of({**raw, "kd": margin}, WEIGHTS), steps(100)))) == []
        ends = {**WEIGHTS, "kd": np.where(np.arange(100) < 50, 0.5, 0.0)}
        assert "inactive-component" not in logs.kinds(losses(logs.run_of(logs.losses_of(raw, ends), steps(100))))
