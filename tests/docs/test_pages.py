"""What README and docs show is so: commands and code run as they stand, settings are obeyed, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

import aftertrain as at
from aftertrain.cli import main
from eventstream.recorder import Recorder
from parsers.text_logs.dialect_toml import from_toml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
DIALECT = "mine.toml"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in the order of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def outside(text: str) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def losses(steps: int) -> str:
    return "".join(json.dumps({"step": s, "loss": 2 / (s + 1) ** 0.3 + 0.5}) + "\n" for s in range(steps))


@pytest.fixture
def desk(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the pages name, from which their commands are given."""
    shutil.copytree(samples / "charlm-healthy", tmp_path / "runs" / "exp-1")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "log.jsonl").write_text(losses(50))
    for seed in "34":  # the file store of MLflow
        place = tmp_path / "mlruns" / "0" / (seed * 32)
        (place / "metrics").mkdir(parents=True)
        (place / "metrics" / "loss").write_text("".join(f"{1_700_000_000_000 + s} 0.5 {s}\n" for s in range(20)))
        (place / "meta.yaml").write_text(f"experiment_id: 0\nrun_id: {seed * 32}\nrun_name: seed-{seed}\nstatus: 3\n")
    (tmp_path / "odd.log").write_text("".join(f"it {s} L={2 / (s + 1):.4f}\n" for s in range(50)))
    (tmp_path / DIALECT).write_text(blocks("docs/formats.md", "toml")[0])
    shutil.copytree(samples / "classifier-healthy" / "checkpoints", tmp_path / "runs" / "exp-1" / "checkpoints")
    for name in ("old.pt", "new.pt"):
        shutil.copy(samples / "classifier-healthy" / "checkpoints" / "step_000750.pt", tmp_path / name)
    shutil.copy(samples / "speaker-encoder" / "checkpoints" / "step000600.safetensors", tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [
    line.removeprefix("$ ").partition("  #")[0].strip()
    for page in PAGES
    for block in blocks(str(page.relative_to(ROOT)), "console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_pages_does_what_it_says(
    command: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *given = shlex.split(command)
    if program == "make":
        assert f"\n{given[0]}: " in (ROOT / "Makefile").read_text()
    elif program == "pip":
        assert given == ["install", "."]
    else:
        assert program == "aftertrain" and main(given) == 0, capsys.readouterr().err
        made = given[given.index("-o") + 1 :][:1] if "-o" in given else []
        assert all((desk / name).stat().st_size > 100 for name in made)
        told = capsys.readouterr().out
        assert made or any(name in told for name in ("charlm-healthy", "new.pt", "model.safetensors"))


def test_the_guide_of_recording_is_two_printed_pages() -> None:
    """Printed plainly (A4, text of 9 points, code of 7.5), 126 lines of 6,900 characters fill nine tenths of them."""
    text = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    assert len(text) <= 7_500 and len(text.splitlines()) <= 136


def test_the_extras_that_the_readme_names_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if "# extras:" in line]
    named = re.findall(r"\[(\w+)\]", line)
    assert named and set(named) <= set(extras)


def test_the_code_of_the_readme_runs_from_top_to_bottom(desk: Path) -> None:
    names: dict[str, Any] = {"loss": 1.0, "lr": 3e-4, "norm": 1.0, "kd": 1.0, "feature": 1.0, "total": 1.0}
    first, read, record = blocks("README.md", "python")
    exec(compile(first, "README.md", "exec"), names)
    assert names["run"].series("loss", split="train").height > 100
    exec(compile(read, "README.md", "exec"), names)
    assert names["runs"][0].name and names["run"].series("loss")["value"][1] == 1.0, "the dialect gives L its name"
    shutil.rmtree(desk / "runs")
    exec(compile(record.replace("3000", "30"), "README.md", "exec"), names)
    assert {"loss", "losses/kd/weight"} <= set(at.load("runs/exp-1").metrics)


def test_the_code_of_the_page_of_roles_runs_and_its_settings_are_obeyed(desk: Path) -> None:
    with Recorder(desk / "runs" / "exp-2", seal=False) as rec:
        for step in range(100):
            rec.log(step, {"energy": 1.0, "opt/size": 1.0, "loss_monitor": 2.0}, split="train")
            rec.log(step, {"val/loss": 1.0})
    (code,) = blocks("docs/roles.md", "python")
    names: dict[str, Any] = {"at": at}
    exec(compile(code.replace("exp-1", "exp-2"), "docs/roles.md", "exec"), names)
    assert names["run"].roles["train_loss"].metric == "energy"
    assert names["run"].roles["grad_norm"].metric == "opt/size"
    (settings,) = blocks("docs/roles.md", "toml")
    (desk / "aftertrain.toml").write_text(settings)
    assert at.load("runs/exp-2", roles="aftertrain.toml").roles["train_loss"].metric == "energy"


def test_the_code_of_the_page_of_checkpoints_runs(desk: Path) -> None:
    (code,) = blocks("docs/checkpoints.md", "python")
    names: dict[str, Any] = {"loss": lambda state: float(sum((value.double() ** 2).sum() for value in state.values()))}
    exec(compile(code, "docs/checkpoints.md", "exec"), names)
    assert names["found"].saves["loss"].null_count() == 0 and names["found"].saves.height == 6


def test_the_dialect_of_the_page_of_formats_reads_its_log(desk: Path) -> None:
    (dialect,) = from_toml(desk / DIALECT)
    assert dialect.name == "mine"
    assert at.load("odd.log", dialects=DIALECT).series("loss")["step"].to_list() == list(range(50))


def test_the_plan_of_the_page_of_the_event_stream_is_understood(tmp_path: Path) -> None:
    (plan,) = blocks("docs/event-stream.md", "json")
    with Recorder(tmp_path / "run", plan=json.loads(plan), seal=False) as rec:
        rec.log(0, {"loss": 1.0})
    assert at.load(tmp_path / "run").plan == json.loads(plan)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside(page.read_text(encoding="utf-8"))):
        name, _, anchor = target.partition("#")
        place = (page.parent / name) if name else page
        assert name.startswith("http") or place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_public_name_and_file_that_a_page_mentions_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in re.findall(r"\bat\.([A-Za-z_]+)", text) if not hasattr(at, name)] == []
    folders = "eventstream|parsers|analysis|aftertrain|docs|data|notebooks|benchmarks|tests"
    paths = re.findall(rf"`((?:{folders})/[\w/-]*(?:\.\w+|/))`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_has_a_row_for_every_question_and_the_folders_that_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    asked = {name for name, home in at._PUBLIC.items() if home.startswith("analysis.") and name.islower()}
    assert [name for name in sorted(asked - {"report"}) if f"at.{name}" not in text] == []
    (named,) = re.findall(r"for what they share \(([\w, .]+), \.\.\.\)", text)
    assert [name for name in named.split(", ") if not (ROOT / "parsers" / name).is_dir()] == []
