"""`metrics.csv` with `hparams.yaml`, as Lightning's CSVLogger leaves them: a row for each call, empty cells between."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.trace import Row, Trace
from benchmarks.faults.writers.beside import flat_name, write_yaml

__all__ = ["logged_name", "write_lightning"]

_OWN = {"lr": "lr-{optimizer}", "grad_norm": "grad_2.0_norm_total"}


def write_lightning(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The folder `version_0`; the learning rate stands in rows of its own, as LearningRateMonitor logs it."""
    run = folder / "version_0"
    run.mkdir(parents=True)
    write_yaml(run / "hparams.yaml", trace.config, trace.plan)
    rows: list[dict[str, object]] = []
    for row in trace.rows:
        head = {"epoch": math.floor(row.epoch) if row.epoch is not None else 0, "step": row.step - 1}
        values = {logged_name(row, metric, trace.config): value for metric, value in row.values.items()}
        rate = {name: value for name, value in values.items() if name.startswith("lr-")}
        if rate:
            rows.append({**rate, **head})
        rows.append({**{name: value for name, value in values.items() if name not in rate}, **head})
    names = sorted({name for row in rows for name in row})
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return run


def logged_name(row: Row, metric: str, config: dict[str, Any]) -> str:
    """The name that Lightning's loggers are given for a metric of a row."""
    optimizer = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[config.get("optimizer", "adam")]
    if metric in _OWN:
        return _OWN[metric].format(optimizer=optimizer)
    return flat_name(row.split, metric) if metric in ("loss", "accuracy", "eer") or row.split != "train" else metric
