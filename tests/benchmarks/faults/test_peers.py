"""Other programs: what they are given, what their reports mean, and what happens when they break."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import aftertrain as at
from analysis.kinds import KINDS
from benchmarks.faults import peers
from benchmarks.faults.peers_files import flat_record, logs_of
from benchmarks.faults.peers_kinds import LOSSLINT, TRAINPROOF, TRAINSPOTTER
from benchmarks.faults.score_found import Told
from tests.benchmarks.faults.scored_runs import healthy

#: A program that prints what it is told to, and ends as it is told to.
_PROGRAM = "#!{python}\nimport sys\nprint({text!r})\nsys.exit({status})\n"


def _install(home: Path, name: str, text: str, status: int) -> None:
    program = home / name / "bin" / name
    program.parent.mkdir(parents=True)
    program.write_text(_PROGRAM.format(python=sys.executable, text=text, status=status))
    program.chmod(0o755)
    # Stands for the interpreter of its environment, which is asked for the version.
    python = program.with_name("python")
    python.write_text(_PROGRAM.format(python=sys.executable, text="1.2.3", status=0))
    python.chmod(0o755)


def _told(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, report: dict[str, Any] | str, status: int = 0
) -> Told:
    logs = home / "logs"
    (logs / "run").mkdir(parents=True)
    (logs / "run" / "metrics.csv").write_text("step,loss\n1,2.0\n")
    _install(home, name, report if isinstance(report, str) else json.dumps(report), status)
    monkeypatch.setattr(peers, "HOME", home)
    (judge,) = peers.installed()
    assert judge.version.startswith("1.2.3-")
    return judge.mapped(judge.judge(healthy(path="run"), logs))


def test_all_that_findings_of_others_may_stand_for_are_kinds_of_ours() -> None:
    for names in (LOSSLINT, TRAINPROOF, TRAINSPOTTER):
        assert {kind for kinds in names.values() for kind in kinds} <= set(KINDS)


def test_losslint_is_understood_with_the_step_of_each_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [
        {"check": "nan_inf", "severity": "error", "message": "m", "details": {"series": "loss", "steps": [40, 50]}},
        {"check": "step_backtrack", "severity": "warning", "message": "m", "details": {"backtracks": [[7, 30]]}},
        {"check": "overfit_onset", "severity": "info", "message": "m", "details": {"since_step": 20}},
    ]
    report = {"runs": [{"series": ["loss", "lr"]}], "findings": findings}
    told = _told(tmp_path, monkeypatch, "losslint", report, 1)
    assert told.read
    assert [(one.name, one.severity, one.first_step) for one in told.found] == [
        ("nan_inf", "critical", 40),
        ("step_backtrack", "warning", 30),
        ("overfit_onset", "info", 20),
    ]
    assert "non-finite" in told.found[0].kinds


def test_losslint_without_a_loss_has_read_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(tmp_path, monkeypatch, "losslint", {"runs": [{"series": ["d_real"]}], "findings": []})
    assert not told.read
    assert told.error == "nothing in it that it judges"


def test_trainproof_is_understood_with_the_step_that_its_evidence_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        {"id": "TP-NAN", "level": "FAIL", "message": "NaN", "evidence": "Steps: [310.0, 320.0]..."},
        {"id": "TP-OVERFIT", "level": "WARN", "message": "m", "evidence": "eval_loss min 1.02 @step200 rose to 1.3"},
        {"id": "TP-DIVERGE", "level": "FAIL", "message": "m", "evidence": "End loss 0.8 vs Min loss 0.2"},
        {"id": "TP-PASS", "level": "PASS", "message": "m", "evidence": "500 steps analyzed."},
    ]
    report = {"error": None, "reports": [{"findings": said}]}
    told = _told(tmp_path, monkeypatch, "trainproof", report, 1)
    assert [(one.name, one.severity, one.first_step) for one in told.found] == [
        ("TP-NAN", "critical", 310),
        ("TP-OVERFIT", "warning", 200),
        ("TP-DIVERGE", "critical", None),
    ]


@pytest.mark.parametrize("missing", ["TP-NO-LOSS", "TP-NOT-CHECKED"])
def test_trainproof_that_could_not_judge_has_read_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    said = [{"id": missing, "level": "FAIL", "message": "m", "evidence": ""}]
    told = _told(tmp_path, monkeypatch, "trainproof", {"error": None, "reports": [{"findings": said}]}, 1)
    assert not told.read
    assert told.found == ()


def test_trainspotter_is_understood_by_its_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = {
        "detector": "spikes",
        "title": "Loss spike",
        "severity": "error",
        "metric": "train/loss",
        "step_start": 12,
        "step_end": 14,
        "message": "m",
    }
    report = {"run": {"metrics": {"train/loss": {}}}, "findings": [finding]}
    told = _told(tmp_path, monkeypatch, "trainspotter", report)
    assert [(one.name, one.severity, one.first_step, one.last_step) for one in told.found] == [
        ("Loss spike", "critical", 12, 14)
    ]
    assert "loss-spike" in told.found[0].kinds


@pytest.mark.parametrize(("text", "status"), [("cannot read this", 2), ("no JSON at all", 0)])
def test_a_program_that_breaks_has_read_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, status: int
) -> None:
    told = _told(tmp_path, monkeypatch, "losslint", text, status)
    assert not told.read


def test_programs_that_are_not_installed_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HOME", tmp_path)
    assert peers.installed() == ()


def test_a_folder_of_event_files_is_given_as_a_folder_to_the_one_that_wants_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("events.out.tfevents.1", "metrics.csv", "config.json", "trainer_state.json"):
        (run / name).write_text("")
    given = {name: [path.name for path in logs_of(name, run, tmp_path)] for name in ("losslint", "trainspotter")}
    assert given["losslint"] == ["metrics.csv", "trainer_state.json", "events.out.tfevents.1"]
    assert given["trainspotter"] == ["metrics.csv", "trainer_state.json", "run"]


@pytest.mark.parametrize("sealed", [True, False])
def test_an_event_stream_is_given_flat_in_the_order_logged(tmp_path: Path, sealed: bool) -> None:
    with at.Recorder(tmp_path / "run", seal=sealed) as recorder:
        for step in (1, 2, 1):
            recorder.log(step, {"loss": 2.0 / step, "lr": 0.1}, split="train")
            recorder.log(step, {"loss": float("nan")}, split="eval")
    (flat,) = logs_of("losslint", tmp_path / "run", tmp_path)
    records = [json.loads(line) for line in flat.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 1, 2, 2, 1, 1]
    assert [records[2][name] for name in ("loss", "lr")] == [1.0, 0.1]
    assert str(float(records[1]["eval_loss"])) == "nan"


def test_a_total_of_components_is_the_loss_where_none_is_logged() -> None:
    assert flat_record(1, 0.0, "train", {"losses/total": 3.0})["loss"] == 3.0
    assert flat_record(1, 0.0, "train", {"losses/total": 3.0, "loss": 2.0})["loss"] == 2.0


def test_names_in_jsonl_are_given_as_all_know_them_and_cut_lines_as_they_are(tmp_path: Path) -> None:
    log, folder = tmp_path / "log.jsonl", tmp_path / "out"
    folder.mkdir()
    log.write_text(
        '{"step": 1, "train/loss": NaN, "lr": 0.1}\n{"step": 1, "split": "val", "loss": 2.0, "epoch": 1}\n{"st'
    )
    (given,) = logs_of("trainproof", log, folder)
    assert given.read_text().splitlines() == [
        '{"step": 1, "loss": NaN, "lr": 0.1}',
        '{"step": 1, "eval_loss": 2.0, "epoch": 1}',
        '{"st',
    ]
