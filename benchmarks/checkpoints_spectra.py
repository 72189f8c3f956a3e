"""The exponent alpha of every matrix of a model of 100 MB, against WeightWatcher: time, and how far the two agree."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.weights.spectra import spectra
from benchmarks.measure import Row, time_call
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.roles import with_roles
from parsers.checkpoints.safetensors_file import read

#: The matrices of a block of GPT-2 small, and its table of positions.
BLOCK = {"attn.c_attn": (768, 2304), "attn.c_proj": (768, 768), "mlp.c_fc": (768, 3072), "mlp.c_proj": (3072, 768)}
POSITIONS = (1024, 768)
#: How far the exponents may lie apart.
APART = 0.05


def model(blocks: int) -> dict[str, Any]:
    """Float32 weights by name, nothing trained: random matrices times falling gains, whose spectra are heavy-tailed."""
    import torch

    rng = np.random.default_rng(0)
    names = {"wpe.weight": POSITIONS}
    names |= {f"h.{i}.{name}.weight": shape for i in range(blocks) for name, shape in BLOCK.items()}
    tensors = {}
    for rows, columns, name in ((*shape, name) for name, shape in names.items()):
        middle = min(rows, columns)
        gains = np.arange(1, middle + 1) ** -rng.uniform(0.2, 0.9)
        W = rng.standard_normal((rows, middle), np.float32) * gains @ rng.standard_normal((middle, columns), np.float32)
        W = W / np.sqrt(middle) + 0.05 * rng.standard_normal((rows, columns), np.float32)
        tensors[name] = torch.from_numpy(W.astype(np.float32))
    return tensors


def weightwatcher_of(tensors: dict[str, Any]) -> Callable[[], pl.DataFrame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options, sys.warnoptions = sys.warnoptions, ["x"]  # else it switches warnings off for the whole process
        import weightwatcher

        sys.warnoptions = options

    def analyze() -> pl.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = weightwatcher.WeightWatcher(model=tensors, log_level=logging.CRITICAL).analyze()
        return pl.DataFrame({"name": [f"{n}.weight" for n in found["name"]], "alpha": found["alpha"].to_list()})

    return analyze


def agreement(ours: pl.DataFrame, theirs: pl.DataFrame) -> tuple[float, float, int]:
    """Largest and median difference of the exponents, and the number of matrices."""
    both = ours.join(theirs, on="name", how="inner", suffix="_theirs")
    gaps = (both["alpha"] - both["alpha_theirs"]).abs().to_numpy()
    return float(gaps.max()), float(np.median(gaps)), len(gaps)


def rows(quick: bool) -> list[Row]:
    from safetensors.torch import save_file
    from threadpoolctl import threadpool_limits

    tensors = model(1 if quick else 3)
    size = sum(t.numel() * 4 for t in tensors.values()) / 1e6
    analyze = weightwatcher_of(tensors)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file(tensors, file)

        def judged() -> pl.DataFrame:
            with opened(file) as checkpoint:
                return spectra(checkpoint)

        ours = time_call(judged)
        with threadpool_limits(1):
            our_work, their_work = cpu_seconds(judged), time.process_time()
            found, one_core = timed(analyze)
            their_work = time.process_time() - their_work
        own_threads = timed(analyze)[1] if is_quiet() else None
        most, median, matrices = agreement(judged(), found)
    work = f"alpha of {matrices} matrices, {size:.0f} MB"
    note = f"exponents apart by at most {most:.2g}, median {median:.2g}"
    best = min(one_core, own_threads or one_core)
    table = [
        Row.faster(work, ours, "weightwatcher, the faster of what follows", best, 5, note=note),
        Row.shown(work, ours, "weightwatcher, one core", one_core),
        # what a busy machine changes least
        Row.shown(f"the same, CPU seconds of all {os.cpu_count()} cores", our_work, "weightwatcher", their_work),
        Row(
            "largest difference of alpha", most, "the goal", APART, f"at most {APART}", most / APART, most <= APART, ""
        ),
    ]
    if own_threads is not None:
        table.insert(2, Row.shown(work, ours, "weightwatcher, its own threads", own_threads))
    return table


def timed(call: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, float]:
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def cpu_seconds(call: Callable[[], pl.DataFrame]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def is_quiet() -> bool:
    """Whether the cores are free: where they are not, its threads wait for each other and take minutes for seconds."""
    return os.getloadavg()[0] < 0.5 * (os.cpu_count() or 1)


def opened(file: Path) -> Checkpoint:
    return with_roles(read(file))
