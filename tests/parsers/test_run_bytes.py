"""Runs come back from bytes as they were, whatever stands in them; damaged bytes are noticed."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from eventstream.recorder import Recorder
from parsers.collection import run_bytes
from parsers.collection.gathering import found_below
from parsers.collection.reading import Outcome, read_group
from parsers.collection.run_bytes import from_bytes, stays_on_disk, to_bytes
from parsers.content.plain_values import UnkeptError, plain, restored
from parsers.finish import Reject, finish
from parsers.loading import load
from parsers.options import Options
from parsers.run import Run
from parsers.tables.events import event_frame

WILD = Path(__file__).parents[3] / "shared" / "wild"

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=4) | st.dates() | st.times()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
)  # fmt: skip
KEYS = st.none() | st.booleans() | st.integers() | TEXT | st.just("$") | st.just("v") | st.tuples(st.integers())
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.sets(st.integers() | TEXT, max_size=3)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)


def same_value(one: Any, other: Any) -> bool:
    """Equal in type and content; NaN equals NaN, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (one != one and other != other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same_value(a, b) and same_value(x, y) for (a, x), (b, y) in pairs)
    return bool(one == other)


def same_run(one: Run, other: Run) -> None:
    """Equal in every field and table."""
    for name in (f.name for f in fields(Run) if f.name not in ("source", "whole", "events", "rejects", "sources")):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert same_value(dict(mine), theirs) if name in ("config", "plan") else same_value(mine, theirs), name
    for table in ("scalars", "events", "rejects"):
        assert getattr(one, table).schema == getattr(other, table).schema
        assert_frame_equal(getattr(one, table), getattr(other, table), check_exact=True)
    assert len(one.sources) == len(other.sources)
    for mine, theirs in zip(one.sources, other.sources, strict=True):
        assert (mine.path, mine.format, mine.scalars) == (theirs.path, theirs.format, theirs.scalars)
        assert_frame_equal(mine.against, theirs.against, check_exact=True)


def made(rows: pl.DataFrame, **more: Any) -> Run:
    return finish("demo", "a/demo.csv", "csv", rows, **more)


@given(VALUES)
def test_a_value_comes_back_in_type_and_content(value: Any) -> None:
    assert same_value(value, restored(plain(value)))


def test_a_value_that_has_no_plain_form_is_refused_and_its_run_is_not_made_into_bytes() -> None:
    for value in (object(), np.float64(1.0), {"a": [{1: object()}]}):
        with pytest.raises(UnkeptError, match="has no plain form"):
            plain(value)
    assert to_bytes([made(pl.DataFrame({"tag": ["a"], "value": [1.0]}), config={"x": object()})], {}) is None


def test_a_number_of_ten_thousand_digits_comes_back() -> None:
    value = 10**10_000 + 7
    assert restored(plain({"seed": -value})) == {"seed": -value}


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 2), st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.floats(),
        st.none() | st.integers(-(10**15), 10**15), st.sampled_from(["", "train", "eval"]),
        st.text(max_size=6), st.floats(),
    ),
    max_size=12,
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(ROWS, st.booleans(), st.dictionaries(TEXT, VALUES, max_size=3), st.lists(st.text(max_size=5), max_size=3))
def test_a_run_comes_back_whole(
    rows: list[tuple[Any, ...]], sliced: bool, config: dict[str, Any], reasons: list[str]
) -> None:
    schema = {
        "rank": pl.Int32, "attempt": pl.Int32, "step": pl.Int64, "epoch": pl.Float64, "time": pl.Int64,
        "split": pl.String, "tag": pl.String, "value": pl.Float64,
    }  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    events = event_frame([(0, 0, 0, 1, None, 5, "", "note", '{"text": "x"}')] * len(reasons))
    run = made(frame, config=config, events=events, rejects=[Reject("a", reason, line=1) for reason in reasons])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_bytes, "WHOLE", -1 if sliced else 1 << 16)
        data = to_bytes([run, run.renamed("other")], {"told": [1]})
        assert data is not None
        (one, other), more = from_bytes(data)
    assert more == {"told": [1]}
    same_run(run, one)
    same_run(run.renamed("other"), other)
    assert_frame_equal(run.catalogue, one.catalogue)
    assert_frame_equal(run.source.collect(), one.source.collect(), check_exact=True)


def test_a_long_run_keeps_numbers_only_and_one_series_is_read_of_it_without_the_others() -> None:
    count = run_bytes.WHOLE
    rows = pl.DataFrame(
        {
            "tag": ["loss"] * count + ["eval_acc"] * 10,
            "step": [*range(count), *range(10)],
            "value": [0.5] * (count + 10),
        }
    )
    run = made(rows)
    data = to_bytes([run], {})
    assert data is not None and len(data) < 40 * rows.height
    (back,), _ = from_bytes(data)
    assert "scalars" not in back.__dict__
    assert back.series("acc", split="eval")["step"].to_list() == list(range(10))
    same_run(run, back)
    again = to_bytes([back], {})
    assert again == data  # what came from bytes can become bytes again


def test_a_run_without_any_number_comes_back() -> None:
    data = to_bytes([finish("none", "none.log", "text")], {})
    assert data is not None
    same_run(finish("none", "none.log", "text"), from_bytes(data)[0][0])


def test_every_damage_of_the_bytes_is_noticed() -> None:
    data = to_bytes([made(pl.DataFrame({"tag": ["loss"] * 50, "step": range(50), "value": [0.5] * 50}))], {"a": 1})
    assert data is not None
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(ValueError, match=r"digest|layout"):
            from_bytes(bytes(flipped))
        with pytest.raises(ValueError, match=r"digest|layout"):
            from_bytes(data[:place])
    with pytest.raises(ValueError, match="digest"):
        from_bytes(data + b"x")


def test_tables_that_stay_on_disk_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parsers.parquet.EAGER", 0)
    monkeypatch.setattr("parsers.segments.sealed.EAGER", 0)
    monkeypatch.setattr("parsers.collection.run_bytes.EAGER", 0)
    path = tmp_path / "long.parquet"
    pl.DataFrame({"name": ["a"] * 5, "step": range(5), "value": [1.0] * 5}).write_parquet(path)
    assert stays_on_disk(load(path)) and to_bytes([load(path)], {}) is None
    with Recorder(tmp_path / "exp") as recorder:
        recorder.log(1, {"loss": 0.5})
    run = load(tmp_path / "exp")
    assert stays_on_disk(run) and to_bytes([run], {}) is None
    monkeypatch.undo()
    assert not stays_on_disk(load(tmp_path / "exp"))


def outcomes(folder: Path) -> list[Outcome]:
    return [read_group(group) for group in found_below(folder, Options(), None).groups]


def test_every_sample_and_every_log_of_strangers_comes_back_whole(samples: Path) -> None:
    for folder in (samples, *([WILD] if WILD.is_dir() else [])):
        told = outcomes(folder)
        assert len(told) > 3
        for outcome in told:
            data = to_bytes(outcome.runs, outcome.told())
            assert data is not None, outcome
            runs, more = from_bytes(data)
            assert more == {"errors": [[where, str(error)] for where, error in outcome.errors]}
            for one, other in zip(outcome.runs, runs, strict=True):
                same_run(one, other)
