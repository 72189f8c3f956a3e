"""The diagnosis gathers what the checks say, and never takes silence for health."""

from __future__ import annotations

import math

import polars as pl
import pytest

import aftertrain as at
from analysis.checks import CHECKS
from analysis.diagnose import diagnose
from parsers.finish import Reject, finish
from parsers.run import Run


def run_with(values: list[float]) -> Run:
    return finish(
        "r",
        "r.jsonl",
        "jsonl",
        pl.DataFrame({"tag": ["loss"] * len(values), "step": range(len(values)), "value": values}),
    )


def test_every_kind_is_judged_or_has_a_reason_why_not():
    diagnosis = diagnose(run_with([2.0 - 0.001 * i for i in range(500)]))
    listed = {kind for check in CHECKS for kind in check.kinds}
    unjudged = {n.kind for n in diagnosis.not_applicable}
    assert set(diagnosis.judged) | unjudged == listed and set(diagnosis.judged).isdisjoint(unjudged)
    assert all(n.reason for n in diagnosis.not_applicable)


def test_a_run_without_anything_is_not_healthy():
    diagnosis = diagnose(finish("r", "r.jsonl", "jsonl", None, rejects=[Reject("r.jsonl", "cut", line=1)]))
    assert diagnosis.status == "critical" and "nothing was recorded" in diagnosis.findings[0].message


def test_the_worst_finding_comes_first():
    values = [2.0 * math.exp(-i / 200) for i in range(500)]
    values[100] *= 5
    diagnosis = diagnose(run_with([*values, *[math.nan] * 50]))
    ranks = [at.diagnose.__globals__["SEVERITIES"].index(f.severity) for f in diagnosis.findings]
    assert ranks == sorted(ranks, reverse=True) and diagnosis.findings[0].kind == "non-finite"


def test_checks_can_be_chosen_and_unknown_ones_are_named():
    assert list(diagnose(run_with([1.0] * 50), checks=["anomalies"]).results) == ["anomalies"]
    with pytest.raises(ValueError, match="unknown check 'anomaly'; did you mean 'anomalies'"):
        diagnose(run_with([1.0]), checks=["anomaly"])


def test_progress_hears_of_each_check_before_it_runs():
    heard: list[str] = []
    diagnose(run_with([1.0] * 50), progress=heard.append)
    assert heard == [check.name for check in CHECKS]


def test_the_figure_shades_the_span_of_a_finding():
    diagnosis = diagnose(run_with([2.0 - 0.001 * i if i < 300 else math.nan for i in range(500)]))
    drawn = diagnosis.plot()
    assert "non-finite" in [text.get_text() for text in drawn.texts]
