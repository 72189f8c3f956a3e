"""Truths as the generator writes them, and the choice among them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.faults.score_truth import chosen, read_index, truth_of
from benchmarks.faults.truth import INDEX
from tests.benchmarks.faults.scored_runs import faulty, healthy


def test_an_index_is_read_as_a_list_or_under_runs_and_more_fields_are_left_out(tmp_path: Path) -> None:
    row = {**asdict(faulty("stall", 3)), "seconds": 1.5}
    for content in ([row], {"version": 1, "runs": [row]}):
        (tmp_path / INDEX).write_text(json.dumps(content))
        assert read_index(tmp_path) == [faulty("stall", 3)]


def test_a_folder_without_logs_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"benchmarks\.faults generate"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fault": "los-spike"}, "did you mean 'loss-spike'"),
        ({"accepted": ["stal"]}, "did you mean 'stall'"),
        ({"split": "test"}, "unknown split"),
        ({"magnitude": None}, "give both or none"),
        ({"magnitude": 7}, "not one of"),
    ],
)
def test_a_wrong_truth_is_refused_with_its_run(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        truth_of({**asdict(faulty("stall", 3, run="a7")), **change})
    assert "a7" in str(error.value)


def test_a_truth_that_lacks_a_field_names_it() -> None:
    row = asdict(healthy(run="a7"))
    del row["onset_step"]
    with pytest.raises(ValueError, match="run a7: its truth lacks onset_step"):
        truth_of(row)


def test_runs_are_chosen_by_split_and_fault() -> None:
    runs = [healthy(), healthy(split="scored"), faulty("stall", 1), faulty("plateau", 2)]
    assert chosen(runs, "calibration") == [runs[0], runs[2], runs[3]]
    assert chosen(runs, "calibration", ["stall", "healthy"]) == [runs[0], runs[2]]
    with pytest.raises(ValueError, match="did you mean 'stall'"):
        chosen(runs, "calibration", ["stal"])


def test_a_share_keeps_some_of_every_fault_and_magnitude() -> None:
    runs = [faulty("stall", magnitude, run=str(n)) for magnitude in (1, 2, 3) for n in range(10)]
    kept = chosen(runs, "calibration", share=0.2)
    assert [truth.magnitude for truth in kept] == [1, 1, 2, 2, 3, 3]
    assert len(chosen(runs, "calibration", share=0.01)) == 3
    with pytest.raises(ValueError, match="share is 0"):
        chosen(runs, "calibration", share=0)
