"""Logs of Weights & Biases and of MLflow against what their own libraries do to read the same file."""

from __future__ import annotations

import json
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, time_both
from parsers.mlflow_db import read as read_store
from parsers.wandb import read as read_wandb

METRICS = ("train/loss", "train/acc", "lr", "grad_norm", "kd_loss", "val/loss", "tokens_per_sec")
#: Beside them W&B adds _step, _runtime and _timestamp to every step.
BLOCK = 32768


def rows(quick: bool) -> list[Row]:
    steps = 2_000 if quick else 100_000
    count = steps * (len(METRICS) + 3)
    with tempfile.TemporaryDirectory() as folder:
        log = _write_log(Path(folder, "run-bench.wandb"), steps)
        ours, theirs = time_both(
            lambda: read_wandb(log).scalars, lambda: _with_their_messages(log), repeats=1 if quick else 3
        )
        note = (
            f"{log.stat().st_size / 1e6:.0f} MB with a summary a step; wandb 0.31 has no reader in Python: a plain "
            "scan, its protobuf messages, json.loads; both check every checksum, ours makes the tidy table"
        )
        work = f"read {count:,} history values of a .wandb file"
        found = [Row.faster(work, ours, "wandb's messages after a scan in Python", theirs, 5.0, note=note)]
        store = _write_store(Path(folder, "mlflow.db"), steps)
        ours, theirs = time_both(lambda: read_store(store).scalars, lambda: _rows_of(store), repeats=1 if quick else 3)
        note = "sqlite3 alone: the rows as tuples, no names split, no table"
        work = f"read {steps * len(METRICS):,} metrics of an mlflow.db"
        found.append(Row.at_most(work, ours, "sqlite3.fetchall", theirs, 5.0, note=note))
    return found


def _write_log(path: Path, steps: int) -> Path:
    """A log as wandb 0.31 writes it: for each step a record of its history and one of the summary."""
    from wandb.proto import wandb_internal_pb2 as messages

    values = np.random.default_rng(0).normal(size=(steps, len(METRICS))).tolist()
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for step, row in enumerate(values):
        named = dict(zip(METRICS, row, strict=True))
        named |= {"_step": step, "_runtime": step / 8, "_timestamp": 1.7e9 + step / 8}
        for kind in ("history", "summary"):
            record = messages.Record(num=2 * step + (kind == "summary"))
            for name, value in named.items():
                item = record.history.item.add() if kind == "history" else record.summary.update.add()
                item.nested_key.append(name)
                item.value_json = json.dumps(value)
            if kind == "history":
                record.history.step.num = step
            _append(out, record.SerializeToString())
    path.write_bytes(out)
    return path


def _append(out: bytearray, data: bytes) -> None:
    first = True
    while True:
        room = BLOCK - len(out) % BLOCK
        if room < 7:
            out += bytes(room)
            room = BLOCK
        part, data = data[: room - 7], data[room - 7 :]
        body = bytes([{(1, 1): 1, (1, 0): 2, (0, 0): 3, (0, 1): 4}[first, not data]]) + part
        out += struct.pack("<IH", zlib.crc32(body), len(part)) + body
        first = False
        if not data:
            return


def _with_their_messages(path: Path) -> dict[str, list[float]]:
    """The history by wandb's own messages, one list a name, after a plain scan in Python."""
    from wandb.proto import wandb_internal_pb2 as messages

    found: dict[str, list[float]] = {}
    for data in _scan(path):
        record = messages.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                found.setdefault(name, []).append(json.loads(item.value_json))
    return found


def _scan(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        at = len(file.read(7))
        parts: list[bytes] = []
        while True:
            left = BLOCK - at % BLOCK
            if left < 7:
                file.read(left)
                at += left
            header = file.read(7)
            if len(header) < 7:
                return
            crc, size, kind = struct.unpack("<IHB", header)
            data = file.read(size)
            if zlib.crc32(data, zlib.crc32(bytes([kind]))) != crc:
                raise ValueError("the checksum of a chunk does not match")
            at += 7 + size
            parts.append(data)
            if kind in (1, 4):
                yield b"".join(parts)
                parts = []


def _write_store(path: Path, steps: int) -> Path:
    """A store with the tables of MLflow, as far as they are read."""
    values = np.random.default_rng(0).normal(size=(steps, len(METRICS))).tolist()
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT);"
            "CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, status TEXT, start_time BIGINT, end_time BIGINT,"
            " lifecycle_stage TEXT, experiment_id INTEGER);"
            "CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOL);"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT); CREATE TABLE tags (key, value, run_uuid);"
            "INSERT INTO runs VALUES ('ab', 'bench', 'FINISHED', 1, 2, 'active', 1);"
        )
        table = (
            (name, value, 1_700_000_000_000 + step, "ab", step, 0)
            for step, row in enumerate(values)
            for name, value in zip(METRICS, row, strict=True)
        )
        base.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", table)
        base.commit()
    return path


def _rows_of(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as base:
        return base.execute("SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = 'ab'").fetchall()
