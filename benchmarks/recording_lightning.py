"""The Lightning logger beside Lightning's own: a call of log_metrics with the numbers of a step, and a whole step."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row

#: What a training logs at a step, as the Trainer hands it on.
METRICS = {"train_loss": 2.5, "train_accuracy": 0.25, "grad_norm": 1.25, "lr": 3e-4, "epoch": 1}


def _loggers(folder: Path) -> dict[str, Any]:
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    import aftertrain as at

    return {
        "ours": at.LightningLogger(folder / "ours"),
        "CSVLogger": CSVLogger(folder, "csv"),
        "TensorBoardLogger": TensorBoardLogger(folder, "board"),
    }


def _calls(folder: Path, calls: int, rounds: int) -> dict[str, float]:
    """Median microseconds of `log_metrics` and the `save` that the Trainer calls after it, loggers taking turns.

    Seconds of the thread: what the writer thread of TensorBoard does besides is not counted.
    """
    loggers = _loggers(folder)
    times: dict[str, list[float]] = {name: [] for name in loggers}
    for turn in range(rounds):
        for name, logger in loggers.items():
            start = time.thread_time()
            for step in range(turn * calls, (turn + 1) * calls):
                logger.log_metrics(dict(METRICS), step=step)
                logger.save()
            times[name].append((time.thread_time() - start) / calls * 1e6)
    for logger in loggers.values():
        logger.finalize("success")
    return {name: statistics.median(own) for name, own in times.items()}


def _step(folder: Path, steps: int) -> float:
    """Microseconds of a step of a Trainer that logs nothing, with a model of one small layer."""
    import lightning
    import torch

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(32, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            return (self.net(batch[0]) - batch[1]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    x = torch.randn(64, 32)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}

    def train() -> None:
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_steps=steps, logger=False, default_root_dir=folder, **quiet
        )
        trainer.fit(Line(), data)

    return _thread_us(train) / steps


def _thread_us(call: Callable[[], None]) -> float:
    call()  # what is done once
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e6


def rows(quick: bool = False) -> list[Row]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name:
            warnings.simplefilter("ignore")  # Lightning advises
            # CSVLogger writes at every hundredth step only, so that hundreds of calls are its mixture of both kinds.
            found = _calls(Path(name), 20 if quick else 500, 3 if quick else 7)
            step = _step(Path(name), 20 if quick else 300)
    finally:
        torch.set_num_threads(threads)
    ours = found.pop("ours")
    made = [
        Row.at_most("log_metrics of 4 numbers and save, Lightning", ours, other, theirs, 1.0, unit="us")
        for other, theirs in found.items()
    ]
    note = "logged at every step; by default Lightning logs every 50th"
    other = "a Trainer that logs nothing"
    made.append(
        Row.at_most("a step of Lightning's Trainer, logged", step + ours, other, step, 1.05, unit="us", note=note)
    )
    return made
