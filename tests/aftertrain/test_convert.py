"""`convert`: what is written holds what the run held."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(("payload", "kept"), [("CUDA out of memory", "CUDA out of memory"), ("{", "{"), ("[1]", [1])])
def test_jsonl_keeps_a_payload_that_is_no_object_as_it_is(payload: str, kept: object, tmp_path: Path):
    events = pl.DataFrame({"kind": ["note"], "step": [3], "payload": [payload]})
    run = finish(
        "demo", "demo", "aftertrain", pl.DataFrame({"tag": ["loss"], "step": [1], "value": [math.nan]}), events=events
    )
    told = [json.loads(line) for line in convert(run, tmp_path / "out.jsonl").read_text().splitlines()]
    assert told[0]["value"] == "NaN" and (told[1]["kind"], told[1]["payload"]) == ("note", kept)


def test_jsonl_gives_back_every_row_and_event_and_nothing_else(tmp_path: Path):
    source = tmp_path / "odd.jsonl"  # without times, so that rows leave columns out
    rows = [{"step": k, "train/loss": 1 / k, "train/a": {"b": k}} for k in range(1, 6)]
    source.write_text("".join(json.dumps(row) + "\n" for row in [{"config": {"lr": 0.1, "deep": {"n": 3}}}, *rows]))
    run = at.load(source)
    again = at.load(convert(run, tmp_path / "again.jsonl"))
    assert again.scalars.drop("run").equals(run.scalars.drop("run"))
    assert again.events.select("kind", "payload").equals(run.events.select("kind", "payload"))
    assert again.config == run.config == {"lr": 0.1, "deep": {"n": 3}}


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


@pytest.mark.parametrize("form", ["tensorboard", "wandb"])
def test_a_run_of_several_attempts_and_splits_comes_back_from_the_bridges(tmp_path: Path, form: str):
    frame = pl.DataFrame(
        {
            "tag": ["loss", "val_loss", "train/lr", "odd"] * 30,
            "step": [step for step in range(30) for _ in range(4)],
            "attempt": [step // 15 for step in range(30) for _ in range(4)],
            "split": ["train", "eval", "train", "holdout"] * 30,
            "epoch": [step / 10 for step in range(30) for _ in range(4)],
            "value": [math.nan if place == 7 else place / 8 for place in range(120)],
        }
    )
    run = finish("demo", "demo.jsonl", "jsonl", frame, config={"lr": 0.1, "betas": [0.9, 0.95]})
    written = convert(run, tmp_path / "out", format=form)
    assert written == tmp_path / "out"
    back = at.load_all(written)[0]
    key = ["step", "split", "metric"]
    wanted = run.scalars.with_columns(
        split=pl.col("split").replace("holdout", ""), metric=pl.col("metric").replace("odd", "holdout/odd")
    )
    assert back.scalars.select(*key, "value").sort(key).equals(wanted.select(*key, "value").sort(key))
    assert back.config == run.config


def test_of_several_values_of_one_step_and_key_the_last_attempt_counts_in_wandb(tmp_path: Path):
    frame = pl.DataFrame({"tag": ["loss"] * 3, "step": [1, 2, 1], "attempt": [0, 0, 1], "value": [1.0, 2.0, 3.0]})
    run = finish("demo", "demo.jsonl", "jsonl", frame)
    back = at.load_all(convert(run, tmp_path / "out", format="wandb"))[0]
    assert back.series("loss").select("step", "value").rows() == [(1, 3.0), (2, 2.0)]


def test_rows_without_a_step_are_counted_in_tensorboard(tmp_path: Path):
    frame = pl.DataFrame({"tag": ["loss", "lr"] * 3, "step": [None] * 6, "value": [float(n) for n in range(6)]})
    run = finish("demo", "demo.jsonl", "jsonl", frame.cast({"step": pl.Int64}))
    back = at.load(convert(run, tmp_path / "board"))
    assert back.series("loss").select("step", "value").rows() == [(0, 0.0), (1, 2.0), (2, 4.0)]


def test_the_command_line_writes_a_wandb_run(run: Run, tmp_path: Path):
    from aftertrain.cli import main

    source = convert(run, tmp_path / "run.jsonl")
    assert main(["convert", str(source), "-o", str(tmp_path / "bridge"), "--format", "wandb"]) == 0
    back = at.load_all(tmp_path / "bridge")[0]
    assert back.format == "wandb" and same_values(back.scalars, run.scalars)
