"""The command line: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aftertrain.cli import main


def write_log(path: Path, *, steps: int = 300, nan_from: int | None = None, metric: str = "loss") -> Path:
    """A wide JSONL of a decaying noisy loss, NaN from a step on when asked."""
    noise = random.Random(0)
    with path.open("w") as file:
        for step in range(steps):
            value = 2.0 * math.exp(-step / 150) + 0.5
            value *= math.exp(0.05 * noise.gauss(0, 1))
            shown = value if nan_from is None or step < nan_from else float("nan")
            file.write(json.dumps({"step": step, metric: shown}) + "\n")
    return path


def run_cli(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from aftertrain.cli import entry; entry()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, check=False
    )


def test_a_healthy_log_gives_status_zero_and_names_what_was_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["check", str(write_log(tmp_path / "a.jsonl"))]) == 0
    out = capsys.readouterr().out
    assert out.startswith("HEALTHY  a ")
    assert "not judged: all GAN" in out and "all generalisation" in out


def test_a_loss_that_becomes_nan_gives_status_one_and_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", str(write_log(tmp_path / "a.jsonl", nan_from=200))]) == 1
    out = capsys.readouterr().out
    assert "CRITICAL" in out and "non-finite" in out and "200" in out


def test_fail_on_sets_the_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write_log(tmp_path / "a.jsonl", nan_from=200))
    assert main(["check", log, "--fail-on", "fatal"]) == 0
    assert main(["check", log, "--fail-on", "never"]) == 0
    assert main(["check", log, "--fail-on", "warning"]) == 1
    capsys.readouterr()


def test_check_json_is_the_documented_object_and_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["check", str(write_log(tmp_path / "exp-7.jsonl", nan_from=200)), "--format", "json"])

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not strict JSON")

    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert told["version"] == 1 and told["status"] == "critical"
    (run,) = told["runs"]
    assert {"run", "path", "format", "status", "findings", "not_applicable", "rejects"} <= set(run)
    assert run["run"] == "exp-7" and run["format"] == "jsonl"
    finding = run["findings"][0]
    keys = ["kind", "severity", "metric", "first_step", "last_step", "message", "evidence", "causes", "suggestions"]
    assert list(finding) == keys
    assert {"kind", "reason"} == set(run["not_applicable"][0])


def test_junit_counts_one_case_a_kind_and_fails_the_bad_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["check", str(write_log(tmp_path / "a.jsonl", nan_from=200)), "--format", "junit"])
    suite = ET.fromstring(capsys.readouterr().out).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert int(suite.get("tests", "0")) == len(cases) > 5
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert "non-finite" in failed and int(suite.get("failures", "0")) == len(failed)


def test_github_annotations_cannot_be_forged_by_a_metric_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = write_log(tmp_path / "a.jsonl", nan_from=100, metric="loss\n::error::forged %0A")
    main(["check", str(log), "--format", "github"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("::error title=", "::warning title=", "::notice title=")) for line in lines)
    assert not any(line.startswith("::error::forged") for line in lines)


def test_markdown_and_table_neutralise_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write_log(tmp_path / "a.jsonl", nan_from=100, metric="loss\x1b[2J|<script>alert(1)</script>"))
    for chosen in ("table", "markdown"):
        main(["check", log, "--format", chosen])
        out = capsys.readouterr().out
        assert "\x1b" not in out
    assert "<script>" not in out


@pytest.mark.parametrize("chosen", ["table", "json", "markdown"])
def test_ls_names_each_run_with_format_and_length(tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: str):
    write_log(tmp_path / "one.jsonl", steps=50)
    write_log(tmp_path / "two.jsonl", steps=70)
    assert main(["ls", str(tmp_path), "--format", chosen]) == 0
    out = capsys.readouterr().out
    assert "one" in out and "two" in out and "jsonl" in out
    if chosen == "json":
        runs = json.loads(out)["runs"]
        assert [(r["run"], r["last_step"], r["scalars"]) for r in runs] == [("one", 49, 50), ("two", 69, 70)]


def test_unusable_input_is_status_two_and_a_sentence_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "none").mkdir()
    for path, words in [("absent.jsonl", "no such file"), ("empty.jsonl", "empty"), ("none", "no run")]:
        assert main(["check", str(tmp_path / path)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and words in told.err and "Traceback" not in told.err


def test_a_wrong_call_is_status_two():
    with pytest.raises(SystemExit) as stop:
        main(["check", "--format", "yaml", "x"])
    assert stop.value.code == 2


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom aftertrain.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'polars', 'numpy', 'pandas', 'pyarrow', 'matplotlib', 'numba', 'sklearn', 'scipy', 'torch', 'jinja2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_check_of_a_small_log_leaves_the_heavy_libraries_alone(tmp_path: Path):
    log = write_log(tmp_path / "a.jsonl")
    code = (
        "import sys\nfrom aftertrain.cli import main\n"
        f"main(['check', {str(log)!r}])\n"
        "loaded = {'pandas', 'matplotlib', 'seaborn', 'numba', 'sklearn', 'scipy.stats', 'torch', 'jinja2', 'umap'}\n"
        "print(sorted(loaded & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_console_script_works_from_any_folder(tmp_path: Path):
    write_log(tmp_path / "a.jsonl")
    script = Path(sys.executable).with_name("aftertrain")
    done = subprocess.run([script, "ls", "."], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "jsonl" in done.stdout and done.stderr == ""


def test_a_reader_that_leaves_early_causes_no_traceback(tmp_path: Path):
    for number in range(40):
        write_log(tmp_path / f"run{number}.jsonl", steps=20)
    script = Path(sys.executable).with_name("aftertrain")
    with subprocess.Popen(
        [script, "check", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    "code", ["import aftertrain as at; at.diagnose", "from aftertrain.cli import main; main(['ls', '.'])"]
)
def test_another_package_of_our_name_is_named_with_its_file(tmp_path: Path, code: str):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("")
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=usual, check=False
    )
    assert done.returncode == 1
    assert "another one first" in done.stderr and str(tmp_path / "analysis" / "__init__.py") in done.stderr


def test_no_progress_bar_where_standard_error_is_no_terminal(tmp_path: Path):
    done = run_cli("check", str(write_log(tmp_path / "a.jsonl")))
    assert done.returncode == 0 and done.stderr == ""


def test_report_writes_the_file_and_prints_path_and_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out" / "r.html"
    assert main(["report", str(write_log(tmp_path / "a.jsonl", nan_from=200)), "-o", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["critical", "a"] and printed[-1] == str(out)
    assert out.read_text().lstrip().lower().startswith("<!doctype html>")


def test_a_report_that_cannot_be_written_is_status_two_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = str(write_log(tmp_path / "a.jsonl"))
    (tmp_path / "file").touch()
    for out, words in [("r.pdf", "ends in .html, .md or .json"), ("file/r.html", "cannot be written")]:
        assert main(["report", log, "-o", str(tmp_path / out)]) == 2
        assert words in capsys.readouterr().err


def test_the_roles_of_every_series_are_shown_with_their_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = write_log(tmp_path / "a.jsonl", metric="energy")
    assert main(["ls", "--roles", str(log), str(write_log(tmp_path / "b.jsonl"))]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "series", "role", "for", "the", "run", "why"]
    assert [row.split()[:3] for row in rows] == [["a", "energy", "other"], ["b", "loss", "loss"]]
    assert main(["ls", "--roles", str(log), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["runs"][0]
    assert told["run"] == "a" and told["series"][0] == {
        "split": "", "metric": "energy", "tag": "energy", "role": "", "side": "train", "primary": "",
        "why": "its name says nothing", "by": "",
    }  # fmt: skip


def test_settings_of_the_folder_count_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    log = write_log(tmp_path / "a.jsonl", nan_from=200, metric="energy")
    assert main(["check", str(log)]) == 0, "a metric that is no loss is only a warning"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aftertrain.toml").write_text('[roles]\nenergy = "train_loss"\nother = "memory"\n')
    capsys.readouterr()
    assert main(["check", str(log)]) == 1
    told = capsys.readouterr()
    assert "critical non-finite" in told.out
    assert "roles: 'other' names no series; there are energy" in told.err and "aftertrain.toml" in told.err


def test_a_settings_file_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(write_log(tmp_path / "a.jsonl", nan_from=200, metric="energy"))
    settings = tmp_path / "mine.toml"
    settings.write_text('[roles]\nenergy = "loss"\n')
    assert main(["check", log, "--config", str(settings)]) == 1
    assert main(["report", log, "--config", str(settings), "-o", str(tmp_path / "r.html")]) == 0
    assert "critical" in capsys.readouterr().out


def test_a_mistake_in_the_settings_stops_every_command_that_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = str(write_log(tmp_path / "a.jsonl"))
    settings = tmp_path / "mine.toml"
    settings.write_text('[roles]\nenergy = "los"\n')
    for command in (["ls"], ["ls", "--roles"], ["check"], ["report", "-o", str(tmp_path / "r.html")]):
        assert main([*command, log, "--config", str(settings)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and "mine.toml: [roles] 'energy': unknown role 'los'; did you mean 'loss'" in told.err


def test_the_settings_of_a_project_are_read_once_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from parsers import settings

    (tmp_path / "aftertrain.toml").write_text('[findings]\nignore = ["outlier"]\n')
    log = write_log(tmp_path / "a.jsonl")
    read: list[Path] = []
    parsed = settings._parsed
    monkeypatch.setattr(settings, "_parsed", lambda path: (read.append(path), parsed(path))[1])
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(log)]) == 0
    assert [path.name for path in read] == ["aftertrain.toml"]
