"""JSON lines as home-made loops write them: one wide object a row, and `config.json` beside."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from benchmarks.faults.trace import Trace
from benchmarks.faults.writers.beside import write_json

__all__ = ["write_json_lines"]


def write_json_lines(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The folder with `metrics.jsonl` (`train/loss`, `val/loss`; or both under `split`) and `config.json`."""
    run = folder / "run"
    run.mkdir(parents=True)
    write_json(run / "config.json", trace.config, trace.plan)
    by_split = bool(rng.random() < 0.5)
    lines = []
    for row in trace.rows:
        head = {"step": row.step, "time": round(row.time, 3)}
        if row.epoch is not None:
            head["epoch"] = row.epoch
        if by_split:
            values = {"split": row.split, **{name: _number(value) for name, value in row.values.items()}}
        else:
            side = {"train": "train", "eval": "val"}.get(row.split, row.split)
            shared = {"lr", "grad_norm"}
            values = {n if n in shared else f"{side}/{n}": _number(v) for n, v in row.values.items()}
        lines.append(json.dumps({**head, **values}))
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return run


def _number(value: float) -> float:
    return float(f"{value:.7g}") if math.isfinite(value) else value
