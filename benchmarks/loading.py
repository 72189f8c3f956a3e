"""Loading 10 million scalars against bare Polars, with pandas beside it, and the peak memory of doing it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from benchmarks.measure import Row, time_both
from parsers.loading import load

METRICS = ("loss", "acc", "lr", "grad_norm", "kd_loss", "feature_loss", "tokens_per_sec", "mem_gb", "step_time", "aux")
SEGMENT = "rank00000-attempt0000-000000.jsonl"


def rows(quick: bool) -> list[Row]:
    steps = 20_000 if quick else 1_000_000
    size = f"{steps * len(METRICS):,} scalars"
    with tempfile.TemporaryDirectory() as folder:
        made = _make(Path(folder), steps)
        return [*_json(made, size, quick), *_parquet(made, size, quick)]


def _make(folder: Path, steps: int) -> dict[str, Path]:
    values = np.random.default_rng(0).normal(size=(steps, len(METRICS)))
    wide, stream, long = folder / "wide.jsonl", folder / "stream", folder / "long.parquet"
    sealed = folder / "sealed"
    for run in (stream, sealed):
        run.mkdir()
        (run / "manifest.json").write_bytes(b'{"format":"aftertrain-events","version":1,"run":"bench"}')
    with wide.open("wb") as one, (stream / SEGMENT).open("wb") as two:
        for step, row in enumerate(values.tolist()):
            numbers = dict(zip(METRICS, row, strict=True))
            one.write(orjson.dumps({"step": step, **numbers}) + b"\n")
            record = {"kind": "metrics", "step": step, "time": 1.7e9 + step / 4, "split": "train", "values": numbers}
            two.write(orjson.dumps(record) + b"\n")
    (sealed / SEGMENT).hardlink_to(stream / SEGMENT)
    code = f"from pathlib import Path; from eventstream.seal import seal; seal(Path({str(sealed / SEGMENT)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)  # another process: its memory is not ours
    table = {"step": np.tile(np.arange(steps), len(METRICS)), "metric": np.repeat(METRICS, steps)}
    pl.DataFrame({**table, "value": values.T.ravel()}).write_parquet(long)
    return {"wide": wide, "stream": stream, "sealed": sealed, "long": long}


def _whole(path: Path) -> Callable[[], pl.DataFrame]:
    return lambda: load(path).scalars


def _json(made: dict[str, Path], size: str, quick: bool) -> list[Row]:
    found = []
    for work, path, file in (
        ("wide JSONL", made["wide"], made["wide"]),
        ("event stream, JSONL", made["stream"], made["stream"] / SEGMENT),
    ):
        ours, bare = time_both(_whole(path), lambda file=file: pl.read_ndjson(file), repeats=1 if quick else 3)
        pandas = _once(lambda file=file: _pandas_json(file))
        note = f"peak {_peak_mb(path):,.0f} MiB; pandas.read_json {pandas:.3g} s"
        name = f"load {size}, {work}, to the tidy table"
        found.append(Row.at_most(name, ours, "polars.read_ndjson", bare, 2.5, note=note))
    return found


def _parquet(made: dict[str, Path], size: str, quick: bool) -> list[Row]:
    found = []
    repeats = 3 if quick else 5
    for work, path in (("long Parquet", made["long"]), ("event stream, sealed", made["sealed"])):
        file = path if path.is_file() else next(path.glob("*.parquet"))
        ours, bare = time_both(_whole(path), lambda file=file: pl.read_parquet(file), repeats=repeats)
        pandas = _once(lambda file=file: _pandas_parquet(file))
        note = f"peak {_peak_mb(path):,.0f} MiB; pandas.read_parquet {pandas:.3g} s"
        found.append(Row.at_most(f"load {size}, {work}", ours, "polars.read_parquet", bare, 1.5, note=note))
        one, whole = time_both(lambda path=path: load(path).series("loss"), _whole(path), repeats=repeats)
        found.append(Row.at_most(f"one metric of ten, {work}", one, "the whole, loaded by us", whole, 0.3))
    return found


def _once(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _pandas_json(file: Path) -> None:
    import pandas as pd

    # 100,000 lines at a time, or pandas alone takes more memory than the machine of a colleague has
    for _ in pd.read_json(file, lines=True, chunksize=100_000):
        pass


def _pandas_parquet(file: Path) -> None:
    import pandas as pd

    pd.read_parquet(file)


def _peak_mb(path: Path) -> float:
    """Peak memory of a fresh process that loads the run."""
    # not getrusage: on Linux it counts the peak of the parent before exec
    code = (
        "import sys; from parsers.loading import load; load(sys.argv[1]).scalars;"
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024)"
    )
    return float(subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True).stdout)
