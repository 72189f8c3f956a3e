"""Incidents in the terminal, in JUnit and in GitHub's annotations: each once, with followers under their root."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from aftertrain.render import DIAGNOSES
from analysis.diagnose import Diagnosis
from analysis.findings import Finding, NotApplicable, findings_frame
from parsers.finish import finish

EVIL = "lo\x1b[2Jss<b>::error::x%0A"


def judged(*findings: Finding) -> Diagnosis:
    steps = list(range(2000))
    rows = pl.DataFrame({"tag": ["loss"] * 2000, "step": steps, "value": [1.0] * 2000})
    run = finish("exp-7", "runs/exp-7", "jsonl", rows)
    left = (NotApplicable("overfitting", "no eval loss in this log"),)
    return Diagnosis(
        run.name,
        findings_frame(findings),
        findings=findings,
        not_applicable=left,
        source=run,
        results={},
        judged=tuple(dict.fromkeys(["stall", *(f.kind for f in findings)])),
    )


def spike(step: int = 900, severity: str = "warning", **more: object) -> Finding:
    return Finding(
        "loss-spike", severity, "exp-7", "loss leapt", "loss", step, step, {"factor": 3.2},  # type: ignore[arg-type]
        ("a bad batch",), ("look at the batch",), **more,  # type: ignore[arg-type]
    )  # fmt: skip


NAN = Finding(
    "non-finite", "critical", "exp-7", "loss is NaN", "loss", 912, 1999, {"metrics": "loss", "nan": 9},
    suggestions=("look at the batch", "resume before it"),
)  # fmt: skip
NOTES = tuple(Finding(kind, "info", "exp-7", f"{kind} there", first_step=5) for kind in ("stall", "outlier", "outlier"))


def test_the_table_has_one_block_an_incident_with_story_root_followers_causes_and_suggestions_once():
    told = DIAGNOSES["table"]([judged(NAN, spike(), *NOTES)])
    assert told.splitlines() == [
        "CRITICAL  exp-7  (jsonl, runs/exp-7)",
        "  X critical loss spike x 3.2 at step 900 -> loss NaN at 912",
        "      root:  ! warning  loss-spike at step 900: loss leapt",
        "      then:  X critical non-finite at steps 912 to 1,999: loss is NaN",
        "      cause: a bad batch (fits loss-spike of loss at step 900; this log cannot confirm it)",
        "      try:   look at the batch",
        "      try:   resume before it",
        "  i info     3 notes: outlier (2), stall",
        *told.splitlines()[8:],
    ]
    assert told.count("look at the batch") == 1
    assert "not judged: overfitting (no eval loss in this log)" in told.splitlines()[-1]


def test_a_finding_alone_needs_no_story_and_a_single_note_is_told_in_full():
    lines = DIAGNOSES["table"]([judged(spike(), NOTES[0])]).splitlines()
    assert lines[1] == "  ! warning  loss-spike at step 900: loss leapt"
    assert lines[-3] == "  i info     stall at step 5: stall there"
    assert not any("root:" in line or "->" in line for line in lines)


def test_a_run_without_findings_has_no_incident():
    assert len(DIAGNOSES["table"]([judged()]).splitlines()) <= 3
    assert DIAGNOSES["github"]([judged()]).splitlines() == ["::notice title=aftertrain::1 runs judged"]


def test_github_has_one_annotation_an_incident_and_one_for_all_notes():
    lines = DIAGNOSES["github"]([judged(NAN, spike(), spike(100), *NOTES)]).splitlines()
    assert lines == [
        "::error title=exp-7%3A loss-spike::loss spike x 3.2 at step 900 -> loss NaN at 912",
        "::warning title=exp-7%3A loss-spike::loss leapt at step 100",
        "::notice title=exp-7%3A information::3 notes: outlier (2), stall",
        "::notice title=aftertrain::1 runs judged",
    ]


def test_junit_keeps_a_case_a_kind_and_tells_the_story_in_the_failure():
    suite = ET.fromstring(DIAGNOSES["junit"]([judged(NAN, spike())])).find("testsuite")
    assert suite is not None
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert list(cases) == ["stall", "non-finite", "loss-spike", "overfitting"]
    for kind in ("non-finite", "loss-spike"):
        text = cases[kind].findtext("failure") or ""
        assert text.splitlines()[1] == "story: loss spike x 3.2 at step 900 -> loss NaN at 912"
    alone = ET.fromstring(DIAGNOSES["junit"]([judged(spike())])).findtext(".//failure") or ""
    assert alone == "loss leapt at step 900"


def test_json_has_the_findings_as_before_and_the_incidents_beside_them():
    [run] = json.loads(DIAGNOSES["json"]([judged(NAN, spike(), NOTES[0])]))["runs"]
    assert [f["kind"] for f in run["findings"]] == ["non-finite", "loss-spike", "stall"]
    first, second = run["incidents"]
    assert (first["root"], first["followers"], second["root"], second["followers"]) == (1, [0], 2, [])
    keys = ["story", "severity", "first_step", "last_step", "root", "followers", "why", "causes", "suggestions"]
    assert list(first) == keys
    assert (first["severity"], first["first_step"], first["last_step"]) == ("critical", 900, 1999)


def test_markdown_tells_the_story_and_folds_followers_and_notes():
    told = DIAGNOSES["markdown"]([judged(NAN, spike(), *NOTES)])
    assert "**loss spike x 3.2 at step 900 → loss NaN at 912**" in told
    folded = told.split("<details>")
    assert "1 thing that came of it, or with it: non-finite" in folded[1] and "loss is NaN" in folded[1]
    assert "3 notes" in folded[2] and "stall there" in folded[2]
    assert told.count("1. look at the batch") == 1


@pytest.mark.parametrize("chosen", sorted(DIAGNOSES))
def test_nothing_out_of_a_log_steers_the_terminal_or_forges_a_command(chosen: str):
    pair = [
        Finding(kind, "critical", EVIL, EVIL, EVIL, 900 + n, 950, {"metrics": EVIL, "nan": 1}, (EVIL,), (EVIL,))
        for n, kind in enumerate(("loss-spike", "non-finite"))
    ]
    told = DIAGNOSES[chosen]([judged(*pair)])
    assert "\x1b" not in told
    assert not any(line.startswith("::error::") for line in told.splitlines())


def test_the_repr_is_that_of_the_table_and_bounded():
    shown = repr(judged(NAN, spike(), *NOTES))
    assert shown.splitlines()[0] == "<Diagnosis of exp-7: critical, 5 findings in 3 incidents>"
    assert "  X critical loss spike x 3.2 at step 900 -> loss NaN at 912" in shown
    many = judged(*(Finding("loss-spike", "warning", "exp-7", "up", "loss", step) for step in range(0, 2000, 100)))
    assert len(repr(many).splitlines()) <= 62
    assert "\x1b" not in repr(judged(Finding("stall", "warning", "exp-7", EVIL)))


def test_in_a_notebook_followers_stand_under_their_root_and_names_are_no_markup():
    shown = judged(NAN, spike(), *NOTES, Finding("clock-skew", "warning", "exp-7", EVIL))._repr_html_()
    assert "loss spike x 3.2 at step 900 -&gt; loss NaN at 912" in shown
    root, follower = shown.index("loss leapt"), shown.index("loss is NaN")
    assert "<ul><li>" in shown[root:follower] and "<b>3 notes</b>" not in shown
    assert "<summary>3 notes</summary>" in shown and "&lt;b&gt;" in shown and "ss<b>" not in shown
    assert "no findings" in judged()._repr_html_()
