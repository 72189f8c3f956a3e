"""The protocol of `Run` and `RunSet`: text, HTML, pandas, live branch, other names."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from eventstream.errors import InputError
from parsers.finish import Reject, finish
from parsers.loading import load_all
from parsers.run import Run, live_branch
from parsers.schema import EVENTS, REJECTS, SCALARS


def run_of(name: str = "demo", **columns: object) -> Run:
    table = {"tag": ["loss"] * 4, "step": [1, 2, 2, 3], "attempt": [0, 0, 1, 1], "value": [4.0, 3.0, 2.0, 1.0]}
    return finish(name, f"{name}.jsonl", "jsonl", pl.DataFrame({**table, **columns}))


def test_a_run_says_in_one_line_what_it_holds() -> None:
    assert repr(run_of()) == "<Run demo: 4 scalars in 1 series, steps 1 to 3, 0 events, 0 rejects (jsonl)>"


def test_a_hostile_name_is_escaped_in_html() -> None:
    html = run_of("<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_pandas_gets_every_column() -> None:
    frame = run_of().to_pandas()
    assert list(frame.columns) == SCALARS.names() and len(frame) == 4


def test_the_dead_branch_of_a_resume_is_left_out_unless_asked_for() -> None:
    run = run_of()
    assert run.series("loss").select("step", "value").rows() == [(1, 4.0), (2, 2.0), (3, 1.0)]
    assert run.series("loss", live=False).height == 4


def test_rows_without_a_step_are_alive() -> None:
    rows = pl.DataFrame({"rank": [0, 0, 0], "attempt": [0, 0, 1], "step": [None, 5, 2]})
    assert live_branch(rows)["step"].to_list() == [None, 2]


def test_another_name_reaches_every_table() -> None:
    events = pl.DataFrame({"kind": ["note"], "payload": ["{}"]})
    run = finish("a", "a", "jsonl", pl.DataFrame({"tag": ["x"], "value": [1.0]}), events=events).renamed("b")
    assert (run.name, run.scalars["run"][0], run.events["run"][0]) == ("b", "b", "b")


def test_an_empty_run_has_all_columns_and_knows_nothing() -> None:
    run = finish("none", "none", "jsonl", rejects=[Reject("f", "bad", line=3, text="x" * 900)])
    assert (run.scalars.schema, run.events.schema, run.rejects.schema) == (SCALARS, EVENTS, REJECTS)
    assert run.metrics == [] and run.last_step is None and len(run.rejects["text"][0]) == 200
    with pytest.raises(InputError, match="unknown metric 'loss'"):
        run.series("loss")


def test_the_split_of_a_record_counts_before_that_of_its_name() -> None:
    run = run_of(tag=["loss", "eval_loss", "eval_loss", "loss"], split=["val", "", "eval", "train"])
    assert run.scalars.sort("value").select("split", "metric").rows() == [
        ("train", "loss"), ("eval", "loss"), ("eval", "loss"), ("eval", "loss"),
    ]  # fmt: skip


def test_scattered_series_are_put_together_in_their_order() -> None:
    run = finish("a", "a", "csv", pl.DataFrame({"tag": ["x", "y", "x", "y"], "value": [1.0, 2.0, 3.0, 4.0]}))
    assert run.scalars.select("tag", "value").rows() == [("x", 1.0), ("x", 3.0), ("y", 2.0), ("y", 4.0)]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "log.jsonl").write_text('{"step":1,"loss":1}\n{"step":2,"loss":2}\n')
    runs = load_all(tmp_path)
    assert [run.name for run in runs] == ["a/log", "b/log"] and runs["b/log"].scalars["run"][0] == "b/log"
    assert runs.frame.select("run", "scalars", "last_step").rows() == [("a/log", 2, 2), ("b/log", 2, 2)]
    with pytest.raises(KeyError, match="did you mean"):
        runs["a/lo"]
