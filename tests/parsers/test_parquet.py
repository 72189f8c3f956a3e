"""Generic Parquet: wide and long, eager and lazy, against the plain table."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from eventstream.errors import InputError
from parsers import parquet
from parsers.loading import load

NAMES = ["loss", "eval_loss", "acc"]


def long_table(count: int = 500) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "step": np.tile(np.arange(count), len(NAMES)),
            "metric": [name for name in NAMES for _ in range(count)],
            "value": rng.normal(size=count * len(NAMES)),
        }
    )


def test_a_long_table_is_read_the_same_lazily_and_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.parquet"
    # row groups that mix two names, and such that hold one
    long_table().write_parquet(path, row_group_size=200)
    eager = load(path)
    monkeypatch.setattr(parquet, "EAGER", 0)
    monkeypatch.setattr(parquet, "_eager", lambda *a: pytest.fail("read at once"))
    lazy = load(path)
    assert_frame_equal(lazy.scalars, eager.scalars)
    expected = long_table().filter(metric="eval_loss")["value"]
    assert lazy.series("loss", split="eval")["value"].to_list() == expected.to_list()


def test_a_resume_in_a_long_table_is_found_lazily_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = [*range(300), *range(200, 500)]
    table = pl.DataFrame({"step": step * 2, "metric": ["loss"] * 600 + ["acc"] * 600, "value": [1.0] * 1200})
    path = tmp_path / "run.parquet"
    table.write_parquet(path)
    monkeypatch.setattr(parquet, "EAGER", 0)
    run = load(path)
    assert run.series("loss")["step"].to_list() == list(range(500))
    assert run.scalars.filter(pl.col("attempt") == 1).height == 600


def test_a_long_table_in_the_order_of_steps_is_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.parquet"
    long_table().sort("step", maintain_order=True).write_parquet(path)
    monkeypatch.setattr(parquet, "EAGER", 0)
    run = load(path)
    assert run.scalars["tag"].rle_id().max() == len(NAMES) - 1
    assert run.series("acc")["value"].to_list() == long_table().filter(metric="acc")["value"].to_list()


def test_a_wide_table_with_times_structs_and_gaps(tmp_path: Path) -> None:
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    table = pl.DataFrame(
        {
            "global_step": [1, 2, 3],
            "timestamp": [start, start + dt.timedelta(seconds=1), None],
            "loss": [1.0, None, float("nan")],
            "train": [{"acc": 0.5}] * 3,
            "phase": ["warm", "warm", "hot"],
        }
    )
    table.write_parquet(tmp_path / "run.parquet")
    run = load(tmp_path / "run.parquet")
    assert run.series("loss")["step"].to_list() == [1, 3]
    assert run.series("acc", split="train")["time"].to_list() == table["timestamp"].to_list()
    assert run.events.select("step", "payload").rows() == [(1, '{"phase":"warm"}'), (3, '{"phase":"hot"}')]


def test_our_own_tidy_table_comes_back_as_it_was(tmp_path: Path) -> None:
    long_table().write_parquet(tmp_path / "run.parquet")
    run = load(tmp_path / "run.parquet")
    run.scalars.write_parquet(tmp_path / "again.parquet")
    again = load(tmp_path / "again.parquet")
    assert_frame_equal(again.scalars, run.scalars)


def test_a_table_without_numbers_is_no_run(tmp_path: Path) -> None:
    pl.DataFrame({"name": ["a"], "text": ["b"]}).write_parquet(tmp_path / "run.parquet")
    with pytest.raises(InputError, match="no column of numbers"):
        load(tmp_path / "run.parquet")


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_or_tiny_table_is_a_run(tmp_path: Path, rows: int) -> None:
    pl.DataFrame({"step": [1], "loss": [0.5]}).head(rows).write_parquet(tmp_path / "run.parquet")
    assert load(tmp_path / "run.parquet").scalars.height == rows
