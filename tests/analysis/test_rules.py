"""What a project says about findings: selected, ignored, made milder or worse, waived with a reason until a day."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from aftertrain.cli import main
from analysis.diagnose import diagnose
from analysis.findings import Finding
from analysis.rules import rules_of
from eventstream.errors import InputError
from parsers.finish import finish
from parsers.run import Run
from parsers.settings import read_settings

SPIKE = Finding("loss-spike", "warning", "exp-1", "loss leapt", metric="loss", first_step=5)
GAP = Finding("train-eval-gap", "info", "exp-1", "far apart", metric="val/loss")
CUT = Finding("truncated-stream", "critical", "exp-2", "cut")
ALL = [SPIKE, GAP, CUT]
TODAY = date(2026, 11, 21)


def kept(declared: dict[str, Any], findings: list[Finding] = ALL) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in rules_of(declared).applied(findings, [], TODAY)[0]]


def test_no_rules_leave_everything_as_it_is() -> None:
    assert rules_of({}).applied(ALL, ["outlier"], TODAY) == (ALL, [])


@pytest.mark.parametrize(
    ("declared", "left"),
    [
        ({"select": ["loss-spike"]}, ["loss-spike"]),
        ({"select": ["generalisation", "stream"]}, ["train-eval-gap", "truncated-stream"]),
        ({"ignore": ["loss-spike", "stream"]}, ["train-eval-gap"]),
        ({"ignore": ["train-eval-gap:val/*"]}, ["loss-spike", "truncated-stream"]),
        ({"ignore": ["train-eval-gap:test/*", "truncated-stream:*loss"]},
         ["loss-spike", "train-eval-gap", "truncated-stream"]),
        ({"select": [], "ignore": []}, []),
    ],
)  # fmt: skip
def test_kinds_families_and_globs_of_metrics_are_selected_and_ignored(declared: Any, left: list[str]) -> None:
    assert [kind for kind, _ in kept(declared)] == left


def test_what_was_left_out_is_said_with_its_file_and_never_called_judged() -> None:
    rules = rules_of({"ignore": ["outlier", "loss-spike:lr"]}, "a/aftertrain.toml [findings]")
    _, out = rules.applied([], ["outlier", "loss-spike"], TODAY)
    assert [(n.kind, n.reason) for n in out] == [("outlier", "ignored in a/aftertrain.toml [findings]")]


def test_the_last_severity_that_fits_counts() -> None:
    told = {"optimisation": "critical", "loss-spike:*loss": "info"}
    assert kept({"severity": told}, [SPIKE]) == [("loss-spike", "info")]
    assert kept({"severity": dict(reversed(told.items()))}, [SPIKE]) == [("loss-spike", "critical")]


@pytest.mark.parametrize(("until", "severity"), [(date(2026, 11, 21), "info"), (date(2026, 11, 20), "critical")])
def test_a_waiver_holds_until_the_end_of_its_day_and_is_then_said_to_have_expired(until: date, severity: str) -> None:
    waiver = {"kind": "truncated-stream", "run": "exp-*", "reason": "disk was full", "until": until}
    (found,), _ = rules_of({"waive": [waiver]}).applied([CUT], [], TODAY)
    assert found.severity == severity
    assert ("disk was full" in found.message) == (severity == "info")
    assert ("expired on 2026-11-20" in found.message) == (severity == "critical")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"selct": []}, "unknown key 'selct'; did you mean 'select'"),
        ({"select": "outlier"}, "select: is 'outlier'; a list was expected"),
        ({"select": ["spike"]}, "unknown kind or family 'spike'"),
        ({"severity": {"outlier": "bad"}}, "severity: outlier: unknown severity 'bad'"),
        ({"severity": ["outlier"]}, "a table of kinds and severities was expected"),
        ({"waive": [{"kind": "outlier", "until": TODAY}]}, "entry 1: a waiver needs a reason"),
        ({"waive": [{"kind": "outlier", "reason": "r"}]}, "needs the date until which it holds"),
        ({"waive": [{"kind": "outlier", "reason": "r", "untl": TODAY}]}, "unknown key 'untl'"),
        ({"waive": [{"kind": "outlire", "reason": "r", "until": TODAY}]}, "did you mean 'outlier'"),
        ({"waive": ["outlier"]}, "a table with kind, metric, run, reason, until was expected"),
    ],
)
def test_a_mistake_is_said_with_its_place_and_the_nearest_name(declared: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        rules_of(declared, "aftertrain.toml [findings]")
    assert str(error.value).startswith("aftertrain.toml [findings]: ") and said in str(error.value)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A log whose loss becomes NaN and stays so."""
    rows = "".join(f'{{"step": {s}, "loss": {"NaN" if s > 150 else 3.0 / (1 + s / 50)}}}\n' for s in range(200))
    path = tmp_path / "exp.jsonl"
    path.write_text(rows)
    return path


@pytest.mark.parametrize(
    ("rules", "status"),
    [
        ("", 1),
        ('ignore = ["non-finite"]', 0),
        ('select = ["stream"]', 0),
        ('[findings.severity]\nnon-finite = "info"', 0),
        ('[[findings.waive]]\nkind = "non-finite"\nreason = "known"\nuntil = 2999-01-01', 0),
        ('[[findings.waive]]\nkind = "non-finite"\nreason = "known"\nuntil = 2001-01-01', 1),
    ],
)
def test_the_command_line_follows_the_settings_of_the_project(
    broken: Path, rules: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = broken.parent / "aftertrain.toml"
    config.write_text(f"[findings]\n{rules}\n")
    assert main(["check", str(broken), "--config", str(config)]) == status
    assert main(["report", str(broken), "--config", str(config), "-o", str(broken.parent / "r.md")]) == 0
    out = capsys.readouterr().out
    assert ("critical" in out.splitlines()[-2]) == bool(status)


def test_a_mistake_in_the_settings_ends_the_call_before_anything_is_read(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = broken.parent / "aftertrain.toml"
    config.write_text('[findings]\nignore = ["outlyer"]\n')
    assert main(["check", str(broken), "--config", str(config)]) == 2
    assert f"{config} [findings]: ignore: unknown kind or family 'outlyer'" in capsys.readouterr().err
    config.write_text("findings = 3\n")
    with pytest.raises(InputError, match="a table of rules for findings was expected"):
        read_settings(config)


def empty() -> Run:
    return finish("empty", "empty.jsonl", "jsonl", pl.DataFrame({"tag": [], "step": [], "value": []}))


def test_a_run_in_which_nothing_stands_is_never_made_healthy() -> None:
    assert diagnose(empty(), rules={"ignore": ["truncated-stream"]}).status == "critical"


def test_checks_of_which_no_kind_is_asked_for_do_not_run() -> None:
    rows = pl.DataFrame({"tag": "loss", "step": range(50), "value": [1.0] * 50})
    result = diagnose(finish("a", "a", "jsonl", rows), rules={"select": ["overfitting"]})
    assert set(result.results) == {"train_eval_gap"}
    assert {n.reason for n in result.not_applicable if n.kind == "suspiciously-good"} == {
        "not selected in the rules given"
    }


def test_the_settings_that_the_guide_shows_are_understood(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    config = tmp_path / "aftertrain.toml"
    config.write_text(guide.split("```toml\n")[1].split("```")[0])
    rules = rules_of(read_settings(config).findings)
    assert rules.select is not None and {"overfitting", "loss-spike", "non-finite"} <= rules.select
    assert rules.wants(["overfitting"]) and not rules.wants(["train-eval-gap"])
