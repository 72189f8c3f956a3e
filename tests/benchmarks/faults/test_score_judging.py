"""Judging many runs: in order, each once, and anew where the log or the judge changed."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.faults.score_found import Found, Told
from benchmarks.faults.score_judging import Judge, content_of, told_of
from benchmarks.faults.score_truth import Truth
from tests.benchmarks.faults.scored_runs import healthy


def _judge(truth: Truth, logs: Path) -> Told:
    with (logs / "asked.txt").open("a") as file:
        file.write(truth.id + "\n")
    text = (logs / truth.path).read_text()
    return Told(truth.id, read=True, found=(Found("spike!", "warning", text, 3),))


def _runs(folder: Path) -> list[Truth]:
    runs = [healthy(run=name, path=f"{name}.csv") for name in ("b", "a")]
    for run in runs:
        (folder / run.path).write_text(run.id)
    return runs


def test_verdicts_are_kept_until_the_log_changes(tmp_path: Path) -> None:
    runs = _runs(tmp_path)
    judge = Judge("judge", "1", _judge, {"spike!": ("loss-spike",)})
    first = told_of(judge, runs, tmp_path, jobs=1)
    assert [one.run for one in first] == ["b", "a"]
    assert first[0].found[0].kinds == ("loss-spike",)
    assert told_of(judge, runs, tmp_path, jobs=1) == first
    assert (tmp_path / "asked.txt").read_text().split() == ["b", "a"]
    (tmp_path / "a.csv").write_text("other")
    assert told_of(judge, runs, tmp_path, jobs=1)[1].found[0].message == "other"
    assert (tmp_path / "asked.txt").read_text().split() == ["b", "a", "a"]


def test_another_version_and_fresh_judge_anew(tmp_path: Path) -> None:
    runs = _runs(tmp_path)
    for version, fresh in (("1", False), ("2", False), ("2", True)):
        told_of(Judge("judge", version, _judge), runs, tmp_path, jobs=1, fresh=fresh)
    assert len((tmp_path / "asked.txt").read_text().split()) == 6


def test_what_names_mean_may_change_without_judging_anew(tmp_path: Path) -> None:
    runs = _runs(tmp_path)
    told_of(Judge("judge", "1", _judge, {}), runs, tmp_path, jobs=1)
    again = told_of(Judge("judge", "1", _judge, {"spike!": ("outlier",)}), runs, tmp_path, jobs=1)
    assert [one.found[0].kinds for one in again] == [("outlier",), ("outlier",)]
    assert len((tmp_path / "asked.txt").read_text().split()) == 2


def test_a_cut_line_of_the_cache_is_judged_anew(tmp_path: Path) -> None:
    runs = _runs(tmp_path)
    judge = Judge("judge", "1", _judge)
    told_of(judge, runs, tmp_path, jobs=1)
    cache = tmp_path / "cache" / "judge" / "1.jsonl"
    cache.write_text(cache.read_text()[:-20])
    assert [one.run for one in told_of(judge, runs, tmp_path, jobs=1)] == ["b", "a"]


def test_the_content_of_a_folder_has_names_and_bytes_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.csv").write_text("1")
    digests = {content_of(folder)}
    (folder / "a.csv").rename(folder / "b.csv")
    digests.add(content_of(folder))
    (folder / "b.csv").write_text("2")
    digests.add(content_of(folder))
    assert len(digests) == 3


def test_a_verdict_survives_the_way_through_json() -> None:
    told = Told("a", True, (Found("x", "info", "m", 1, None, "loss", ("outlier",)),), {"stall": "no times"}, None, 0.5)
    assert Told.of(json.loads(json.dumps(told.to_dict()))) == told
