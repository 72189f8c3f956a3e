"""Every kind that a check judges is found where it is planted, and healthy runs are left in peace by all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import aftertrain as at
from analysis.checks import CHECKS
from analysis.kinds import KINDS
from tests.analysis.planted import HEALTHY, PLANTED

JUDGED = [kind for check in CHECKS for kind in check.kinds]
#: Facts that are told and never blamed.
FACTS = {"outlier", "update-ratio", "sampled-series", "micro-batch-steps", "epoch-only", "adversarial-phase"}


def test_every_kind_that_is_judged_has_a_planted_run_and_no_other_has() -> None:
    assert set(PLANTED) == set(JUDGED)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_and_is_a_warning_unless_it_is_a_mere_fact(kind: str, tmp_path: Path) -> None:
    diagnosis = at.diagnose(PLANTED[kind](tmp_path))
    found = [f for f in diagnosis.findings if f.kind == kind]
    assert found and kind in diagnosis.judged
    assert {f.severity == "info" for f in found} == {kind in FACTS}
    limit = KINDS[kind].limit
    if limit is not None:
        assert any(limit.measure in f.evidence for f in found), "the number judged stands in the evidence"


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_warning_of_any_check(name: str, tmp_path: Path) -> None:
    diagnosis = at.diagnose(HEALTHY[name](tmp_path))
    assert [f for f in diagnosis.findings if f.severity != "info"] == []


def test_every_kind_is_looked_for_in_a_healthy_run_and_not_found(tmp_path: Path) -> None:
    looked: set[str] = set()
    for make in HEALTHY.values():
        diagnosis = at.diagnose(make(tmp_path))
        looked |= set(diagnosis.judged) - {f.kind for f in diagnosis.findings}
    assert sorted(set(JUDGED) - looked) == []
