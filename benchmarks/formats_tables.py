"""The Trainer's state against orjson into columns, Lightning's table against bare Polars; both to the tidy table."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from benchmarks.measure import Row, time_both, time_call
from parsers.loading import load


def rows(quick: bool) -> list[Row]:
    repeats = 3 if quick else 7
    with tempfile.TemporaryDirectory() as folder:
        return [
            _state(Path(folder, "hf"), 10_000 if quick else 200_000, repeats),
            _lightning(Path(folder, "pl"), 50_000 if quick else 1_000_000, repeats),
        ]


def _state(folder: Path, entries: int, repeats: int) -> Row:
    folder.mkdir()
    path = folder / "trainer_state.json"
    draw = np.random.default_rng(0).random((entries, 4)).tolist()
    history = [
        {"epoch": i / 1000, "eval_loss": a, "eval_runtime": b, "eval_samples_per_second": c, "step": i}
        if i % 10 == 0
        else {"epoch": i / 1000, "grad_norm": a, "learning_rate": b, "loss": c, "step": i}
        for i, (a, b, c, _) in enumerate(draw, 1)
    ]
    facts = {"best_metric": None, "global_step": entries, "is_world_process_zero": True}
    path.write_text(json.dumps({**facts, "log_history": history, "max_steps": entries}, indent=2))

    def columns() -> pl.DataFrame:
        found = orjson.loads(path.read_bytes())["log_history"]
        return pl.from_dicts(found, schema=dict.fromkeys(set().union(*found), pl.Float64))

    def inferred() -> pl.DataFrame:
        return pl.DataFrame(orjson.loads(path.read_bytes())["log_history"], infer_schema_length=None)

    ours, bare = time_both(lambda: load(path).scalars, columns, repeats=repeats)
    slow = time_call(inferred, repeats=3)
    note = f"columns known to be numbers beforehand; where Polars infers them {slow:.3g} s"
    work = f"load trainer_state.json, {entries:,} entries, to the tidy table"
    return Row.at_most(work, ours, "orjson.loads, then polars.from_dicts", bare, 1.5, note=note)


def _lightning(folder: Path, count: int, repeats: int) -> Row:
    """A table as Lightning leaves it: learning rates, training steps and evaluations in rows of their own."""
    version = folder / "version_0"
    version.mkdir(parents=True)
    path = version / "metrics.csv"
    draw = np.random.default_rng(0).random((count, 2)).tolist()
    with path.open("w", newline="") as file:
        file.write("epoch,lr-Adam,step,train_acc,train_loss,val_loss\r\n")
        for i, (a, b) in enumerate(draw):
            if i % 50 == 49:
                file.write(f"{i // 1000},,{i},,,{a}\r\n")
            elif i % 2:
                file.write(f",{b * 1e-3},{i},,,\r\n")
            else:
                file.write(f"{i // 1000},,{i},{a},{b},\r\n")
    ours, bare = time_both(lambda: load(path).scalars, lambda: pl.read_csv(path), repeats=repeats)
    note = f"{path.stat().st_size / 1e6:.0f} MB; Polars stops at the wide table with its empty cells"
    return Row.at_most(f"load Lightning's metrics.csv, {count:,} rows", ours, "polars.read_csv", bare, 2.0, note=note)
