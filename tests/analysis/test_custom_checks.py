"""Checks of a user's own: judged like ours, known to rules and reports, and never a danger to the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import aftertrain as at
from aftertrain.cli import main
from analysis import check_sources
from analysis.check_sources import load_checks, own_checks
from analysis.custom_checks import check, forget, registered
from analysis.findings import Finding, NotApplicable
from analysis.kinds import KINDS
from analysis.limits import Measure
from analysis.rules import rules_of
from eventstream.errors import InputError
from parsers.finish import finish
from parsers.run import Run
from parsers.settings import read_settings

ROOT = Path(__file__).parents[2]
CHECK = """
import aftertrain as at

@at.check("loss-negative", family="numbers", meaning="the loss is below zero", needs=("loss",))
def negative(run):
    low = run.series("loss")["value"].min()
    if low < 0:
        yield at.Finding("loss-negative", "warning", run.name, f"down to {low}", evidence={"low": low},
                         suggestions=("look at it",))
"""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = set(KINDS)
    yield
    for kind in set(KINDS) - before:
        forget(kind)
    check_sources._loaded.clear()


def run_of(**series: list[float]) -> Run:
    rows = [(tag, step, value) for tag, values in series.items() for step, value in enumerate(values)]
    return finish("r", "r", "jsonl", pl.DataFrame(rows, schema=["tag", "step", "value"], orient="row"))


def register(function: Any, kind: str = "mine", **options: Any) -> Any:
    return check(kind, **{"family": "numbers", "meaning": "a thing of ours", **options})(function)


def say(severity: str = "warning") -> Any:
    def judge(run: Run) -> Iterator[Finding]:
        yield Finding("mine", severity, run.name, "there it is", metric="loss", evidence={"n": 1}, suggestions=("try",))  # type: ignore[arg-type]

    return judge


def test_the_check_of_the_page_is_fifteen_lines_and_finds_what_it_says() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/custom-checks.md").read_text(), re.M | re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    exec(compile(code, "docs/custom-checks.md", "exec"), {})
    rng = np.random.default_rng(0)
    calm, wild = rng.uniform(0.9, 1.1, 100).tolist(), np.exp(rng.normal(0, 1.5, 100)).tolist()
    assert at.diagnose(run_of(grad_norm=calm), checks=["grad-noise"]).status == "healthy"
    found = at.diagnose(run_of(grad_norm=wild), checks=["grad-noise"])
    assert [f.kind for f in found.findings] == ["grad-noise"] and found.findings[0].family == "optimisation"
    assert [m.kind for m in found.measures] == ["grad-noise"]
    milder = {"threshold": {"grad-noise": 1000.0}}
    assert at.diagnose(run_of(grad_norm=wild), checks=["grad-noise"], rules=milder).status == "healthy"
    without = at.diagnose(run_of(loss=calm), checks=["grad-noise"]).not_applicable
    assert [(n.kind, n.reason) for n in without] == [
        ("grad-noise", "the check needs grad_norm, and no series of this log is taken for it")
    ]


def test_diagnosis_report_and_json_know_an_own_kind() -> None:
    register(say())
    judged = at.diagnose(run_of(loss=[1.0] * 50))
    assert "mine" in judged.judged and judged.status == "warning"
    assert judged.results["mine"].frame.height == 1
    assert "mine" in judged.results["mine"].plot().get_title()
    page = at.report(run_of(loss=[1.0] * 50), format="html", checks=["mine"]).text
    assert "there it is" in page and "mine" in page
    told = json.loads(at.report(run_of(loss=[1.0] * 50), format="json", checks=["mine"]).text)
    assert "mine" in json.dumps(told)


def test_rules_select_ignore_change_and_waive_an_own_kind_and_list_it_in_errors() -> None:
    register(say())
    run = run_of(loss=[1.0] * 5)

    def status(**rules: Any) -> str:
        return at.diagnose(run, checks=["mine"], rules=rules).status

    assert (status(), status(ignore=["mine"]), status(severity={"mine:loss": "critical"})) == (
        "warning", "healthy", "critical",
    )  # fmt: skip
    assert status(select=["mine"]) == "warning" and status(ignore=["numbers"]) == "healthy"
    waived = {"kind": "mine", "reason": "known", "until": date(2999, 1, 1)}
    assert status(waive=[waived]) == "healthy"
    with pytest.raises(InputError, match="did you mean 'mine'"):
        rules_of({"ignore": ["mien"]})


def fails(run: Run) -> list[Finding]:
    raise RuntimeError("out of luck\nand more")


def half(run: Run) -> Iterator[Finding]:
    yield Finding("mine", "warning", run.name, "found", evidence={"a": 1}, suggestions=("x",))
    raise KeyError("then not")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (fails, r"tests?.*fails failed: RuntimeError: out of luck \(line \d+ of .*test_custom_checks.py\)"),
        (lambda run: 3, "failed: TypeError"),
        (lambda run: ["text"], "it gave a str, not a Finding"),
        (lambda run: Finding("stall", "info", run.name, "x"), "it spoke of 'stall', which is not its kind"),
        (lambda run: exit(3), "failed: SystemExit: 3"),
        (lambda run: NotApplicable("mine", "too short"), "^too short$"),
    ],
)
def test_a_check_that_fails_is_named_with_its_error_and_stops_nothing(function: Any, reason: str) -> None:
    register(function)
    judged = at.diagnose(run_of(loss=[1.0, float("nan"), 1.0] * 20))
    (told,) = [n for n in judged.not_applicable if n.kind == "mine"]
    assert re.search(reason, told.reason), told.reason
    assert any(f.kind == "non-finite" for f in judged.findings), "the other checks have run"


def test_what_a_check_found_before_it_failed_is_kept_and_its_end_is_said() -> None:
    register(half)
    first, second = registered()["mine"](run_of(loss=[1.0])).findings
    assert (first.severity, second.severity) == ("warning", "info")
    assert "stopped before its end: KeyError" in second.message


def test_nothing_one_finding_and_measures_are_answers() -> None:
    register(lambda run: None, "nothing-found")
    register(lambda run: Finding("one-found", "info", run.name, "x"), "one-found")
    register(lambda run: Measure("one-measured", 3.0), "one-measured", limit=at.Limit("x", 4.0, "things", "us"))
    judged = at.diagnose(run_of(loss=[1.0]), checks=["nothing-found", "one-found", "one-measured"])
    assert [f.kind for f in judged.findings] == ["one-found"] and not judged.not_applicable
    assert judged.measures == (Measure("one-measured", 3.0),)


@pytest.mark.parametrize(
    ("kind", "options", "function", "said"),
    [
        ("stall", {}, say(), "is aftertrain's own already"),
        ("My Kind", {}, say(), "a name in lower case with hyphens"),
        ("mine", {"family": "number"}, say(), "did you mean 'numbers'"),
        ("mine", {"meaning": " "}, say(), "needs a meaning"),
        ("mine", {"limit": 3.0}, say(), r"at\.Limit\(measure, default, unit, source\) was expected"),
        ("mine", {}, lambda: None, "cannot be called with a run alone"),
        ("mine", {}, lambda run, other: None, r"its form is def name\(run\)"),
        ("mine", {}, Run, "a function was expected"),
    ],
)
def test_a_wrong_registration_is_an_error_at_once(kind: str, options: Any, function: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        register(function, kind, **options)
    assert "mine" not in KINDS


def test_an_asynchronous_function_is_no_check() -> None:
    async def judge(run: Run) -> None: ...

    with pytest.raises(ValueError, match="asynchronous"):
        register(judge)


def test_a_kind_of_another_is_refused_and_one_of_the_same_function_is_made_anew() -> None:
    register(say())
    register(say("critical"))  # the cell of a notebook that is run again
    assert at.diagnose(run_of(loss=[1.0]), checks=["mine"]).status == "critical"
    with pytest.raises(ValueError, match=r"is that of .*say.*judge already"):
        register(half)
    with pytest.raises(ValueError, match="unknown kind of an own check 'stall'"):
        forget("stall")


def test_a_file_of_checks_is_run_where_the_command_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ours.py").write_text(CHECK)
    (tmp_path / "log.jsonl").write_text("".join(f'{{"step": {i}, "loss": {5 - i}}}\n' for i in range(40)))
    call = ["check", str(tmp_path / "log.jsonl"), "--fail-on", "never", "--format", "json"]
    assert main([*call, "--checks", str(tmp_path / "ours.py")]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert "loss-negative" in {f["kind"] for f in run["findings"]}


def test_settings_name_files_from_their_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "log.jsonl").write_text("".join(f'{{"step": {i}, "loss": {5 - i}}}\n' for i in range(40)))
    (tmp_path / "ours.py").write_text(CHECK)
    (tmp_path / "aftertrain.toml").write_text(
        '[checks]\nfiles = ["ours.py"]\n[findings.severity]\n"loss-negative" = "fatal"\n'
    )
    monkeypatch.chdir(tmp_path / "logs")
    assert main(["check", "log.jsonl", "--fail-on", "fatal"]) == 1
    assert "loss-negative" in capsys.readouterr().out


def test_nothing_of_a_folder_of_logs_is_run_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n" + CHECK)
    (tmp_path / "aftertrain.toml").write_text('[checks]\nfiles = ["trap.py"]\n')
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    monkeypatch.chdir(tmp_path)
    for command in (["check", "."], ["check", str(tmp_path)], ["ls", "."], ["report", ".", "-o", "x.md"]):
        assert main(command) == 2
        assert "nothing of a folder of logs is run unasked; say --config" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()
    assert main(["check", ".", "--config", "aftertrain.toml"]) == 0, "who names the settings means them"
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "a Python file with checks was expected"),
        ("x = 1\n", "registers no check; a check is a function under @at.check"),
        ("import aftertrain\n1 / 0\n", "cannot be loaded (ZeroDivisionError"),
        ("raise SystemExit(3)\n", "cannot be loaded (SystemExit"),
        (CHECK + "\n1 / 0\n", "cannot be loaded (ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_file_of_checks_says_why_and_leaves_nothing(
    tmp_path: Path, text: str | None, said: str
) -> None:
    place = tmp_path / "ours.py"
    if text is not None:
        place.write_text(text)
    with pytest.raises(InputError) as error:
        load_checks(place)
    assert said in str(error.value) and str(error.value).startswith(str(place))
    assert "loss-negative" not in KINDS


def test_a_file_is_run_once_in_a_process(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(CHECK)
    assert load_checks(tmp_path / "ours.py") == load_checks(str(tmp_path / "ours.py")) == ("loss-negative",)


@pytest.mark.parametrize(
    ("table", "said"),
    [('files = "a.py"', "a list of Python files was expected"), ('file = ["a.py"]', "did you mean 'files'"),
     ('files = ["a.sh"]', "a list of Python files")],
)  # fmt: skip
def test_a_wrong_table_of_checks_is_an_error(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "aftertrain.toml").write_text(f"[checks]\n{table}\n")
    with pytest.raises(InputError, match=re.escape(said)):
        read_settings(tmp_path / "aftertrain.toml")


def test_packages_bring_checks_and_broken_ones_are_told_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_checks.py").write_text(CHECK)
    (tmp_path / "their_empty.py").write_text("x = 1\n")
    (tmp_path / "their_broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [EntryPoint(n, f"their_{n}", check_sources.GROUP) for n in ("broken", "checks", "empty")]
    monkeypatch.setattr(check_sources, "entry_points", lambda group: entries)
    check_sources._from_packages.cache_clear()
    try:
        with pytest.warns(UserWarning) as told:
            assert list(own_checks()) == ["loss-negative"]
        said = sorted(str(one.message) for one in told)
        assert "checks 'broken' of their_broken: cannot be loaded (ModuleNotFoundError" in said[0]
        assert "registers no check" in said[1] and len(said) == 2
        assert any(f.kind == "loss-negative" for f in at.diagnose(run_of(loss=[1.0, -2.0])).findings)
    finally:
        check_sources._from_packages.cache_clear()
