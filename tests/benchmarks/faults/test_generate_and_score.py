"""The whole way on a few runs: really trained, written, indexed, judged by the public door, and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import main
from benchmarks.faults.generate import Maker
from benchmarks.faults.jobs import all_jobs
from benchmarks.faults.score_truth import read_index
from benchmarks.faults.truth import write_index

#: Short trainings: a fault at an obvious magnitude twice, and two healthy runs.
_PLANTS = ("unfinished-run/unfinished", "healthy/accuracy")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    maker = Maker(folder)
    jobs = [job for job in all_jobs() if job.split == "calibration"]
    wanted = [job for plant in _PLANTS for job in [one for one in jobs if one.plant == plant][:2]]
    assert [maker.make(job) for job in wanted] == [""] * 4
    assert write_index(folder, [job.id for job in wanted]) == 4
    return folder


def test_a_few_runs_are_made_and_scored(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = read_index(logs)
    assert [truth.fault for truth in truths] == ["unfinished-run", "unfinished-run", None, None]
    assert main(["score", "--logs", str(logs), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "4 runs of the split calibration: 2 healthy, others with 1 kinds of fault" in said
    ours = [line for line in said.splitlines() if line.startswith("| aftertrain")]
    assert len(ours) == 2
    assert ours[1].endswith("| 0 of 4 |")
    (cache,) = (logs / "cache" / "aftertrain").iterdir()
    kept = [json.loads(line)[2] for line in cache.read_text().splitlines()]
    assert [told["run"] for told in kept] == [truth.id for truth in truths]
    assert all(told["unjudged"] for told in kept)


def test_only_one_fault_is_scored_on_demand(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["score", "--logs", str(logs), "--jobs", "1", "--only", "unfinished-run"])
    said = capsys.readouterr().out
    assert "2 runs of the split calibration: 0 healthy" in said
    assert "| unfinished-run | 2 |" in said


def test_the_page_is_made_of_the_whole_scored_split_alone(logs: Path) -> None:
    with pytest.raises(SystemExit, match="whole scored split"):
        main(["score", "--logs", str(logs), "--jobs", "1", "--write"])
    with pytest.raises(SystemExit, match="no run fits"):
        main(["score", "--logs", str(logs), "--split", "scored"])


def test_a_folder_without_logs_ends_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="generate"):
        main(["score", "--logs", str(tmp_path)])
