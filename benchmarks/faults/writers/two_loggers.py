"""Two loggers of one Lightning run in one folder: `metrics.csv` and TensorBoard, with the same names and steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.faults.trace import Row, Trace
from benchmarks.faults.writers.lightning_csv import logged_name, write_lightning
from benchmarks.faults.writers.tensorboard_events import write_file

__all__ = ["write_both"]


def write_both(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The folder `version_0`; `trace.other` is what TensorBoard was told, the trace itself stands in the CSV."""
    run = write_lightning(trace, folder, rng)
    other = trace.other or trace
    write_file([_named(row, trace) for row in other.rows], run, 0)
    return run


def _named(row: Row, trace: Trace) -> Row:
    values = {logged_name(row, name, trace.config): value for name, value in row.values.items()}
    return replace(row, step=row.step - 1, values=values, split="")
