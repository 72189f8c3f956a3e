"""The whole diagnosis of long and short runs: seconds and memory, against what is allowed and against the length."""

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

from benchmarks.measure import Row, peak_rss_mb, time_both

ROOT = Path(__file__).parents[1]
#: What the project asks of itself: seconds and MB of ten million numbers, seconds of a thousand.
SECONDS, MEGABYTES, SHORT_S = 10.0, 3000.0, 0.2
WINDOW = 101


def series(steps: int) -> dict[str, np.ndarray]:
    """Ten metrics that a training logs: two losses, three components, rate, norm, accuracy, time and memory."""
    rng = np.random.default_rng(0)
    done = np.arange(steps) / steps

    def noise(sigma: float) -> np.ndarray:
        return np.exp(sigma * rng.normal(size=steps))

    kd = (1.5 * np.exp(-5 * done) + 0.3) * noise(0.05)
    feature = (0.8 * np.exp(-3 * done) + 0.2) * noise(0.08)
    ctc = (2 * np.exp(-4 * done) + 0.5) * noise(0.05)
    total = 0.5 * kd + 0.3 * feature + 0.2 * ctc
    return {
        "train/loss": total,
        "eval/loss": 1.05 * total * noise(0.02),
        "train/lr": np.where(done < 0.05, done / 0.05, 0.5 * (1 + np.cos(np.pi * (done - 0.05) / 0.95))) * 3e-4,
        "train/grad_norm": 1.5 * noise(0.2),
        "train/accuracy": np.clip(1 - 0.5 * np.exp(-4 * done) + 0.02 * rng.normal(size=steps), 0, 1),
        "train/step_time": 0.2 * noise(0.05),
        "train/gpu_memory_mb": 8000 + 50 * rng.normal(size=steps),
        "losses/kd/raw": kd,
        "losses/feature/raw": feature,
        "losses/ctc/raw": ctc,
    }


def table(steps: int) -> pl.DataFrame:
    """The same as a long table: tag, step, value."""
    step = np.arange(steps)
    parts = [
        pl.DataFrame({"tag": pl.repeat(tag, steps, eager=True), "step": step, "value": values})
        for tag, values in series(steps).items()
    ]
    return pl.concat(parts, rechunk=True)


def child(path: str) -> dict[str, Any]:
    """Load and diagnose one file in this process, after the imports that a short run needs; what it took."""
    from analysis.diagnose import diagnose
    from parsers.finish import finish
    from parsers.loading import load

    diagnose(finish("warm", "", "memory", table(100)))
    start = time.perf_counter()
    run = load(path)
    loaded = time.perf_counter()
    found = diagnose(run)
    done = time.perf_counter()
    told = [finding.message for finding in found.findings if finding.severity != "info"]
    return {"load_s": loaded - start, "diagnose_s": done - loaded, "peak_mb": peak_rss_mb(), "findings": told}


def in_child(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", "import json, sys; from benchmarks.diagnosis import child; "
               "print(json.dumps(child(sys.argv[1])))", str(path)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def rows(quick: bool) -> list[Row]:
    from analysis.diagnose import diagnose
    from parsers.finish import finish

    long, middle = (100_000, 10_000) if quick else (1_000_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        paths = {steps: Path(folder, f"run{steps}.parquet") for steps in (middle, long)}
        for steps, path in paths.items():
            table(steps).write_parquet(path)
        measured = {steps: in_child(path) for steps, path in paths.items()}
    first, last = measured[middle], measured[long]
    size = f"{10 * long / 1e6:g}M scalars in 10 metrics"
    told = f"loading takes {last['load_s']:.2f} s more; {len(last['findings'])} warnings on this healthy run"
    made = [
        Row.at_most(f"diagnose, {size}", last["diagnose_s"], "the limit set", SECONDS, 1, note=told),
        Row.at_most(f"its peak memory, {size}", last["peak_mb"], "the limit set", MEGABYTES, 1, unit="MB"),
        Row.at_most(
            f"diagnose, {size}: seconds a million scalars",
            last["diagnose_s"] / (10 * long / 1e6),
            f"of {10 * middle / 1e6:g}M scalars",
            first["diagnose_s"] / (10 * middle / 1e6),
            1.2,
            note="linear in the number of scalars, or better",
        ),
    ]
    frame = table(long).select("tag", "value").to_pandas()
    start = time.perf_counter()
    for _, one in frame.groupby("tag", sort=False)["value"]:
        window = one.rolling(WINDOW)
        ((one - window.mean()) / window.std()).abs().gt(3).sum()
    made.append(
        Row.shown(
            f"diagnose, {size}",
            last["diagnose_s"],
            "pandas, rolling z-score alone",
            time.perf_counter() - start,
            note="one statistic beside all checks",
        )
    )
    for metrics, label in ((1, "a 1,000-point log, one loss"), (10, "1,000 points of each of 10 metrics")):
        tags = list(series(1000))[:metrics]
        short = table(1000).filter(pl.col("tag").is_in(tags))
        diagnose(finish("warm", "", "memory", short))
        ours, _ = time_both(lambda rows=short: diagnose(finish("short", "", "memory", rows)), lambda: None, repeats=7)
        limit = SHORT_S if metrics == 1 else SHORT_S * 2
        made.append(Row.at_most(f"diagnose, {label}", ours, "the limit set", limit, 1, note="after import"))
    return made
