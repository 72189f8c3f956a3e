"""Anomalies of 10 million scalars in 10 metrics, window 101: ours beside pandas' rolling windows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.anomalies import anomalies
from analysis.anomaly.rolling import rolling_moments, rolling_order
from benchmarks.measure import Row, peak_rss_mb, time_both, time_call
from parsers.finish import finish
from parsers.run import Run

METRICS, WINDOW = 10, 101
ROOT = Path(__file__).parents[1]
#: pandas' rolling apply with a Python function is timed on this many rows and scaled: its cost is per row.
APPLIED = 20_000


def table(per_metric: int) -> pl.DataFrame:
    """Tidy scalars of ten losses that decay under log-normal noise of 10 %."""
    rng = np.random.default_rng(0)
    step = np.arange(per_metric)
    curve = 0.5 + 2.5 * np.exp(-6 * step / per_metric)
    parts = [
        pl.DataFrame(
            {
                "tag": pl.repeat(f"part{j}_loss", per_metric, eager=True),
                "step": step,
                "value": curve * np.exp(0.1 * rng.normal(size=per_metric)),
            }
        )
        for j in range(METRICS)
    ]
    return pl.concat(parts, rechunk=True)


def run_of(frame: pl.DataFrame) -> Run:
    run = finish("bench", "", "memory", frame)
    run.scalars  # noqa: B018 - collected before anything is timed
    return run


def rows(quick: bool) -> list[Row]:
    per_metric = 30_000 if quick else 1_000_000
    frame = table(per_metric)
    run = run_of(frame)
    values = run.scalars["value"].to_numpy()
    offsets = list(range(0, METRICS * per_metric + 1, per_metric))
    warm = compile_seconds()
    size = f"{METRICS * per_metric / 1e6:g}M scalars, window {WINDOW}"
    pandas_frame = frame.select("tag", "value").to_pandas()
    repeats = 3
    found = []

    def grouped() -> Any:
        return pandas_frame.groupby("tag", sort=False)["value"].rolling(WINDOW, center=True)

    def moments() -> None:
        windows = grouped()
        windows.mean()
        windows.std()

    def quartiles() -> None:
        windows = grouped()
        for share in (0.25, 0.5, 0.75):
            windows.quantile(share)

    def kernel(*statistics: str) -> None:
        rolling_order(values, WINDOW, offsets=offsets, statistics=statistics)

    ours, theirs = time_both(lambda: rolling_moments(values, WINDOW, offsets=offsets), moments, repeats=repeats)
    note = f"kernel; compiling took {warm:.1f} s once, before, and is kept on disk"
    found.append(Row.faster(f"rolling mean and std, {size}", ours, "pandas", theirs, 5, note=note))
    more = "the whole public call: bounds, calibration, frame and findings, which pandas' figure leaves out"
    public, theirs = time_both(lambda: anomalies(run, method="zscore", on="raw"), moments, repeats=repeats)
    found.append(Row.shown(f"anomalies zscore raw, {size}", public, "pandas mean, std", theirs, note=more))
    ours, theirs = time_both(lambda: kernel("q25", "median", "q75"), quartiles, repeats=1)
    found.append(Row.faster(f"rolling q25, median, q75, {size}", ours, "pandas", theirs, 3, note="kernel"))
    public, theirs = time_both(lambda: anomalies(run, method="iqr", on="raw"), quartiles, repeats=1)
    found.append(Row.shown(f"anomalies iqr raw, {size}", public, "pandas quantiles", theirs, note=more))
    theirs = applied_seconds(values) * len(values) / APPLIED
    note = f"pandas measured on {APPLIED:,} rows and scaled by rows"
    ours = time_call(lambda: kernel("median", "mad"), repeats=repeats)
    found.append(
        Row.faster(f"rolling median and MAD, {size}", ours, "pandas apply", theirs, 100, note=f"kernel; {note}")
    )
    public = time_call(lambda: anomalies(run, method="mad", on="raw"), repeats=repeats)
    found.append(Row.shown(f"anomalies mad raw, {size}", public, "pandas apply", theirs, note=f"{more}; {note}"))
    public = time_call(lambda: anomalies(run), repeats=1)
    note = f"public, calibrated, with incidents; {note}"
    found.append(Row.shown(f"anomalies by default, {size}", public, "pandas apply", theirs, note=note))
    return [*found, memory(run, size)]


def compile_seconds() -> float:
    """Seconds of the first call of every kernel (from numba's cache on disk where it is there already)."""
    start = time.perf_counter()
    some = np.random.default_rng(0).normal(size=200_001)
    rolling_moments(some, 5)
    rolling_order(some, 5)
    return time.perf_counter() - start


def applied_seconds(values: np.ndarray) -> float:
    import pandas as pd

    def mad(window: np.ndarray) -> float:
        return float(np.median(np.abs(window - np.median(window))))

    part = pd.Series(values[:APPLIED]).rolling(WINDOW, center=True)
    return time_call(lambda: part.apply(mad, raw=True), repeats=1)


def memory(run: Run, size: str) -> Row:
    """Peak of a fresh process that reads the run's frame and runs all three rules on it, against the frame."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "frame.arrow"
        run.scalars.write_ipc(place)
        command = [sys.executable, "-m", "benchmarks.anomalies", str(place)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    return Row.at_most(
        f"peak memory of all three rules, {size}",
        seen["peak"],
        "the run's frame",
        seen["frame"],
        4,
        unit="MiB",
        note=f"fresh process, imports and frame included; held before the first rule: {seen['before']:.0f} MiB",
    )


def _memory_of_this_process(place: str) -> None:
    run = Run("bench", "", "memory", pl.read_ipc(place).lazy())
    frame, before = run.scalars.estimated_size("mb"), peak_rss_mb()
    for method in ("zscore", "iqr", "mad"):
        anomalies(run, method=method, on="raw")
    anomalies(run)
    print(json.dumps({"frame": frame, "before": before, "peak": peak_rss_mb()}))


if __name__ == "__main__":
    _memory_of_this_process(sys.argv[1])
