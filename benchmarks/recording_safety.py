"""Recording files: a large checkpoint hashed beside a training, and embeddings appended call by call."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Row
from eventstream.recorder import Recorder


def _step_of_training() -> Callable[[], None]:
    """Work of one thread: array operations that leave the interpreter, and Python that does not."""
    numbers = np.random.default_rng(0).normal(size=200_000)

    def step() -> None:
        total = float(np.exp(numbers).sum())
        for number in range(2000):
            total += number * 0.5

    return step


def _steps_while(step: Callable[[], None], seconds: float) -> float:
    """Median seconds of a step, over so many seconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _checkpoint_rows(folder: Path, size: int) -> list[Row]:
    model = folder / "model.pt"
    with model.open("wb") as file:
        block = np.random.default_rng(0).bytes(1 << 20)
        for _ in range(size >> 20):
            file.write(block)
    start = time.perf_counter()
    with model.open("rb") as opened:
        hashlib.file_digest(opened, "sha256")
    hashing = time.perf_counter() - start

    step = _step_of_training()
    calls, beside, alone = [], [], []
    for turn in range(3):
        recorder = Recorder(folder / f"run{turn}", seal=False)
        alone.append(_steps_while(step, hashing / 2))
        start = time.perf_counter()
        recorder.checkpoint(turn, model)
        calls.append(time.perf_counter() - start)
        beside.append(_steps_while(step, hashing / 2))
        recorder.close()
    work = f"checkpoint of {size / 1e9:.1f} GB: the call"
    note = "the digest follows by a thread"
    return [
        Row.faster(
            work, statistics.median(calls), "hashlib.file_digest before training goes on", hashing, 100, note=note
        ),
        Row.shown(
            "a step of one thread while it is hashed",
            statistics.median(beside) * 1e3,
            "the same step alone",
            statistics.median(alone) * 1e3,
            unit="ms",
            note="on two cores",
        ),
    ]


def _embedding_rows(folder: Path, calls: int) -> list[Row]:
    vectors = np.random.default_rng(0).normal(size=(64, 192)).astype(np.float32)
    labels = [f"speaker {n % 8}" for n in range(64)]
    times = []
    with Recorder(folder / "appended", seal=False) as recorder:
        for step in range(calls):
            start = time.perf_counter()
            recorder.embeddings(step, vectors, labels)
            times.append(time.perf_counter() - start)
    files = len(list((recorder.path / "embeddings").iterdir()))

    (folder / "single").mkdir()
    others = []
    for step in range(calls):
        start = time.perf_counter()
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        pq.write_table(pa.table({"label": labels, "vector": column}), folder / "single" / f"{step}.parquet")
        others.append(time.perf_counter() - start)
    ours, other = statistics.median(times) * 1e3, statistics.median(others) * 1e3
    return [
        Row.at_most(
            f"embeddings of 64 x 192, {calls} calls",
            ours,
            "pyarrow, a file a call",
            other,
            2,
            unit="ms",
            note="each whole or absent, its event recorded",
        ),
        Row.faster(f"files that {calls} calls leave", files, "pyarrow, a file a call", calls, 50, unit="files"),
    ]


def rows(quick: bool = False) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *_checkpoint_rows(folder, (1 << 24) if quick else (2 << 30)),
            *_embedding_rows(folder, 100 if quick else 1000),
        ]
