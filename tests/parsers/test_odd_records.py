"""Odd names, ten thousand of them, numbers as text, steps as floats and clocks that go back, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from parsers.loading import load
from parsers.registry import FORMATS
from parsers.run import Run
from tests.parsers.records import FIXED, RECORDS, Row

NAMES = sorted(RECORDS)
ODD = [
    'a"b', "a'b", "a/b", "a\\b", "<script>alert(1)</script>", "new\nline", "a, b", "tab\there", "größe", "=1+1", "{x}",
    "%s", "a.b", "__class__", "loss (nats)", "x" * 200,
]  # fmt: skip
#: Names that the form of a format cannot hold: lines of text end at a line end and part names at signs, and the names
#: of files at a slash.
CANNOT = {
    "text": {"new\nline", "=1+1", "x" * 200},
    "structured-text": {name for name in ODD if not name.isidentifier() and name not in ("a/b", "a.b")},
}
#: How a format writes the name of a number that it holds under another.
PREFIX = {"structured-text": "losses/"}


def written(name: str, folder: Path, rows: list[Row]) -> Run:
    place = folder / "tree"
    place.mkdir()
    RECORDS[name](place, rows)
    return load(place)


def test_every_format_of_free_names_is_written_here() -> None:
    assert set(RECORDS) | set(FIXED) == {format.name for format in FORMATS}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_mean_something_elsewhere_are_names(name: str, tmp_path: Path) -> None:
    tags = ["loss", *(tag for tag in ODD if tag not in CANNOT.get(name, ()))]
    rows: list[Row] = [(s, 1.7e9 + s, {tag: s + k / 64 for k, tag in enumerate(tags)}) for s in range(1, 6)]
    run = written(name, tmp_path, rows)
    for k, tag in enumerate(tags):
        told = run.scalars.filter(pl.col("tag") == PREFIX.get(name, "") + tag)
        assert told["value"].to_list() == [s + k / 64 for s in range(1, 6)], tag
    assert run.rejects.is_empty()


#: Fewer names where ten thousand are more than the format's reader looks at: a line of text of 20,000 characters is a
#: dump, and by the first 64 KiB a log of OpenMMLab and the header of an array are known. MLflow has a file a name.
FEWER = {"structured-text": 1000, "text": 1000, "mmlab": 3000, "numpy-history": 1000, "mlflow": 1000}


@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_names_are_ten_thousand_series(name: str, tmp_path: Path) -> None:
    count = FEWER.get(name, 10_000)
    tags = [f"m{k:05d}" for k in range(count)]
    rows: list[Row] = [(s, 1.7e9 + s, {tag: float(s) for tag in ("loss", *tags)}) for s in range(1, 3)]
    run = written(name, tmp_path, rows)
    assert run.catalogue.filter(pl.col("tag").str.contains(r"m\d{5}$"))["count"].to_list() == [2] * count


#: Formats in which a value is a number by its type.
TYPED = {"aftertrain", "tensorboard", "mlflow-db", "numpy-history"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - TYPED))
def test_numbers_written_as_text_are_numbers(name: str, tmp_path: Path) -> None:
    rows: list[Row] = [(s, 1.7e9 + s, {"loss": f"{s}.25", "acc": f"{s}e-2"}) for s in range(1, 6)]
    run = written(name, tmp_path, rows)
    values = {
        tag: run.scalars.filter(pl.col("metric").str.ends_with(tag))["value"].to_list() for tag in ("loss", "acc")
    }
    assert values == {"loss": [s + 0.25 for s in range(1, 6)], "acc": [s * 1e-2 for s in range(1, 6)]}


#: Formats whose steps may be written as floats.
LOOSE = {
    "huggingface", "mlperf", "wandb-file", "sacred", "dllogger", "parquet", "mmlab", "json-document", "jsonl",
    "lightning", "stable-baselines-folder", "csv", "mlflow",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LOOSE))
def test_steps_written_as_floats_are_steps(name: str, tmp_path: Path) -> None:
    rows: list[Row] = [(float(s), 1.7e9 + s, {"loss": 1 / s}) for s in range(1, 6)]
    run = written(name, tmp_path, rows)
    told = run.scalars.filter(pl.col("metric") == "loss")
    assert told["step"].to_list() == [1, 2, 3, 4, 5] and run.rejects.is_empty()


@pytest.mark.parametrize("name", NAMES)
def test_a_clock_that_goes_back_costs_no_number(name: str, tmp_path: Path) -> None:
    rows: list[Row] = [(s, 1.7e9 - 3600 * s, {"loss": 1 / s}) for s in range(1, 6)]
    run = written(name, tmp_path, rows)
    told: list[Any] = run.scalars.filter(pl.col("metric").str.ends_with("loss"))["value"].to_list()
    assert told == pytest.approx([1 / s for s in range(1, 6)]) and run.rejects.is_empty()


def test_a_name_with_a_decimal_comma_in_its_column_is_read_as_decimals(tmp_path: Path) -> None:
    (tmp_path / "a7.csv").write_text("step;loss;acc\n" + "".join(f"{s};{s},25;0,{s}\n" for s in range(1, 6)))
    run = load(tmp_path)
    assert run.series("loss")["value"].to_list() == [s + 0.25 for s in range(1, 6)]
    assert run.series("acc")["value"].to_list() == [s / 10 for s in range(1, 6)]
