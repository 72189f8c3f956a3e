"""Generic JSON lines: wide, long and nested, in bulk and line by line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from parsers.jsonl import read, sniff
from parsers.loading import load
from parsers.tables import bulk
from parsers.tables.generic import Records


def write(folder: Path, records: list[Any], name: str = "run.jsonl", **options: Any) -> Path:
    path = folder / name
    path.write_bytes("".join(json.dumps(record, **options) + "\n" for record in records).encode())
    return path


def slowly(path: Path) -> Any:
    """The obvious version: every line through Python's json, record by record."""
    records = Records(str(path))
    for line, text in enumerate(path.read_bytes().decode().split("\n"), 1):
        if text.strip():
            records.add(line, json.loads(text))
    return records.run(path.name.split(".")[0], "jsonl")


def both_equal(path: Path) -> None:
    fast, slow = read(path), slowly(path)
    assert_frame_equal(fast.scalars, slow.scalars)
    assert_frame_equal(fast.events.drop("payload"), slow.events.drop("payload"))
    payloads = zip(fast.events["payload"], slow.events["payload"], strict=True)
    assert all(json.loads(a) == json.loads(b) for a, b in payloads), "the order of keys means nothing in JSON"
    assert fast.config == slow.config


def test_wide_objects_become_one_row_a_number(tmp_path: Path) -> None:
    run = load(write(tmp_path, [{"step": s, "loss": 3.0 - s, "acc": s / 4} for s in range(3)]))
    assert run.series("loss").select("step", "value").rows() == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert run.metrics == ["acc", "loss"]


def test_long_objects_become_one_row_each(tmp_path: Path) -> None:
    records = [{"step": s, "metric": m, "value": s * k} for s in range(400) for k, m in enumerate(("loss", "acc"))]
    path = write(tmp_path, records)
    run = load(path)
    assert run.catalogue.select("metric", "count").rows() == [("acc", 400), ("loss", 400)]
    assert run.series("acc")["value"].to_list() == [float(s) for s in range(400)]
    both_equal(path)


def test_nested_keys_are_joined_and_give_the_split(tmp_path: Path) -> None:
    run = load(write(tmp_path, [{"step": s, "train": {"loss": 1.0, "kd": {"raw": 2.0}}} for s in range(3)]))
    assert run.catalogue.select("split", "metric", "tag").rows() == [
        ("train", "kd/raw", "train/kd/raw"),
        ("train", "loss", "train/loss"),
    ]


@pytest.mark.parametrize("key", ["step", "global_step", "iteration", "iter", "it", "_step", "Trained Steps"])
def test_steps_are_told_by_many_names(tmp_path: Path, key: str) -> None:
    run = load(write(tmp_path, [{key: s, "loss": 1.0} for s in (5, 6)]))
    assert run.series("loss")["step"].to_list() == [5, 6]


def test_epoch_time_split_and_rank_are_columns(tmp_path: Path) -> None:
    records = [
        {"step": 1, "epoch": 0.5, "timestamp": "2024-01-02T03:04:05Z", "split": "val", "rank": 3, "loss": 1.0},
        {"step": 2, "epoch": 0.6, "time": 1_700_000_000.25, "split": "train", "rank": 3, "loss": 2.0},
    ]
    run = load(write(tmp_path, records))
    first, second = run.scalars.sort("step").iter_rows(named=True)
    assert (first["epoch"], first["split"], first["rank"], str(first["time"])) == (
        0.5, "eval", 3, "2024-01-02 03:04:05+00:00",
    )  # fmt: skip
    assert second["time"].timestamp() == 1_700_000_000.25


def test_a_time_that_is_a_duration_stays_a_metric(tmp_path: Path) -> None:
    run = load(write(tmp_path, [{"step": s, "time": 0.25} for s in range(400)]))
    assert run.metrics == ["time"] and run.scalars["time"].null_count() == 400


@pytest.mark.parametrize("count", [3, 1000])
def test_numbers_in_quotes_are_numbers(tmp_path: Path, count: int) -> None:
    records = [{"step": str(s), "loss": ("0.5", "NaN", "Infinity")[s % 3]} for s in range(count)]
    path = write(tmp_path, records)
    values = load(path).series("loss")["value"].to_list()[:3]
    assert values[0] == 0.5 and math.isnan(values[1]) and values[2] == math.inf
    both_equal(path)


def test_nan_literals_of_python_are_read(tmp_path: Path) -> None:
    records = [{"step": s, "loss": math.nan if s == 700 else 1.0, "g": -math.inf if s == 3 else s} for s in range(1500)]
    path = write(tmp_path, records)
    run = load(path)
    assert run.rejects.is_empty()
    assert run.series("loss").filter(pl.col("value").is_nan())["step"].to_list() == [700]
    assert run.series("g")["value"][3] == -math.inf
    both_equal(path)


def test_objects_without_numbers_are_events(tmp_path: Path) -> None:
    run = load(write(tmp_path, [{"event": "start"}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]))
    assert run.events.select("kind", "payload").rows() == [("record", '{"event":"start"}')]


def test_text_beside_numbers_is_kept_once_per_change(tmp_path: Path) -> None:
    records = [{"step": s, "loss": 1.0, "phase": "warm" if s < 600 else "align"} for s in range(1200)]
    path = write(tmp_path, records)
    events = load(path).events
    assert events.select("step", "payload").rows() == [(0, '{"phase":"warm"}'), (600, '{"phase":"align"}')]
    both_equal(path)


def test_a_configuration_is_no_measurement(tmp_path: Path) -> None:
    run = load(write(tmp_path, [{"config": {"lr": 0.1, "depth": 3}}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1}]))
    assert run.config == {"lr": 0.1, "depth": 3} and run.metrics == ["loss"]
    assert run.events_of("config").height == 1


def test_keys_that_appear_late_are_not_lost_in_bulk(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"step": s, "loss": 1.0 / (s + 1)} for s in range(3000)]
    for s in range(1000, 3000, 500):
        records[s] |= {"eval_loss": float(s), "nested": {"late": s}}
    path = write(tmp_path, records)
    assert load(path).series("loss", split="eval")["step"].to_list() == [1000, 1500, 2000, 2500]
    both_equal(path)


def test_a_key_that_stands_twice_is_said_and_the_last_counts(tmp_path: Path) -> None:
    path = write(tmp_path, [{"step": s, "loss": 1.0} for s in range(1000)])
    lines = path.read_text().splitlines()
    lines[500] = '{"step": 500, "loss": 1.0, "loss": 7.0}'
    path.write_text("\n".join(lines) + "\n")
    run = load(path)
    assert run.rejects.select("line", "reason").rows() == [
        (501, "key 'loss' stands twice; the last value counts"),
    ]
    assert run.series("loss")["value"][500] == 7.0 and run.scalars.height == 1000


_VALUES = st.one_of(
    st.floats(allow_nan=False, width=64), st.integers(-(2**70), 2**70), st.none(), st.booleans(),
    st.text(max_size=5), st.sampled_from(["0.5", "NaN", "-inf", "1_0", "{", "a:b", "true"]),
    st.dictionaries(st.sampled_from(["x", "y", "a:b"]), st.floats(allow_nan=False), max_size=2),
    st.lists(st.integers(-9, 9), max_size=2),
)  # fmt: skip
_KEYS = st.sampled_from(
    ["loss", "acc", "eval_loss", "phase", "split", "epoch", "time", "rank", "x/y", "x", "name", "value"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(_KEYS, _VALUES, max_size=4), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_bulk_reading_gives_what_reading_line_by_line_gives(
    tmp_path_factory: pytest.TempPathFactory, odd: list[dict[str, Any]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    records: list[dict[str, Any]] = [{"step": s, "loss": float(rng.normal())} for s in range(bulk.FEW + 64)]
    for record in odd:
        records.insert(int(rng.integers(len(records))), {"step": 5, **record})
    folder = tmp_path_factory.mktemp("odd")
    both_equal(write(folder, records, ensure_ascii=bool(seed % 2)))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(_KEYS, st.one_of(st.floats(allow_nan=False), st.integers(-10, 10), st.text(max_size=4)), min_size=1)
)
def test_columns_of_one_kind_read_alike_in_bulk_and_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any]
) -> None:
    records = [{"step": s, **record} for s in range(bulk.FEW * 2)]
    both_equal(write(tmp_path_factory.mktemp("kind"), records))


@pytest.mark.parametrize(
    ("text", "is_log"),
    [
        ('{"name": "pkg", "version": 1}\n', False),
        ('{\n  "name": "pkg",\n  "size": 3\n}\n', False),
        ('{"lr": 0.1, "layers": 3}\n', False),
        ('{"step": 1, "loss": 0.1}\n', True),
        ('{"loss": 0.1}\n{"loss": 0.2}\n', True),
        ('{"a": "x"}\n{"a": "y"}\n', False),
        ('[{"step": 1, "loss": 2.0}]', True),
        ('[{"name": "x"}]', False),
        ("[1, 2, 3]\n", False),
        ("plain text\n", False),
        ("", False),
    ],
)
def test_other_json_is_not_taken_for_a_log(text: str, is_log: bool) -> None:
    assert sniff(Path("some.json"), text.encode()) is is_log


def test_several_runs_in_one_file_keep_apart(tmp_path: Path) -> None:
    run = load(write(tmp_path, [{"run": r, "step": s, "loss": 1.0} for s in range(2) for r in ("a", "b")]))
    assert run.name == "a" and run.metrics == ["b/loss", "loss"]


def test_clean_lines_are_read_in_bulk_and_not_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [{"step": s, "loss": 1.0, "train": {"acc": 0.5}, "phase": "warm"} for s in range(2000)])
    monkeypatch.setattr(Records, "add", lambda self, line, record: pytest.fail(f"line {line} was read alone"))
    assert read(path).scalars.height == 4000
