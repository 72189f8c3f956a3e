"""`report` as JSON and Markdown, and how it is called, saved and shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.diagnose import Diagnosis
from analysis.findings import Finding
from analysis.report import Report, diagnosis_json, report
from analysis.report.markdown import markdown
from eventstream.errors import InputError


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_json_has_exactly_the_keys_that_are_promised(spiky: Diagnosis, healthy: Diagnosis) -> None:
    made = strict(report([spiky, healthy], format="json").text)
    assert list(made) == ["version", "status", "runs"]
    assert (made["version"], made["status"]) == (1, "critical")
    keys = [
        "run",
        "path",
        "format",
        "status",
        "summary",
        "findings",
        "incidents",
        "not_applicable",
        "rejects",
        "health",
        "plan",
    ]
    assert list(made["runs"][0]) == keys
    assert [run["status"] for run in made["runs"]] == ["critical", "healthy"]
    assert made["runs"][0]["rejects"] == 1
    assert made["runs"][0]["findings"][1] == {
        "kind": "loss-spike",
        "severity": "warning",
        "metric": "loss",
        "first_step": 1800,
        "last_step": 1801,
        "message": "the loss leaps to 3.61",
        "evidence": {"z_score": 41.2, "observed": 3.61},
        "causes": ["a bad batch"],
        "suggestions": ["look at the batch"],
    }


def test_numbers_that_are_not_finite_and_broken_names_leave_the_json_strict(healthy: Diagnosis) -> None:
    evidence = {"a": float("nan"), "b": float("inf"), "c": -np.inf}
    broken = Finding("outlier", "warning", "healthy", "lone \udc80 surrogate", evidence=evidence)
    text = report(replace(healthy, findings=(broken,)), format="json").text
    found = strict(text.encode("utf-8").decode())["runs"][0]["findings"][0]
    assert found["evidence"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}
    assert found["message"] == "lone \ufffd surrogate"


def test_the_json_of_hostile_names_keeps_them_as_they_are(hostile: Diagnosis) -> None:
    found = strict(report(hostile, format="json").text)["runs"][0]["findings"]
    assert {f["metric"] for f in found} >= {"<script>alert(1)</script>", "two\nlines\tand \x00 a null"}


def test_the_json_object_is_the_one_that_the_report_holds(spiky: Diagnosis) -> None:
    assert strict(report(spiky, format="json").text) == diagnosis_json([spiky])


def test_markdown_tells_verdict_findings_evidence_and_what_to_try(spiky: Diagnosis, healthy: Diagnosis) -> None:
    text = markdown([spiky, healthy], title="Nightly")
    for said in ("# Nightly: critical", "the loss leaps to 3.61", "| observed | 3.61 |", "1. look at the batch"):
        assert said in text
    assert "also step 2,100: the loss leaps again" in text
    assert "no generator loss in this log" in text


def test_every_table_of_the_markdown_keeps_its_columns_whatever_the_names_hold(hostile: Diagnosis) -> None:
    lines = markdown([hostile]).splitlines()
    blocks: list[list[int]] = [[]]
    for line in lines:
        if line.startswith("|"):
            blocks[-1].append(len(re.findall(r"(?<!\\)\|", line)))
        elif blocks[-1]:
            blocks.append([])
    tables = [block for block in blocks if block]
    assert len(tables) > 5
    assert all(len(set(table)) == 1 for table in tables)


def test_nothing_out_of_a_log_is_markup_in_the_markdown(hostile: Diagnosis) -> None:
    text = markdown([hostile])
    tags = set(re.findall(r"<[^>]*>", text))
    assert tags <= {"<details>", "</details>", "<summary>", "</summary>"}
    assert "](http" not in text
    assert not set(text) & {"\x00", "\u202e"}
    assert max(map(len, text.splitlines())) < 1500


@pytest.mark.parametrize(("suffix", "start"), [(".html", "<!doctype html>"), (".md", "# Report"), (".json", "{")])
def test_the_suffix_decides_the_format(tmp_path: Path, healthy: Diagnosis, suffix: str, start: str) -> None:
    made = report(healthy, tmp_path / f"out{suffix}")
    assert made.path == tmp_path / f"out{suffix}"
    assert made.path.read_text(encoding="utf-8") == made.text
    assert made.text.lstrip().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [f"out{suffix}"]


def test_saving_under_another_suffix_draws_the_report_anew(tmp_path: Path, healthy: Diagnosis) -> None:
    made = report(healthy, format="json")
    saved = made.save(tmp_path / "out.md")
    assert (made.path, saved.path, saved.format) == (None, tmp_path / "out.md", "md")
    assert "# Report on healthy" in (tmp_path / "out.md").read_text(encoding="utf-8")


def test_an_unknown_suffix_an_unknown_format_and_a_contradiction_are_told(tmp_path: Path, healthy: Diagnosis) -> None:
    with pytest.raises(InputError, match=r"out\.pdf: a report ends in \.html, \.md or \.json"):
        report(healthy, tmp_path / "out.pdf")
    with pytest.raises(ValueError, match=r"unknown report format 'htm'; did you mean 'html'\?"):
        report(healthy, format="htm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the suffix asks for md, format='json'"):
        report(healthy, tmp_path / "out.md", format="json")
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_is_refused_by_its_type_and_a_missing_path_by_its_name(healthy: Diagnosis) -> None:
    with pytest.raises(TypeError, match="not int"):
        report([healthy, 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="no/such/run: no such file or folder"):
        report("no/such/run")


def test_progress_counts_the_runs(healthy: Diagnosis) -> None:
    told: list[tuple[int, int, str]] = []
    report([healthy.source, healthy.source], format="json", checks=[], progress=lambda *said: told.append(said))
    assert told == [(0, 2, "healthy"), (1, 2, "healthy"), (2, 2, "drawing")]


def test_a_report_shows_itself_in_a_notebook_without_touching_it(healthy: Diagnosis) -> None:
    made = report(healthy)
    shown = made._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert shown.count("<") == 2  # the frame alone: the page inside is escaped
    assert repr(made).startswith("<Report of 1 run: healthy, html, ")
    assert isinstance(made, Report)


def test_the_command_that_makes_the_report_again_quotes_paths_and_sums_up_many(healthy: Diagnosis) -> None:
    odd = replace(healthy, source=replace(healthy.source, path="runs/my run; rm -rf"))
    assert "aftertrain report 'runs/my run; rm -rf' -o report.md" in report(odd, format="md").text
    many = [replace(healthy, source=replace(healthy.source, path=f"all/runs/{i}")) for i in range(20)]
    assert "aftertrain report all/runs -o report.md" in report(many, format="md").text
