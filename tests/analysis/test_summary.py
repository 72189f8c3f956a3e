"""`healthy` is never said of what nobody could look at: the words beside it tell what was judged and what was not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import aftertrain as at
from aftertrain.cli import main
from analysis.checks import CHECKS
from analysis.diagnose import Diagnosis

ALL = sum(len(check.kinds) for check in CHECKS)


def judged(folder: Path, *rows: dict[str, Any], **options: Any) -> Diagnosis:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return at.diagnose(at.load(path), **options)


def test_a_log_with_only_a_learning_rate_says_that_it_has_no_loss(tmp_path: Path) -> None:
    diagnosis = judged(tmp_path, *({"step": i, "lr": 1e-3 * (1 - i / 100)} for i in range(100)))
    left = len(diagnosis.not_applicable)
    assert diagnosis.status == "healthy"
    assert diagnosis.summary == f"nothing wrong found; no loss in this log: {left} of {ALL} kinds could not be judged"
    assert diagnosis.summary in repr(diagnosis)


def test_a_loss_too_short_to_judge_is_told_with_the_reason(tmp_path: Path) -> None:
    said = judged(tmp_path, {"step": 0, "loss": 1.0}).summary
    assert said.startswith("nothing wrong found; its loss was not judged (the longest loss has 1 ")


def test_a_sound_loss_needs_no_word_and_a_bad_one_is_counted(tmp_path: Path) -> None:
    losses = [2.0 / (1 + 0.05 * i) + 0.01 * (i * i * 37 % 101) / 101 for i in range(200)]
    rows = [{"step": i, "loss": loss} for i, loss in enumerate(losses)]
    assert judged(tmp_path, *rows).summary.startswith("nothing wrong found: ")
    rows[100]["loss"] = math.nan
    assert judged(tmp_path, *rows).summary.startswith("1 finding worse than a note: ")


def test_a_log_of_events_that_no_check_looks_at_is_not_healthy(tmp_path: Path) -> None:
    diagnosis = judged(tmp_path, *({"step": i, "note": "hello"} for i in range(30)))
    assert diagnosis.status == "warning" and "nothing could be judged" in diagnosis.findings[0].message


def test_a_log_of_times_alone_is_critical(tmp_path: Path) -> None:
    assert judged(tmp_path, *({"step": i, "time": 1.7e9 + i} for i in range(30))).status == "critical"


def test_where_nothing_asked_for_could_be_judged_the_verdict_is_not_healthy(tmp_path: Path) -> None:
    diagnosis = judged(tmp_path, *({"step": i, "loss": 1.0 + i % 3} for i in range(30)), checks=["gan"])
    assert diagnosis.verdict == "not judged" and "healthy" not in repr(diagnosis)
    assert diagnosis.summary.startswith("nothing could be judged: ")


@pytest.mark.parametrize("chosen", ["table", "markdown", "json"])
def test_check_tells_what_it_could_not_judge(chosen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"step": i, "lr": 1e-3}) + "\n" for i in range(50)))
    assert main(["check", str(tmp_path / "log.jsonl"), "--format", chosen]) == 0
    assert "othing wrong found; no loss in this log" in capsys.readouterr().out


def test_check_of_a_narrow_question_that_a_log_cannot_answer_says_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"step": i, "lr": 1e-3}) + "\n" for i in range(50)))
    settings = tmp_path / "aftertrain.toml"
    settings.write_text('[findings]\nselect = ["GAN"]\n')
    assert main(["check", str(tmp_path / "log.jsonl"), "--config", str(settings)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("NOT JUDGED  log") and "nothing could be judged" in told
