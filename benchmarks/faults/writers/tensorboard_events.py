"""TensorBoard event files by torch's own writer."""

from __future__ import annotations

import socket
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.faults.trace import Row, Trace
from benchmarks.faults.writers.beside import write_yaml

__all__ = ["write_file", "write_tensorboard"]

_SHARED = ("lr", "grad_norm")


def write_tensorboard(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The folder with one event file an attempt and `config.yaml`; tags are `train/loss`, `val/loss`, `lr`."""
    run = folder / "tb"
    run.mkdir(parents=True)
    write_yaml(run / "config.yaml", trace.config, trace.plan)
    for attempt in sorted({row.attempt for row in trace.rows}):
        write_file([row for row in trace.rows if row.attempt == attempt], run, attempt)
    return run


def write_file(rows: list[Row], run: Path, attempt: int) -> None:
    """One event file of rows; those of no split keep their names as tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that tensorboard imports
        from torch.utils.tensorboard import SummaryWriter
    # the name of the file holds the time of its beginning and the host, which are those of the trace
    with (
        mock.patch("time.time", return_value=rows[0].time - 1.0),
        mock.patch.object(socket, "gethostname", lambda: "node-1"),
    ):
        writer = SummaryWriter(str(run), filename_suffix=f".{attempt}", max_queue=1000)
    for row in rows:
        side = {"train": "train", "eval": "val"}.get(row.split, row.split)
        for name, value in row.values.items():
            tag = name if name in _SHARED or not side else f"{side}/{name}"
            writer.add_scalar(tag, value, row.step, walltime=row.time)
        if row.epoch is not None and row.split != "eval":
            writer.add_scalar("epoch", row.epoch, row.step, walltime=row.time)
    writer.close()
