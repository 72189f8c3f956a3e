"""Many small saves of one training: reading and judging all of them against a plain torch loop of the same numbers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from analysis.checkpoints import checkpoints
from benchmarks.checkpoints import torch_differences, torch_statistics
from benchmarks.measure import Row, time_both

_PEAK = """
import sys
from analysis.checkpoints import checkpoints
from benchmarks.measure import peak_rss_mb
checkpoints(sys.argv[1])
print(peak_rss_mb())
"""


def rows(quick: bool) -> list[Row]:
    found = []
    for saves, width, layers in ((100, 128, 16), (500, 16, 3)):
        with tempfile.TemporaryDirectory(prefix="aftertrain-series-") as folder:
            files = series(Path(folder), saves=saves // 20 if quick else saves, width=width, layers=layers)
            found += _rows(Path(folder), files, repeats=1 if quick else 2)
    return found


def series(folder: Path, *, saves: int, width: int, layers: int) -> list[Path]:
    """Saves of a model that moves a little from each to the next, in the order of training."""
    made = torch.Generator().manual_seed(0)
    state = {f"blocks.{n}.fc.weight": torch.randn(width, width, generator=made) for n in range(layers)}
    state |= {f"blocks.{n}.fc.bias": torch.randn(width, generator=made) for n in range(layers)}
    state |= {f"blocks.{n}.norm.weight": 1 + 0.1 * torch.randn(width, generator=made) for n in range(layers)}
    files = []
    for number in range(1, saves + 1):
        state = {name: value + 0.01 * torch.randn(value.shape, generator=made) for name, value in state.items()}
        files.append(folder / f"step_{number}.safetensors")
        save_file(state, files[-1])
    return files


def _rows(folder: Path, files: list[Path], *, repeats: int) -> list[Row]:
    def by_torch() -> None:
        for file in files:
            torch_statistics(file)
        for pair in pairwise(files):
            torch_differences(*pair)

    checkpoints(folder)  # compiled, and read into the cache
    ours, theirs = time_both(lambda: checkpoints(folder), by_torch, repeats=repeats)
    size = files[0].stat().st_size / 1e6
    work = f"{len(files)} saves of {size:.3g} MB: statistics, differences and findings"
    note = "statistics of each save and differences to the one before, nothing judged"
    found = [Row.shown(work, ours, "torch, a plain loop", theirs, note=note)]
    done = subprocess.run([sys.executable, "-c", _PEAK, folder], capture_output=True, text=True, check=True)
    told = f"{len(files)} saves of {size:.3g} MB: peak memory"
    all_bytes = sum(file.stat().st_size for file in files) / 2**20
    return [
        *found,
        Row.shown(
            told,
            float(done.stdout),
            "all bytes of the saves",
            all_bytes,
            unit="MB",
            note="interpreter and libraries included",
        ),
    ]
