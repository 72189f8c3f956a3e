"""A real Trainer of Lightning with `LightningLogger`: what stands in the stream, and how the run ends and goes on."""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import polars as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import aftertrain as at
from eventstream.errors import InputError, MissingDependencyError, RecordingWarning
from eventstream.lightning_logger import LoggerCore
from eventstream.logged_values import names_split
from parsers.naming.names import split_tag
from parsers.run import Run

# Lightning advises (more workers, a longer log interval) and torch's pytree is ahead of it; none of it is ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.rank_zero.LightningDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*litlogger|.*litmodels|.*GPU available"),
]
ROWS = 32


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        caplog.set_level(logging.ERROR, logger=name)


class Line(lightning.LightningModule):
    """A straight line through 32 points, logging under every kind of name that people use."""

    def __init__(self, lr: float = 0.05, hub_token: str = "") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(4, 1)

    def distance(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return (self.net(batch[0]) - batch[1]).square().mean()

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = self.distance(batch)
        self.log("loss", loss)
        self.log("train_error", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.log("val_loss", self.distance(batch))
        if index == 0:
            self.logger.log_metrics({"probe": 1.0}, step=self.global_step)

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.log("score", self.distance(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


class Breaking(Line):
    def __init__(self, error: type[BaseException] = RuntimeError, at_step: int = 4) -> None:
        super().__init__()
        self.error, self.at_step = error, at_step

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        if self.global_step == self.at_step:
            raise self.error("the loss went away")
        return super().training_step(batch, index)


def data() -> DataLoader[Any]:
    x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def trainer(logger: Any, epochs: int = 2, **changes: Any) -> lightning.Trainer:
    settings = {"log_every_n_steps": 2, "enable_progress_bar": False, "enable_model_summary": False, **changes}
    return lightning.Trainer(max_epochs=epochs, logger=logger, accelerator="cpu", devices=1, **settings)


def fitted(logger: Any, model: Any = None, *, ckpt_path: Any = None, **changes: Any) -> lightning.Trainer:
    torch.manual_seed(0)
    made = trainer(logger, **changes)
    made.fit(model or Line(), data(), data(), ckpt_path=ckpt_path)
    return made


def payloads(run: Run, kind: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in run.events_of(kind)["payload"]]


def points(run: Run, metric: str, split: str) -> list[tuple[int, float]]:
    frame = run.series(metric, split=split, live=False)
    return list(zip(frame["step"].to_list(), frame["value"].to_list(), strict=True))


def test_a_training_stands_under_its_names_splits_steps_and_epochs(tmp_path: Path) -> None:
    done = fitted(at.LightningLogger(tmp_path / "run"), callbacks=[LearningRateMonitor("step")])
    run = at.load(tmp_path / "run")
    assert [step for step, _ in points(run, "loss", "train")] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert points(run, "loss", "eval")[-1] == (15, pytest.approx(float(done.callback_metrics["val_loss"])))
    assert [step for step, _ in points(run, "error_epoch", "train")] == [7, 15]
    assert points(run, "lr-SGD", "train")[0] == (1, 0.05)
    tags = run.scalars.filter(pl.col("tag") == "val_loss")
    assert tags["epoch"].to_list() == [0.0, 1.0] and tags["split"].unique().to_list() == ["eval"]
    assert "epoch" not in run.metrics and "step" not in run.metrics
    assert not run.rejects.height


def test_the_numbers_are_those_of_lightnings_own_logger(tmp_path: Path) -> None:
    fitted([CSVLogger(tmp_path, "csv"), at.LightningLogger(tmp_path / "run")])
    theirs = pl.read_csv(tmp_path / "csv" / "version_0" / "metrics.csv")
    run = at.load(tmp_path / "run")
    for tag in ("loss", "train_error_step", "train_error_epoch", "val_loss"):
        expected = theirs.select("step", "epoch", tag).drop_nulls()
        found = run.scalars.filter((pl.col("tag") == tag) & (pl.col("split") != "sanity_check"))
        assert found["step"].to_list() == expected["step"].to_list()
        assert found["epoch"].to_list() == expected["epoch"].to_list()
        assert found["value"].to_list() == pytest.approx(expected[tag].to_list())


def test_what_the_sanity_check_logs_is_marked_and_in_no_other_split(tmp_path: Path) -> None:
    fitted(at.LightningLogger(tmp_path / "run"), num_sanity_val_steps=1)
    run = at.load(tmp_path / "run")
    assert points(run, "probe", "sanity_check") == [(0, 1.0)]
    assert points(run, "probe", "eval") == [(8, 1.0), (16, 1.0)]


def test_settings_are_recorded_without_secrets_and_without_pickles(tmp_path: Path) -> None:
    fitted(at.LightningLogger(tmp_path / "run"), Line(0.1, hub_token="hf_" + "Ab1" * 12))
    config = at.load(tmp_path / "run").config
    assert config["lr"] == 0.1 and "hub_token" not in config
    assert config["lightning"]["trainer"]["max_epochs"] == 2
    assert config["lightning"]["model"] == {"class": "Line", "parameters": 5, "trainable_parameters": 5}
    content = b"".join(path.read_bytes() for path in (tmp_path / "run").glob("*.json*"))
    assert b"hf_Ab1" not in content


@dataclass
class Settings:
    lr: float
    api_key: str
    net: Any


@pytest.mark.parametrize("kind", [dict, argparse.Namespace, Settings])
def test_settings_come_as_mappings_namespaces_and_dataclasses(tmp_path: Path, kind: Any) -> None:
    logger = at.LightningLogger(tmp_path)
    logger.log_hyperparams(kind(lr=0.1, api_key="x", net=nn.Linear(1, 1)), {"hp_metric": -1})
    logger.finalize("success")
    (config,) = payloads(at.load(tmp_path), "config")
    assert config["lr"] == 0.1 and "api_key" not in config and isinstance(config["net"], str)


def test_checkpoints_stand_in_the_run_with_size_digest_and_step(tmp_path: Path) -> None:
    keep = ModelCheckpoint(save_top_k=-1, every_n_train_steps=4, filename="{step}")
    fitted(at.LightningLogger(tmp_path / "run"), callbacks=[keep])
    run = at.load(tmp_path / "run")
    assert run.events_of("checkpoint")["step"].to_list() == [4, 8, 12, 16]
    found = payloads(run, "checkpoint")
    assert [entry["path"] for entry in found] == [f"checkpoints/step={step}.ckpt" for step in (4, 8, 12, 16)]
    assert all((tmp_path / "run" / entry["path"]).stat().st_size == entry["bytes"] for entry in found)


def test_a_checkpoint_that_is_written_beside_the_training_is_recorded_when_it_is_there(tmp_path: Path) -> None:
    with_thread = AsyncCheckpointIO()
    fitted(at.LightningLogger(tmp_path / "run"), plugins=[with_thread], callbacks=[ModelCheckpoint(save_top_k=-1)])
    run = at.load(tmp_path / "run")
    assert sorted(entry["path"] for entry in payloads(run, "checkpoint")) == [
        "checkpoints/epoch=0-step=8.ckpt",
        "checkpoints/epoch=1-step=16.ckpt",
    ]


def test_a_training_that_is_resumed_is_the_next_attempt(tmp_path: Path) -> None:
    first = fitted(at.LightningLogger(tmp_path / "run"), epochs=1)
    path = first.checkpoint_callback.best_model_path
    fitted(at.LightningLogger(tmp_path / "run"), epochs=2, ckpt_path=path)
    run = at.load(tmp_path / "run")
    steps = {
        attempt: part["step"].to_list()
        for (attempt,), part in run.series("loss", split="train", live=False)
        .partition_by("attempt", as_dict=True)
        .items()
    }
    assert steps == {0: [1, 3, 5, 7], 1: [9, 11, 13, 15]}
    assert [note["text"] for note in payloads(run, "note")] == ["training begins", f"training is resumed from {path}"]
    assert [end["status"] for end in payloads(run, "end")][-1] == "finished"


def test_a_test_after_the_training_belongs_to_its_attempt_and_a_second_training_does_not(tmp_path: Path) -> None:
    logger = at.LightningLogger(tmp_path / "run")
    done = fitted(logger)
    done.test(done.lightning_module, data(), verbose=False)
    done.validate(done.lightning_module, data(), verbose=False)
    run = at.load(tmp_path / "run")
    assert run.scalars["attempt"].unique().to_list() == [0]
    assert points(run, "score", "test")[0][0] == 16
    assert len(payloads(run, "config")) == 2  # hyper-parameters and the Trainer's, not told again
    fitted(logger)
    run = at.load(tmp_path / "run")
    assert run.scalars["attempt"].unique().sort().to_list() == [0, 1]
    assert len(payloads(run, "config")) == 4


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_a_training_that_breaks_off_says_why(tmp_path: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fitted(at.LightningLogger(tmp_path / "run"), Breaking(error))
    (end,) = payloads(at.load(tmp_path / "run"), "end")
    assert end["status"] == status and "the loss went away" in end["error"]


def test_a_training_that_is_tried_again_where_an_error_is_handled_ends_well(tmp_path: Path) -> None:
    logger = at.LightningLogger(tmp_path / "run")
    try:
        fitted(logger, Breaking())
    except RuntimeError:
        fitted(logger)
    ends = payloads(at.load(tmp_path / "run"), "end")
    assert [end["status"] for end in ends] == ["failed", "finished"]


def test_several_loggers_record_the_same_and_checkpoints_go_where_the_first_says(tmp_path: Path) -> None:
    fitted(
        [TensorBoardLogger(tmp_path, "board"), at.LightningLogger(tmp_path / "a"), at.LightningLogger(tmp_path / "b")]
    )
    runs = [at.load(tmp_path / name) for name in ("a", "b")]
    assert runs[0].scalars.drop("run", "time").equals(runs[1].scalars.drop("run", "time"))
    assert payloads(runs[0], "checkpoint")[0]["path"].startswith(str(tmp_path / "board"))


def test_a_recorder_that_is_given_stays_open_and_is_the_experiment(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run") as rec:
        logger = at.LightningLogger(rec)
        assert logger.experiment is rec
        fitted(logger)
        rec.note("still here", step=16)
    ends = payloads(run := at.load(tmp_path / "run"), "end")
    assert [end["status"] for end in ends] == ["finished"]
    assert payloads(run, "note")[-1]["text"] == "still here"
    assert len(points(run, "loss", "train")) == 8


def test_it_is_a_logger_of_lightning_with_a_place_and_a_name(tmp_path: Path) -> None:
    logger = at.LightningLogger(tmp_path / "run")
    assert isinstance(logger, Logger) and isinstance(logger, LoggerCore)
    assert (logger.name, logger.version) == ("run", "")
    assert logger.log_dir == logger.root_dir == str(tmp_path / "run") and logger.save_dir == str(tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_training_whose_logger_is_gone_ends_when_the_next_opens_and_not_in_the_collection(tmp_path: Path) -> None:
    logger = at.LightningLogger(tmp_path / "gone")
    logger.log_metrics({"loss": 1.0}, step=1)
    recorder = logger.experiment
    del logger
    gc.collect()
    assert not recorder.closed
    at.LightningLogger(tmp_path / "next").log_metrics({"loss": 1.0}, step=1)
    assert recorder.closed
    (end,) = payloads(at.load(tmp_path / "gone"), "end")
    assert (end["status"], end["error"]) == ("interrupted", "the process ended before this training did")


def copies(logger: Any) -> list[Any]:
    return [copy.deepcopy(logger), pickle.loads(pickle.dumps(logger))]


def test_a_copy_of_a_logger_opens_a_recorder_of_its_own(tmp_path: Path) -> None:
    for copied in copies(at.LightningLogger(tmp_path)):
        copied.log_metrics({"loss": 2.0}, step=2)
        copied.finalize("success")
    assert at.load(tmp_path).scalars.sort("attempt").select("attempt", "value").rows() == [(0, 2.0), (1, 2.0)]


def test_a_copy_records_nothing_while_the_logger_itself_does(tmp_path: Path) -> None:
    logger = at.LightningLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=1)
    for copied in copies(logger):
        with pytest.warns(RecordingWarning, match="inherited|closed"):
            copied.log_metrics({"loss": 2.0}, step=2)
        copied.log_metrics({"loss": 2.0}, step=3)
        copied.finalize("success")
    logger.log_metrics({"loss": 3.0}, step=3)
    logger.finalize("success")
    assert at.load(tmp_path).scalars.select("attempt", "step", "value").rows() == [(0, 1, 1.0), (0, 3, 3.0)]


def test_an_earlier_logger_of_the_process_gives_way_as_when_a_notebook_runs_its_cell_again(tmp_path: Path) -> None:
    first, second = at.LightningLogger(tmp_path), at.LightningLogger(tmp_path)
    first.log_metrics({"loss": 1.0}, step=1)
    second.log_metrics({"loss": 2.0}, step=1)
    with pytest.warns(RecordingWarning, match="closed"):
        first.log_metrics({"loss": 1.5}, step=2)
    second.log_metrics({"loss": 2.5}, step=2)
    second.finalize("success")
    run = at.load(tmp_path)
    assert run.scalars.select("attempt", "value").rows() == [(0, 1.0), (1, 2.0), (1, 2.5)]
    assert [end["status"] for end in payloads(run, "end")] == ["interrupted", "finished"]


def test_with_rank_zero_alone_other_ranks_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    silent = at.LightningLogger(tmp_path / "one", every_rank=False)
    silent.log_hyperparams({"lr": 1})
    silent.log_metrics({"loss": 1.0}, step=1)
    silent.experiment.losses(1, {"kd": 1.0})
    silent.finalize("success")
    assert not (tmp_path / "one").exists()
    speaking = at.LightningLogger(tmp_path / "all")
    speaking.log_metrics({"loss": 1.0}, step=1)
    speaking.finalize("success")
    assert [path.name for path in (tmp_path / "all").glob("rank*")] == ["rank00001-attempt0000-000000.jsonl"]


def test_fabric_takes_it_too(tmp_path: Path) -> None:
    fabric = lightning.Fabric(accelerator="cpu", devices=1, loggers=at.LightningLogger(tmp_path))
    fabric.log_dict({"train_loss": torch.tensor(1.5), "step": 3})
    fabric.log("train_loss", 1.25, step=4)
    fabric.logger.finalize("success")
    assert points(at.load(tmp_path), "loss", "train") == [(3, 1.5), (4, 1.25)]


def test_texts_mappings_and_numbers_that_are_none_stay_apart(tmp_path: Path) -> None:
    logger = at.LightningLogger(tmp_path)
    logger.log_metrics({"acc": {"top1": 0.5, "top5": 0.75}, "host": "n1", "loss": float("nan"), "epoch": 1}, step=2)
    logger.finalize("success")
    run = at.load(tmp_path)
    assert {tag: value for tag, value in run.scalars.select("tag", "value").rows() if tag != "loss"} == {
        "acc/top1": 0.5,
        "acc/top5": 0.75,
    }
    assert run.series("loss")["value"].is_nan().to_list() == [True]
    assert payloads(run, "texts") == [{"host": "n1"}]


def test_a_path_that_is_a_file_or_nothing_is_refused_where_the_logger_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        at.LightningLogger(tmp_path / "file")
    with pytest.raises(InputError, match="a Recorder or the folder of the run, got int"):
        at.LightningLogger(3)


def test_names_tell_their_split_as_readers_understand_it() -> None:
    names = [
        "val_loss",
        "train/loss_step",
        "loss",
        "lr-AdamW",
        "retrieval",
        "loss/val",
        "test",
        "Valid.acc",
        "val-1",
        "evaluate_x",
        "dev_f1",
        "training loss",
        "value_loss",
        "loss_val_epoch",
        "test_acc/dataloader_idx_0",
    ]
    assert [name for name in names if names_split(name)] == [name for name in names if split_tag(name)[0]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_package_that_the_script_imported_is_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pytorch_lightning

    import eventstream.lightning

    assert issubclass(eventstream.lightning.LightningLogger, Logger)
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    other = eventstream.lightning.LightningLogger
    assert issubclass(other, pytorch_lightning.loggers.Logger) and not issubclass(other, Logger)
    logger = other(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize("success")
    assert at.load(tmp_path).scalars["value"].to_list() == [1.0]


def test_importing_aftertrain_imports_no_lightning_and_its_absence_says_what_to_install() -> None:
    code = (
        "import sys, aftertrain as at, eventstream.lightning\n"
        "assert not {'lightning', 'pytorch_lightning', 'torch'} & set(sys.modules)\n"
        "sys.modules['lightning.pytorch'] = None\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name, package=None: None\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('lightning', 'pytorch_lightning'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "del sys.modules['lightning.pytorch']\n"
        "sys.meta_path.insert(0, Gone())\n"
        "try:\n    at.LightningLogger\n"
        "except at.AftertrainError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "LightningLogger needs lightning.pytorch: pip install 'aftertrain[lightning]'"
    assert issubclass(MissingDependencyError, at.AftertrainError)
