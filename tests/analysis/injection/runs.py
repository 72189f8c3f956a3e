"""Healthy runs that hold whatever a fault can go into: layers, mixed precision, two ranks, two logs, contracts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import aftertrain as at
from parsers.finish import finish
from parsers.run import COMPARED, Run, Source

SAMPLES = Path(__file__).parents[3] / "data" / "samples"
STEPS = 600
_START = datetime(2026, 1, 1, tzinfo=UTC)
_PLAN: dict[str, Any] = {
    "max_steps": STEPS,
    "inputs": {"forward": {"require": ["ids"], "forbid": ["labels"]}},
    "outputs": {"forward": {"require": ["logits"]}},
}


@cache
def sample(name: str) -> Run:
    """A sample run, read once."""
    run = at.load(SAMPLES / name)
    assert run.scalars.height
    return run


def losses(rank: int = 0, noise: float = 0.04, fall: float = 150.0) -> np.ndarray:
    """A training loss that falls and settles, with its own noise."""
    rng = np.random.default_rng([7, rank])
    return (2 * np.exp(-np.arange(STEPS) / fall) + 0.5) * np.exp(rng.normal(0, noise, STEPS))


def _column(tag: str, values: np.ndarray, every: int = 1, rank: int = 0) -> pl.DataFrame:
    steps = np.arange(0, STEPS, every) + every
    times = [_START + timedelta(seconds=3 * int(s)) for s in steps]
    kept = {"tag": [tag] * len(steps), "step": steps, "time": times, "value": values[: len(steps)]}
    return pl.DataFrame({**kept, "rank": [rank] * len(steps)})


def _event(kind: str, payload: dict[str, Any], step: int) -> dict[str, Any]:
    return {"kind": kind, "step": step, "payload": json.dumps(payload)}


@cache
def rich() -> Run:
    """Layers, loss scale, memory, speed, evaluations, and events of inputs and outputs."""
    rng = np.random.default_rng(1)
    loss = losses()
    columns = [_column("train/loss", loss), _column("train/lr", np.full(STEPS, 1e-3))]
    columns.append(_column("eval/loss", losses(9, 0.01)[9::10] * 1.05, 10))
    norm = loss * np.exp(rng.normal(0, 0.1, STEPS))
    columns.append(_column("train/grad_norm", norm))
    for place, layer in enumerate(("first", "middle", "last")):
        columns.append(_column(f"train/grad_norm/{layer}", norm * (0.4 + 0.1 * place)))
        columns.append(_column(f"train/update_ratio/{layer}", 1e-3 * np.exp(rng.normal(0, 0.1, STEPS // 10)), 10))
        columns.append(_column(f"train/dead_units/{layer}", np.full(STEPS // 10, 0.01), 10))
    columns.append(_column("train/amp_scale", np.full(STEPS, 65536.0)))
    columns.append(_column("resources/memory_mb", 500 + rng.normal(0, 1, STEPS // 10), 10))
    columns.append(_column("resources/examples_per_s", 900 * np.exp(rng.normal(0, 0.02, STEPS // 10)), 10))
    columns.append(_column("train/accuracy", np.clip(1 - 0.2 * loss + rng.normal(0, 0.01, STEPS), 0, 1)))
    tensors = {"ids": {"device": "cpu"}, "mask": {"device": "cpu"}}
    events = []
    for step in (100, 300, 500):
        told = {"stage": "forward", "tensors": tensors, "status": {"mask": "OK"}}
        events.append(_event("inputs", told, step))
        events.append(_event("outputs", {"stage": "forward", "tensors": {"logits": {}, "hidden": {}}}, step))
    return finish("rich", "rich", "jsonl", pl.concat(columns), events=pl.DataFrame(events), plan=_PLAN)


@cache
def ranks() -> Run:
    """Two ranks, each with a loss of its own."""
    return finish("ranks", "ranks", "jsonl", pl.concat([_column("train/loss", losses(r), rank=r) for r in (0, 1)]))


@cache
def sources() -> Run:
    """Two logs of one run that agree."""
    same = {name: [None] for name in COMPARED}
    told = {"split": "train", "metric": "loss", "tag": "train/loss", "other_tag": "loss", "compared": STEPS}
    row = {**same, **{k: [v] for k, v in {**told, "differing": 0, "hidden": 0, "tells": True, "finer": False}.items()}}
    second = Source("rich/log.csv", "csv", STEPS, pl.DataFrame(row, schema=COMPARED))
    made = replace(rich(), sources=(Source("rich/log.jsonl", "jsonl", STEPS), second))
    made.__dict__["scalars"] = rich().scalars
    return made


@cache
def falling() -> Run:
    """A loss that still falls at every place, for faults that stop it; and noise that nothing else explains."""
    count = 2000
    fall = 3.0 * np.exp(-np.arange(count) / 1333)
    loss = fall * np.exp(np.random.default_rng(3).normal(0, 0.03, count))
    rows = {"tag": ["train/loss"] * count, "step": np.arange(1, count + 1), "value": loss}
    return finish("falling", "falling", "jsonl", pl.DataFrame(rows))
