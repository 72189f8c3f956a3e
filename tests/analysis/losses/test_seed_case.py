"""The acceptance case: one record, printed with four decimals, in which two routing losses bypass the curriculum."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.curriculum import curriculum
from analysis.losses import losses
from parsers.loading import load

TESTS = Path(__file__).parents[2]
FILES = [TESTS / "parsers" / "debug_blocks.log"]
# the write-up that the fixture's numbers come from, where the founding documents lie beside the repository
FILES += [f for f in [TESTS.parents[1] / "shared" / "seeds" / "003_e0b66e98c715fb19.txt"] if f.exists()]


@pytest.fixture(params=FILES, ids=lambda f: f.suffix)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_two_routing_losses_enter_with_weight_0_and_their_effective_weights(path: Path) -> None:
    result = curriculum(load(path))
    found = {f.metric: f for f in result.findings if f.kind == "curriculum-bypass"}
    assert set(found) == {"routing_feature_matching", "routing_expert_importance"}
    matching, importance = found["routing_feature_matching"], found["routing_expert_importance"]
    assert f"{matching.evidence['effective_weight']:.5f}" == "0.00127"
    assert f"{importance.evidence['effective_weight']:.4f}" == "0.0160"
    assert "0.00127" in matching.message and "0.0160" in importance.message
    assert (matching.severity, importance.severity) == ("critical", "warning")
    assert matching.first_step == matching.last_step == 2000
    for finding, contribution, raw in ((matching, 0.5234, 412.2), (importance, 0.1434, 8.9567)):
        # the widest and the narrowest quotient that four decimals allow
        low, high = (contribution - 5e-5) / (raw + 5e-5), (contribution + 5e-5) / (raw - 5e-5)
        assert finding.evidence["weight_low"] == pytest.approx(low, rel=1e-6)
        assert finding.evidence["weight_high"] == pytest.approx(high, rel=1e-6)


def test_attention_alignment_stays_out(path: Path) -> None:
    run = load(path)
    assert "routing_attention_alignment" not in {f.metric for f in curriculum(run).findings}
    out = [f for f in losses(run).findings if f.kind == "inactive-component"]
    assert [(f.metric, f.severity) for f in out] == [("routing_attention_alignment", "info")]
    assert "stays out of the total" in out[0].message


def test_the_progress_bar_differs_from_the_total_by_two_hundredths(path: Path) -> None:
    found = [f for f in losses(load(path)).findings if f.kind == "loss-display-mismatch"]
    assert len(found) == 1 and found[0].severity == "warning"
    assert found[0].evidence["difference"] == pytest.approx(0.02)
    assert "differs from the total by 0.0200" in found[0].message


def test_the_sum_and_the_products_hold(path: Path) -> None:
    result = losses(load(path))
    assert {f.kind for f in result.findings} == {"loss-display-mismatch", "inactive-component"}
    assert result.totals["sum"][0] == pytest.approx(15.5068)
    shares = dict(result.frame.select("component", "share").iter_rows())
    assert shares["kd"] == pytest.approx(14.84 / 15.5068)
    assert result.not_applicable == ()


def test_without_a_plan_the_schedule_is_shown_and_not_judged(path: Path) -> None:
    result = curriculum(load(path))
    assert [(n.kind, n.reason) for n in result.not_applicable] == [("curriculum-off-schedule", "no plan")]
    assert ("kd", 0.7) in result.schedule.select("component", "first_weight").rows()
    assert result.frame["planned"].null_count() == result.frame.height == 8
