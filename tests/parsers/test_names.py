"""Splits and metrics out of the names under which people log."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.finish import finish
from parsers.loading import load
from parsers.naming.names import resolve, split_tag
from parsers.text import read

#: Tags as written, with the split and the metric that they name.
TAGS = {
    "eval_loss": ("eval", "loss"),
    "train/loss_epoch": ("train", "loss_epoch"),
    "val/acc": ("eval", "acc"),
    "validation.loss": ("eval", "loss"),
    "dev_eer": ("eval", "eer"),
    "Test Loss": ("test", "Loss"),
    "loss/val": ("eval", "loss"),
    "accuracy_test": ("test", "accuracy"),
    "loss": ("", "loss"),
    "train_runtime": ("", "train_runtime"),
    "training": ("", "training"),
    "latest_loss": ("", "latest_loss"),
    "trainer/global_step": ("", "trainer/global_step"),
    "evaluate_loss": ("", "evaluate_loss"),
    "TrainIterStats/loss": ("train", "loss"),
    "TrainIterStats/loss_1": ("train", "loss_1"),
    "TrainIterStats/current_lr": ("train", "lr"),
    "TrainIterStats/current_lr_0": ("train", "lr_0"),
    "TrainIterStats/step_time": ("train", "step_time"),
    "TrainEpochStats/avg_loss": ("train", "avg_loss"),
    "TrainEpochStats/epoch_time": ("train", "epoch_time"),
    "EvalStats/avg_loss": ("eval", "loss"),
    "EvalStats/avg_loss_mel_ce": ("eval", "loss_mel_ce"),
    "TestStats/avg_loss": ("test", "loss"),
    "EvalStats": ("", "EvalStats"),
    "MyEvalStats/avg_loss": ("", "MyEvalStats/avg_loss"),
}


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_split_and_metric(tag: str) -> None:
    assert split_tag(tag) == TAGS[tag]


@given(st.text(max_size=40), st.sampled_from([None, "", "train", "val", "holdout"]))
def test_any_tag_has_a_metric_that_is_part_of_it_and_the_split_of_its_record(tag: str, split: str | None) -> None:
    named, metric = resolve(tag, split)
    assert metric in tag and (metric or not tag)
    assert named == {"val": "eval"}.get(split, split) if split else named in ("", "train", "eval", "test")


_COQUI = """ > EPOCH: 0/1000
 > EVALUATION\x20
  --> EVAL PERFORMANCE
     | > avg_loss: 1.5 (+0)
     | > avg_loss_mel_ce: 1.25 (+0)
 > TRAINING (2023-05-01 10:00:00)\x20
   --> TIME: 2023-05-01 10:00:05 -- STEP: 0/300 -- GLOBAL_STEP: 50
     | > loss: 2.5  (2.5)
     | > loss_mel_ce: 2.25  (2.25)
     | > current_lr: 5e-06\x20
     | > step_time: 0.5  (0.5)
"""


def test_the_text_log_of_coqui_and_its_tensorboard_name_their_series_alike(tmp_path: Path) -> None:
    log = tmp_path / "trainer_0_log.txt"
    log.write_text(_COQUI)
    trained = [f"TrainIterStats/{name}" for name in ("loss", "loss_mel_ce", "current_lr", "step_time")]
    tags = [*trained, "EvalStats/avg_loss", "EvalStats/avg_loss_mel_ce"]
    board = finish("b", "b", "tensorboard", pl.DataFrame({"tag": tags, "step": [50] * 6, "value": [1.0] * 6}))
    text = read(log)
    told = {(row["split"], row["metric"]) for row in text.catalogue.iter_rows(named=True)}
    assert told == {(row["split"], row["metric"]) for row in board.catalogue.iter_rows(named=True)}
    for name in ("train_loss", "eval_loss", "learning_rate"):
        assert str(text.roles[name].series) == str(board.roles[name].series) != "None"


WILD = Path(__file__).parents[3] / "shared" / "wild"
REAL = [WILD / "coqui_text/xtts-diverged", WILD / "tensorboard/xtts-coqui"]


@pytest.mark.parametrize("pair", [REAL] if all(path.exists() for path in REAL) else [])
def test_real_logs_of_coqui_can_be_laid_beside_one_another(pair: list[Path]) -> None:
    text, board = (load(path) for path in pair)
    told = {(row["split"], row["metric"]) for row in text.catalogue.iter_rows(named=True)}
    assert told <= {(row["split"], row["metric"]) for row in board.catalogue.iter_rows(named=True)}
