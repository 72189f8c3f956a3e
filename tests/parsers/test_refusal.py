"""What is said of paths at which no run was found: what stands there, what was looked for, what may help."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventstream.errors import InputError
from parsers.collection.run_names import unique_names
from parsers.loading import load
from parsers.text_logs.dialects import DIALECTS


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_log_without_numbers_is_told_by_its_lines_and_what_was_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("loading shards\n" * 40 + "torch.OutOfMemoryError: CUDA out of memory\n\n")
    said = refusal(path)
    assert said.startswith("text without numbers that have a step or an epoch, in 42 lines (looked for the lines of ")
    assert all(dialect.name in said for dialect in DIALECTS) and "key: value" in said
    assert "the last line is 'torch.OutOfMemoryError: CUDA out of memory'" in said and "from_toml" in said


def test_what_is_no_text_is_told_with_the_formats_that_are_known(tmp_path: Path) -> None:
    path = tmp_path / "weights.log"
    path.write_bytes(bytes(range(256)) * 40)
    said = refusal(path)
    assert said.startswith("not a format that is known (known are ") and "mlflow: MLflow" in said


def test_an_empty_file_is_told_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"")
    assert refusal(path) == "the file is empty"


def test_a_folder_without_a_run_names_the_files_that_are_called_as_logs_are(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "train.log").write_text("starting\nKilled\n")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "model.bin").write_bytes(b"\0" * 100)
    said = refusal(tmp_path)
    assert said.startswith("no run below this folder; empty.csv: the file is empty; train.log: text without numbers")
    assert "in 2 lines (known are " in said and "model.bin" not in said


def test_a_folder_of_other_things_says_that_nothing_is_called_as_logs_are(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\0" * 100)
    assert refusal(tmp_path).startswith("no run below this folder, and no file that is named as logs are")


def test_two_logs_of_one_folder_are_told_apart_by_their_stems_and_others_by_a_number() -> None:
    runs = [("exp", "a/exp/train.log"), ("exp", "a/exp/output.log"), ("exp", "b/exp/train.log"), ("x", "c/x.csv")]
    assert list(unique_names(runs)) == ["exp/train", "exp/output", "exp/train#2", "x"]
    assert list(unique_names([("k", "m/mlflow.db"), ("k", "m/mlflow.db")])) == ["m/k", "m/k#2"]
