"""`convert`: what is written holds what the run held."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

import aftertrain as at
from aftertrain.convert import convert
from parsers.finish import finish
from parsers.run import Run


@pytest.fixture
def run() -> Run:
    values = [1.5, math.nan, math.inf, -math.inf, 1e-300]
    rows = pl.DataFrame({"tag": ["loss"] * 5 + ["eval_loss"] * 5, "step": [0, 1, 2, 3, 4] * 2, "value": values * 2})
    events = pl.DataFrame({"kind": ["note"], "step": [3], "payload": ['{"text":"hello"}']})
    return finish("demo", "demo.jsonl", "jsonl", rows, events=events)


def same_values(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    key = ["split", "metric", "step"]
    columns = [*key, "value"]
    return a.select(columns).sort(key).equals(b.select(columns).sort(key))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_converted_run_loads_as_the_same_numbers(run: Run, tmp_path: Path, suffix: str):
    written = convert(run, tmp_path / f"out{suffix}")
    assert same_values(at.load(written).scalars, run.scalars)


def test_jsonl_keeps_the_events(run: Run, tmp_path: Path):
    text = convert(run, tmp_path / "out.jsonl").read_text()
    assert '"kind":"note"' in text and '"text":"hello"' in text


def test_csv_has_every_column_and_spells_non_finite_numbers(run: Run, tmp_path: Path):
    frame = pl.read_csv(convert(run, tmp_path / "out.csv"), infer_schema=False)
    assert frame.columns == run.scalars.columns
    assert frame["value"].to_list()[:4] == ["1.5", "NaN", "Infinity", "-Infinity"]
    assert [float(v) for v in frame["value"]][4] == 1e-300


def test_tensorboard_reads_what_was_written(run: Run, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(convert(run, tmp_path / "tb")))
    read.Reload()
    assert sorted(read.Tags()["scalars"]) == ["eval_loss", "loss"]
    values = [(e.step, e.value) for e in read.Scalars("loss")]
    assert values[0] == (0, 1.5) and math.isnan(values[1][1]) and values[2] == (2, math.inf)


def test_an_existing_file_is_not_overwritten(run: Run, tmp_path: Path):
    (tmp_path / "a.csv").write_text("precious")
    with pytest.raises(at.InputError, match="is there already"):
        convert(run, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "precious"


def test_an_unknown_suffix_names_the_known_ones(run: Run, tmp_path: Path):
    with pytest.raises(at.InputError, match=r"unknown suffix '.parqet'; did you mean '.parquet'"):
        convert(run, tmp_path / "a.parqet")
