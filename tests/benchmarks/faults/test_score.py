"""Every figure of the score against numbers counted by hand."""

from __future__ import annotations

import pytest

from analysis.kinds import KINDS
from benchmarks.faults.score import INFORMATION, outcome_of, score_of
from benchmarks.faults.score_found import Told
from tests.benchmarks.faults.scored_runs import faulty, finding, healthy, told


def test_a_warning_of_the_planted_kind_is_a_hit_and_information_is_none() -> None:
    truth = faulty("loss-spike", 1)
    assert outcome_of(truth, told(finding("loss-spike"))).found
    assert not outcome_of(truth, told(finding("loss-spike", severity="info"))).found


def test_information_is_enough_for_kinds_that_are_told_as_such_and_for_other_programs() -> None:
    said = told(finding("outlier", severity="info"))
    assert outcome_of(faulty("outlier", 2), said).found
    assert not outcome_of(faulty("plateau", 2), told(finding("plateau", severity="info"))).found
    assert outcome_of(faulty("plateau", 2), told(finding("plateau", severity="info")), any_level=True).found


def test_a_true_consequence_is_found_but_not_named() -> None:
    truth = faulty("divergence", 1, accepted=["non-finite"])
    outcome = outcome_of(truth, told(finding("non-finite")))
    assert outcome.found
    assert not outcome.named
    assert outcome.false == ()


def test_another_kind_in_a_faulty_run_is_a_false_finding() -> None:
    outcome = outcome_of(faulty("divergence", 1), told(finding("stall"), finding("outlier", severity="info")))
    assert not outcome.found
    assert [one.name for one in outcome.false] == ["stall"]


def test_a_finding_with_several_meanings_is_true_when_one_of_them_is() -> None:
    assert outcome_of(faulty("outlier", 1), told(finding("loss-spike", 500, "warning", "outlier"))).named


@pytest.mark.parametrize(
    ("first_step", "onset", "error"),
    [(520, 500, 0.02), (None, 1, 0.0), (None, None, 0.0), (None, 500, None), (7, None, 0.007)],
)
def test_the_onset_error_is_a_share_of_the_run(first_step: int | None, onset: int | None, error: float | None) -> None:
    outcome = outcome_of(faulty("plateau", 1, onset), told(finding("plateau", first_step)))
    assert outcome.onset_error == pytest.approx(error)


def test_the_onset_is_read_from_the_first_finding_that_names_the_fault() -> None:
    truth = faulty("divergence", 1, accepted=["non-finite"])
    said = told(finding("non-finite", 900), finding("divergence", 510), finding("divergence", 500))
    assert outcome_of(truth, said).onset_error == pytest.approx(0.01)


def test_a_find_far_from_the_onset_is_named_but_not_placed() -> None:
    near, far = (outcome_of(faulty("plateau", 1), told(finding("plateau", step))) for step in (540, 560))
    assert near.placed
    assert far.named
    assert not far.placed
    assert not outcome_of(faulty("plateau", 1), told(finding("plateau", None))).placed


def test_recall_is_counted_by_kind_and_magnitude_and_macro_over_kinds() -> None:
    truths = [*(faulty("loss-spike", 1) for _ in range(4)), faulty("stall", 3), faulty("stall", 4), faulty("stall", 6)]
    said = [*([told(finding("loss-spike"))] * 3), told(), told(finding("stall")), told(), told()]
    score = score_of("ours", truths, said)
    assert score.cell("loss-spike", [1]) == (3, 4)
    assert score.recall("stall", [3, 4]).value == 0.5
    assert score.recall("stall", [1]).value is None
    assert score.macro_recall().value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert score.macro_recall([6]).value == 0.0


def test_precision_counts_findings_of_faulty_runs_and_overall_those_of_healthy_ones_too() -> None:
    truths = [faulty("loss-spike", 1), faulty("stall", 5), healthy(), healthy()]
    said = [
        told(finding("loss-spike"), finding("loss-spike"), finding("plateau")),
        told(finding("plateau"), finding("outlier", severity="info")),
        told(finding("plateau")),
        told(),
    ]
    score = score_of("ours", truths, said)
    assert score.precision().value == pytest.approx(2 / 4)
    assert score.precision("stall").value == 0.0
    assert score.overall_precision().value == pytest.approx(2 / 5)
    assert score.precision_of_kind("plateau").value == 0.0
    assert score.precision_of_kind("loss-spike").value == 1.0


def test_false_alarms_are_counted_per_healthy_run() -> None:
    truths = [healthy(), healthy(), healthy(), healthy(), faulty("stall", 1)]
    said = [told(finding("plateau"), finding("stall")), told(finding("stall", severity="info")), told(), told(), told()]
    score = score_of("ours", truths, said)
    assert score.false_alarms().value == pytest.approx(2 / 4)
    assert score.runs_flagged().value == pytest.approx(1 / 4)


def test_the_onset_error_is_the_median_over_runs_found() -> None:
    truths = [faulty("stall", 1) for _ in range(4)]
    said = [told(finding("stall", 500)), told(finding("stall", 510)), told(finding("stall", 600)), told()]
    figure = score_of("ours", truths, said).onset_error()
    assert figure.value == pytest.approx(0.01)
    assert figure.interval is None


def test_what_is_said_instead_is_counted_at_obvious_and_middle_magnitude() -> None:
    truths = [faulty("stall", 1), faulty("stall", 4), faulty("stall", 6), faulty("stall", 2)]
    said = [told(finding("clock-skew")), told(), told(finding("plateau")), told(finding("stall"), finding("plateau"))]
    assert score_of("ours", truths, said).confusion("stall") == {"clock-skew": 1, "nothing": 1}


def test_a_log_that_is_not_read_counts_as_not_found_and_falls_out_of_the_second_column() -> None:
    truths = [faulty("stall", 1), faulty("stall", 1), healthy()]
    said = [told(finding("stall")), Told("run", read=False), told()]
    score = score_of("peer", truths, said)
    assert score.recall("stall", [1]).value == 0.5
    assert len(score.unread()) == 1
    assert score.only_read().recall("stall", [1]).value == 1.0


def test_an_empty_score_has_no_figures_and_breaks_on_none() -> None:
    score = score_of("ours", [], [])
    for figure in (score.macro_recall(), score.precision(), score.false_alarms(), score.onset_error()):
        assert figure.value is None


def test_kinds_told_as_information_are_kinds_of_ours() -> None:
    assert set(KINDS) >= INFORMATION
