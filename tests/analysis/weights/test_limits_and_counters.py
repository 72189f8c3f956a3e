"""The limit of drift can be moved, measures are kept, and counters of steps agree up to what they count."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.diagnose import diagnose
from analysis.findings import Finding
from analysis.weights.between_saves import findings_between
from analysis.weights.counters import counters_across, counters_within
from analysis.weights.differences import DIFFERENCES
from analysis.weights.saved import Saved, told_once
from analysis.weights.statistics import STATISTICS
from parsers.checkpoints.checkpoint import Checkpoint
from tests.analysis.weights.saves_beside_logs import drifting


@pytest.mark.parametrize(("times", "threshold", "told"), [(20, None, 1), (20, 40, 0), (6, None, 0), (6, 4, 1)])
def test_a_threshold_moves_what_counts_as_drift(
    times: float, threshold: float | None, told: int, tmp_path: Path
) -> None:
    rules = {} if threshold is None else {"threshold": {"weight-drift": threshold}}
    diagnosis = diagnose(drifting(tmp_path, times), checks=["checkpoints"], rules=rules)
    found = [f for f in diagnosis.findings if f.kind == "weight-drift"]
    assert len(found) == told
    assert all(f.evidence["times"] == pytest.approx(times, rel=0.01) for f in found)
    measured = [m.value for m in diagnosis.measures if m.kind == "weight-drift"]
    assert max(measured) == pytest.approx(times, rel=0.01), "what is not reported is measured all the same"


def save(step: int, **values: float) -> Saved:
    """A save without tensors that counts."""
    keys = {"optimizer": "optimizer.state.0.step", "schedule": "scheduler.last_epoch", "epoch": "epoch"}
    named = {keys[name]: value for name, value in values.items()}
    checkpoint = Checkpoint(Path("x.pt"), "example", (), values=named, step=step)
    return Saved("x.pt", checkpoint, STATISTICS.to_frame(), step)


def severities(found: list[Finding]) -> list[str]:
    return [f.severity for f in found]


@given(step=st.integers(1100, 10**7), factor=st.integers(2, 64), less=st.booleans())
def test_a_whole_factor_between_counters_is_information(step: int, factor: int, less: bool) -> None:
    counted = step // factor if less else step * factor
    (found,) = counters_within(save(step, optimizer=counted), "r")
    assert found.severity == "info" and abs(int(found.evidence["factor"] or 0) - factor) <= (1 if less else 0)


@given(step=st.integers(200, 10**7), part=st.floats(0.1, 0.45))
def test_an_optimizer_that_stands_elsewhere_is_a_warning(step: int, part: float) -> None:
    found = counters_within(save(step, optimizer=int(step * (0.5 + part))), "r")
    assert severities(found) == ["warning"]


@given(step=st.integers(1, 10**7), skipped=st.floats(0, 0.01))
def test_steps_that_a_scaler_skipped_are_no_fault(step: int, skipped: float) -> None:
    assert counters_within(save(step, optimizer=int(step * (1 - skipped))), "r") == []


@given(step=st.integers(100, 10**6), epoch=st.integers(0, 90))
def test_a_schedule_may_count_epochs(step: int, epoch: int) -> None:
    assert counters_within(save(step, schedule=epoch, epoch=epoch), "r") == []


def test_counters_that_stand_still_or_go_back_are_warnings() -> None:
    saves = [save(100, optimizer=100, schedule=100), save(200, optimizer=100, schedule=50)]
    found = counters_across(saves, "r")
    assert [(f.severity, f.evidence["what"]) for f in found] == [
        ("warning", "optimizer stands"),
        ("warning", "learning-rate schedule goes back"),
    ]
    assert counters_across([save(100, optimizer=100), save(200, optimizer=200)], "r") == []


def test_fewer_than_two_saves_say_nothing_of_each_other_and_a_wrong_number_of_differences_is_an_error() -> None:
    assert findings_between([], [], run_name="r") == [] == findings_between([save(1)], [], run_name="r")
    with pytest.raises(ValueError, match="2 saves have 1 differences between them, and 0 are given"):
        findings_between([save(1), save(2)], [], run_name="r")


def test_saves_without_tensors_have_no_findings() -> None:
    empty = pl.DataFrame(schema=DIFFERENCES)
    assert findings_between([save(1), save(2)], [empty], run_name="r") == []


def test_a_fact_of_several_saves_is_told_once_from_its_first_to_its_last_step() -> None:
    facts = [f for step in (100, 300, 200) for f in counters_within(save(step, optimizer=step * 0.7), "r")]
    (one,) = told_once(facts)
    assert (one.first_step, one.last_step, one.evidence["saves"]) == (100, 300, 3)
    assert one.message.endswith("so in 3 saves")
