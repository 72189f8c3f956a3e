"""Text logs of a million lines, one dialect each, beside the loop over lines with Python's `re` that people write."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import Row, time_both
from parsers.loading import load

#: Seconds that a million lines may take.
GOAL = 5.0
_Lines = Callable[[int, np.ndarray], Iterator[str]]


def _nanogpt(count: int, loss: np.ndarray) -> Iterator[str]:
    for step in range(count):
        yield f"iter {step}: loss {loss[step]:.4f}, time {31 + loss[step]:.2f}ms, mfu {12 + loss[step]:.2f}%\n"


def _megatron(count: int, loss: np.ndarray) -> Iterator[str]:
    for step in range(count):
        yield (
            f" iteration {step:8d}/ {count:7d} | consumed samples: {step * 8:12d} | elapsed time per iteration (ms): "
            f"{200 + loss[step]:.1f} | learning rate: {loss[step] / 1e4:.3E} | global batch size:     8 | "
            f"lm loss: {loss[step]:.6E} | loss scale: 16384.0 | grad norm: {loss[step]:.3f} | "
            "number of skipped iterations:   0 |\n"
        )


def _pix2pix(count: int, loss: np.ndarray) -> Iterator[str]:
    for step in range(count):
        yield (
            f"(epoch: {1 + step // 50_000}, iters: {step % 50_000}, time: 0.012, data: 0.057) G_GAN: {loss[step]:.3f} "
            f"D_real: {loss[step] / 2:.3f} D_fake: {loss[step] / 3:.3f} \n"
        )


def _unknown(count: int, loss: np.ndarray) -> Iterator[str]:
    for step in range(count):
        yield f"2024-01-02 03:04:05,678 INFO trainer: step={step} loss={loss[step]:.4f} lr={loss[step] / 1e4:.3e}\n"


_WORK: dict[str, tuple[_Lines, str]] = {
    "nanoGPT": (_nanogpt, r"iter (\d+): loss ([\d.]+), time ([\d.]+)ms, mfu ([\d.]+)%"),
    "Megatron-LM": (
        _megatron,
        r" iteration\s+(\d+)/\s*\d+ \| consumed samples:\s+(\d+) \| elapsed time per iteration \(ms\): ([\d.]+) \| "
        r"learning rate: (\S+) \| global batch size:\s+(\d+) \| lm loss: (\S+) \| loss scale: (\S+) \| "
        r"grad norm: (\S+) \| number of skipped iterations:\s+(\d+) \|",
    ),
    "pix2pix": (
        _pix2pix,
        r"\(epoch: (\d+), iters: (\d+), time: (\S+), data: (\S+)\) G_GAN: (\S+) D_real: (\S+) D_fake: (\S+)",
    ),
    "unknown dialect, automatic": (_unknown, r".* step=(\d+) loss=(\S+) lr=(\S+)"),
}


def rows(quick: bool) -> list[Row]:
    count = 20_000 if quick else 1_000_000
    loss = 1 + np.abs(np.random.default_rng(0).normal(size=count))
    with tempfile.TemporaryDirectory() as folder:
        return [_measured(name, Path(folder, "train.log"), count, loss, quick) for name in _WORK]


def _measured(name: str, path: Path, count: int, loss: np.ndarray, quick: bool) -> Row:
    lines, regex = _WORK[name]
    with path.open("w") as file:
        file.writelines(lines(count, loss))
    ours, other = time_both(lambda: load(path).scalars, lambda: _loop(path, regex), repeats=1 if quick else 3)
    note = f"{path.stat().st_size / 2**20:,.0f} MiB; a loop with re and float, no names and no rejects: {other:.2f} s"
    work = f"{name} text log, {count:,} lines"
    return Row(work, ours, "the goal", GOAL, f"at most {GOAL:g} s", ours / GOAL, ours <= GOAL, note=note)


def _loop(path: Path, regex: str) -> pl.DataFrame:
    compiled = re.compile(regex)
    with path.open() as file:
        found = [tuple(map(float, match.groups())) for match in map(compiled.match, file) if match]
    return pl.DataFrame(found, orient="row")
