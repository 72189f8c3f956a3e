"""Text that a loop printed: `[time] step 100/2000 | loss 2.1 | lr 1e-03`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np

from benchmarks.faults.trace import Row, Trace
from benchmarks.faults.writers.beside import write_yaml

__all__ = ["write_text"]


def write_text(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The folder with `train.log` and `config.yaml`; six digits of a number are printed."""
    run = folder / "run"
    run.mkdir(parents=True)
    write_yaml(run / "config.yaml", trace.config, trace.plan)
    lines = [f"{_when(trace.rows[0].time - 5)} INFO starting: {trace.steps} steps"]
    lines += [_line(row, trace.steps) for row in trace.rows]
    if trace.error:
        lines += ["Traceback (most recent call last):", f"RuntimeError: {trace.error}"]
    elif trace.status == "finished":
        lines.append(f"{_when(trace.rows[-1].time + 1)} INFO training finished")
    (run / "train.log").write_text("\n".join(lines) + "\n")
    return run


def _when(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]


def _line(row: Row, steps: int) -> str:
    side = {"train": "", "eval": "val_"}.get(row.split, f"{row.split}_")
    numbers = " | ".join(f"{side}{name} {value:.6g}" for name, value in row.values.items())
    epoch = "" if row.epoch is None else f" | epoch {row.epoch:.2f}"
    return f"{_when(row.time)} INFO step {row.step}/{steps}{epoch} | {numbers}"
