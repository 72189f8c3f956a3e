"""The command that makes the samples: what it refuses, and a process that is really killed."""

import json
from pathlib import Path

import pytest

from data.training import charlm, make


def test_an_unknown_sample_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        make.main(["charlm-healty", "--out", str(tmp_path)])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "unknown sample 'charlm-healty'" in said
    assert "charlm-healthy" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "charlm-healthy" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("three years of work")
    with pytest.raises(FileExistsError, match="no recorded run"):
        make.main(["charlm-healthy", "--out", str(tmp_path)])
    assert precious.read_text() == "three years of work"


def test_a_sample_is_recorded_sealed_and_described(tmp_path: Path) -> None:
    options = charlm.Options(steps=20, text_characters=2_000)
    sample = make.Sample("tiny", 0, lambda folder, name: make._charlm(folder, name, options=options), "What.", "Find.")
    make.make(sample, tmp_path)
    make.make(sample, tmp_path)  # a second time replaces the first
    assert len(list((tmp_path / "tiny").glob("*.parquet"))) == 1
    assert list((tmp_path / "tiny").glob("*.jsonl")) == []
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert (manifest["run"], manifest["plan"]["max_steps"], len(manifest["attempts"])) == ("tiny", 20, 1)
    assert "none, this run is healthy" in (tmp_path / "tiny" / "README.md").read_text()


def test_a_killed_run_keeps_every_line_but_the_one_that_was_cut(tmp_path: Path) -> None:
    options = charlm.Options(steps=20, text_characters=2_000, kill_step=7)
    make._killed(tmp_path / "killed", "killed", options=options)
    (segment,) = (tmp_path / "killed").glob("*.jsonl")
    *whole, last = segment.read_bytes().split(b"\n")
    records = [json.loads(line) for line in whole]
    assert [r["step"] for r in records if r["kind"] == "metrics"] == [1, 2, 3, 4, 5, 6]
    assert all(r["kind"] != "end" for r in records)
    with pytest.raises(json.JSONDecodeError):
        json.loads(last)


def test_a_run_that_should_have_been_killed_and_was_not_is_an_error(tmp_path: Path) -> None:
    options = charlm.Options(steps=3, text_characters=2_000)
    with pytest.raises(RuntimeError, match="left with status 0"):
        make._killed(tmp_path / "killed", "killed", options=options)
