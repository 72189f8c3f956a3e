from __future__ import annotations

import json
from pathlib import Path

import pytest

from aftertrain.cli import main


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "metrics.jsonl"
    path.parent.mkdir()
    path.write_text("".join(f'{{"step": {step}, "loss": {2 / (step + 1)}}}\n' for step in range(0, 600, 2)))
    (path.parent / "args.json").write_text('{"learning_rate": 0.1, "scheduler": "foo"}')
    return path


def check(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def test_a_plan_on_the_command_line_is_held_against_the_log(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("max_steps = 1000\n")
    assert check(log.parent, "--plan", plan, "--fail-on", "warning") == 1
    shown = capsys.readouterr().out
    assert "the log ends at step 598 of 1,000 planned (60% done, plan.toml: max_steps)" in shown
    assert "plan: 2 entries understood (plan.toml, args.json), 1 not" in shown
    assert check(log.parent, "--fail-on", "warning") == 0


def test_the_json_says_what_of_the_plan_was_understood(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(log.parent, "--format", "json")
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["plan"] == {
        "understood": {"lr.peak": "args.json: learning_rate"},
        "not_understood": ["args.json: scheduler: 'foo' is no schedule of the learning rate that is known"],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [("max_steps = 'x'", "plan.max_steps: expected a number, found 'x'"), ("= 3", "not TOML that can be read")],
)
def test_a_plan_that_cannot_be_used_ends_with_status_2_and_a_sentence(
    text: str, said: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    assert check(log.parent, "--plan", plan) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err and "Traceback" not in told.err
    assert check(log.parent, "--plan", tmp_path / "gone.toml") == 2
    assert "the plan cannot be read" in capsys.readouterr().err


def test_a_report_takes_a_plan_and_shows_what_was_understood(log: Path, tmp_path: Path) -> None:
    plan, page = tmp_path / "plan.json", tmp_path / "page.html"
    plan.write_text('{"epochs": 3}')
    assert main(["report", str(log.parent), "--plan", str(plan), "-o", str(page)]) == 0
    assert "2 entries understood (plan.json, args.json), 1 not" in page.read_text()
