"""MLPerf logs: every version of the logger's lines, inside noise, cut, flipped and run into each other."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.loading import load
from parsers.mlperf import read, sniff
from parsers.registry import detect
from tests.parsers.wild import disagreement, wild

START = 1_634_612_077_000


def line(key: str, value: Any, event: str = "POINT_IN_TIME", at: int = 0, **metadata: Any) -> str:
    """A line in the layout of the published logger (mlperf_logging.mllog)."""
    record = {"namespace": "w0", "time_ms": START + at, "event_type": event, "key": key, "value": value}
    return ":::MLLOG " + json.dumps({**record, "metadata": {"file": "train.py", "lineno": 7, **metadata}})


def job() -> list[str]:
    rows = [
        "NCCL version 2.10",
        line("submission_benchmark", "bert"),
        line("global_batch_size", 256),
        line("opt_base_learning_rate", "0.01"),
        line("cache_clear", True),
        line("run_start", None, "INTERVAL_START"),
    ]
    for step in range(1, 21):
        rows.append(f"{step * 5}%|###   | {step}/20 [00:01<00:02]")
        rows.append("0: " + line("tracked_stats", {"loss": 3 - step / 10, "lr": 0.1}, at=step * 1000, step=step * 50))
        rows.append(line("throughput", 100.0 + step, at=step * 1000))
        rows.append(line("block_start", step, "INTERVAL_START", epoch_num=step))
        if step % 5 == 0:
            rows.append(line("eval_accuracy", step / 25, at=step * 1000, epoch_num=step // 5))
    return [*rows, line("run_stop", None, "INTERVAL_END", at=30_000, status="success"), "done"]


def save(folder: Path, rows: list[str], name: str = "job.log") -> Path:
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("path", "facts"), wild("mlperf"), ids=lambda v: v.parent.name if isinstance(v, Path) else "")
def test_results_of_the_benchmark_are_read_as_they_were_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.format == "mlperf" and run.rejects.is_empty()
    assert [said for key in facts if (said := disagreement(run, key.replace(".", "/"), facts[key]))] == []
    for key, counted in facts.items():
        rows = run.scalars.filter(run.scalars["tag"] == key.replace(".", "/"))
        for place, (at, _) in ((0, counted["first"]), (-1, counted["last"])):
            assert at in (rows["step"][place], rows["epoch"][place])


def test_numbers_with_a_place_are_scalars_and_the_others_are_configuration(tmp_path: Path) -> None:
    run = load(save(tmp_path, job()))
    assert run.series("loss", split="train")["step"].to_list() == [50 * s for s in range(1, 21)]
    assert run.series("loss")["value"][0] == 2.9
    assert run.series("accuracy", split="eval").select("step", "epoch", "value").rows() == [
        (None, k, k / 5) for k in (1.0, 2.0, 3.0, 4.0)
    ]
    assert run.config == {
        "submission_benchmark": "bert",
        "global_batch_size": 256,
        "opt_base_learning_rate": "0.01",
        "cache_clear": True,
    }
    assert "block_start" not in run.metrics


def test_a_number_that_changes_without_a_place_is_a_series_without_steps(tmp_path: Path) -> None:
    rows = load(save(tmp_path, job())).series("throughput", split="")
    assert rows["value"].to_list() == [100.0 + s for s in range(1, 21)] and rows["step"].null_count() == 20
    assert rows["time"].is_sorted()


def test_every_line_is_an_event_with_its_source_file_and_line(tmp_path: Path) -> None:
    run = load(save(tmp_path, job()))
    payloads = [json.loads(p) for p in run.events_of("mllog")["payload"]]
    assert len(payloads) == sum(":::MLLOG" in row for row in job())
    assert payloads[0] == {
        "key": "submission_benchmark",
        "value": "bert",
        "event_type": "POINT_IN_TIME",
        "namespace": "w0",
        "metadata": {"file": "train.py", "lineno": 7},
    }
    assert json.loads(run.events_of("end")["payload"][0]) == {"status": "finished", "said": "success"}


def test_an_aborted_run_failed(tmp_path: Path) -> None:
    run = load(save(tmp_path, [line("run_start", None), line("run_stop", None, status="aborted")]))
    assert json.loads(run.events_of("end")["payload"][0])["status"] == "failed"


def test_lines_of_version_0_5_are_read(tmp_path: Path) -> None:
    rows = [
        ":::MLPv0.5.0 resnet 1541706923.188 (train.py:12) run_start",
        ":::MLPv0.5.0 resnet 1541706924.188 (train.py:13) opt_name: \"sgd\"",
        ':::MLPv0.5.0 resnet 1541706925.5 (train.py:90) eval_accuracy: {"epoch": 3, "value": 0.25}',
        ":::MLPv0.5.0 resnet 1541706926.5 (train.py:91) eval_target: 0.749",
        ":::MLPv0.5.0 resnet 1541706927.5 (train.py:92) notes: {'a': 1}",
    ]  # fmt: skip
    run = load(save(tmp_path, rows))
    assert run.series("accuracy").select("epoch", "value").rows() == [(3.0, 0.25)]
    assert run.config == {"opt_name": "sgd", "eval_target": 0.749, "notes": "{'a': 1}"} and run.rejects.is_empty()
    assert json.loads(run.events["payload"][0])["metadata"] == {"file": "train.py", "lineno": 12}


def test_lines_of_version_0_6_are_read(tmp_path: Path) -> None:
    rows = [
        ':::MLL 1558538448.586 global_batch_size: {"value": 64, "metadata": {"lineno": 9, "file": "a.py"}}',
        ':::MLL 1558538449.586 eval_accuracy: {"value": 0.5, "metadata": {"file": "a.py", "epoch_num": 2}}',
    ]
    run = load(save(tmp_path, rows))
    assert run.config == {"global_batch_size": 64}
    assert run.series("accuracy").select("epoch", "value").rows() == [(2.0, 0.5)]


def test_two_lines_that_ran_into_each_other_are_both_read(tmp_path: Path) -> None:
    both = line("eval_accuracy", 0.25, step=1) + line("eval_accuracy", 0.5, step=2) + " [rank 3] done"
    run = load(save(tmp_path, ["x", both]))
    assert run.series("accuracy")["value"].to_list() == [0.25, 0.5]
    assert run.rejects.select("line").rows() == [(2,)] and "runs on" in run.rejects["reason"][0]


def test_a_damaged_line_is_a_reject_with_its_number_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = job()
    rows[7] = rows[7][:-9]
    run = load(save(tmp_path, rows))
    assert run.rejects["line"].to_list() == [8] and run.series("loss").height == 19


def test_names_are_kept_as_they_are_and_strings_of_numbers_are_numbers(tmp_path: Path) -> None:
    odd = 'a/b "c"\n<script>alert(1)</script>'
    rows = [line("tracked_stats", {odd: "0.5", "x": "1,5", "nan": float("nan")}, step="3")]
    run = load(save(tmp_path, rows))
    assert run.series(odd).select("step", "value").rows() == [(3, 0.5)]
    assert sorted(run.metrics) == sorted([odd, "nan"])  # 1,5 is no number that can be told from two


def test_a_log_of_something_else_is_not_taken(tmp_path: Path) -> None:
    for text in (b"we write :::MLLOG lines, see the manual\n", b'{"note": 1}\n', b"step: 1 loss: 2\n", b""):
        assert not sniff(tmp_path / "a.log", text)
    path = save(tmp_path, ["nothing"])
    with pytest.raises(InputError, match="no line of the MLPerf logger"):
        read(path)


def test_the_first_line_may_come_after_a_long_preamble(tmp_path: Path) -> None:
    run = load(save(tmp_path, ["download 10%" * 20] * 1000 + job()))
    assert run.format == "mlperf" and run.series("loss").height == 20


def test_a_result_of_a_benchmark_is_named_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    assert load(save(tmp_path / "bert", job(), "result_3.txt")).name == "bert/result_3"


def test_lines_through_a_logger_with_a_prefix_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for step in range(3):
        handler.emit(logging.LogRecord("a", 20, "a.py", 1, line("eval_accuracy", 0.5, step=step), None, None))
    handler.close()
    assert load(path).series("accuracy")["step"].to_list() == [0, 1, 2]


CONTENT = ("\n".join(job()) + "\n").encode()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_cut_and_flipped_log_keeps_what_stands_in_whole_lines(cut: int, place: int, flip: int) -> None:
    data = bytearray(CONTENT)
    data[place] ^= flip
    kept = bytes(data[:cut])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.log")
        path.write_bytes(kept)
        if detect(path) is None or not sniff(path, kept):
            return
        run = read(path)
        whole = [row for row in kept.split(b"\n")[:-1] if row in CONTENT.split(b"\n") and b'"tracked_stats"' in row]
        assert run.scalars.filter(run.scalars["tag"] == "tracked_stats/loss").height >= len(whole) - 1
        assert run.rejects.height <= 2
