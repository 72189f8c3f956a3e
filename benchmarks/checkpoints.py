"""Checkpoints of 2 GB in the page cache: statistics and differences against a mapped read and torch, and memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from analysis.weights.differences import differences
from analysis.weights.statistics import statistics
from benchmarks.measure import Row, time_both, time_call
from parsers.checkpoints.opening import open_checkpoint

#: Half of the bytes are bfloat16, half float32: layers of a model, and a copy of its largest in full precision.
_WORDS, _FLOATS = (4096, 2048), (4096, 4096)
_BUFFER = 1 << 20
_TINY = {torch.bfloat16: 2.0**-126, torch.float32: 2.0**-126}


def rows(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="aftertrain-checkpoints-") as folder:
        a, b = (Path(folder) / f"{name}.safetensors" for name in "ab")
        for seed, file in enumerate((a, b)):
            save_file(weights(seed, scale=1 if quick else 16), file)
        return [*_times(a, b, quick), *_memory(a, Path(folder) / "a.pt")]


def weights(seed: int, *, scale: int) -> dict[str, torch.Tensor]:
    """`scale` times 128 MiB of normal weights; of the second seed a little later in training than of the first."""
    made = torch.Generator().manual_seed(0)
    first, second = (torch.randn(*_FLOATS, generator=made) for _ in range(2))
    drawn = first + 1e-3 * seed * second
    found: dict[str, torch.Tensor] = {}
    for layer in range(scale):
        size = 0.02 + 0.001 * layer
        for part in range(4):
            words = drawn.view(2, *_WORDS)[part % 2] * (size + 1e-4 * part)
            found[f"layers.{layer}.{part}.weight"] = words.bfloat16()
            found[f"layers.{layer}.{part}.norm"] = 1 + 0.01 * drawn[part]
        found[f"master.{layer}.weight"] = drawn * size
    return found


def _times(a: Path, b: Path, quick: bool) -> list[Row]:
    repeats = 1 if quick else 5
    size = f"{a.stat().st_size / 1e9:.2f} GB, bf16 and fp32, in the page cache"
    judged, compared = (lambda: _statistics(a)), (lambda: _differences(a, b))
    for warm in (judged, compared, lambda: mapped_read(b)):  # compiled, and read into the cache
        warm()
    ours, read = time_both(judged, lambda: mapped_read(a), repeats=repeats)
    note = "a fresh map of the file, every 8 bytes added up by NumPy on one core"
    # 36 repeats on one day: 1.4 to 2.3, median 1.6, 33 of them below 2; the read waits for memory, the sweep for the
    # processor, of which a busy host leaves less
    swings = f"{note}; of 36 repeats the median is 1.6, and 33 are below 2"
    found = [Row.at_most(f"statistics of {size}", ours, "one mapped read", read, 2, note=swings)]
    found += [
        Row.shown(f"statistics of {size}", ours, name, time_call(partial(other, a), repeats=repeats), note=note)
        for name, other, note in (
            ("mapped reads on all cores", partial(mapped_read, threads=2), "the same with two threads"),
            ("copies out of the map", mapped_copy, "np.copyto from a fresh map, 1 MiB at a time"),
            ("read() into a buffer", plain_read, "1 MiB at a time"),
            ("cat", cat, "`cat FILE > /dev/null`"),
        )
    ]
    ours, theirs = time_both(judged, lambda: torch_statistics(a), repeats=1 if quick else 2)
    note = "tensor by tensor from the mapped file; the same statistics in single precision"
    found.append(Row.faster(f"statistics of {size}", ours, "torch, a plain loop", theirs, 6, note=note))
    ours, single = time_both(compared, judged, repeats=repeats)
    found.append(Row.at_most(f"differences of two files of {size}", ours, "statistics of one", single, 2.5))
    ours, theirs = time_both(compared, lambda: torch_differences(a, b), repeats=1 if quick else 2)
    found.append(Row.faster(f"differences of two files of {size}", ours, "torch, a plain loop", theirs, 3))
    ours, single = time_both(lambda: _differences(a, a), judged, repeats=repeats)
    found.append(Row.shown("differences of a file and itself", ours, "statistics of one", single))
    return found


def _memory(a: Path, zipped: Path) -> list[Row]:
    """Peak of fresh processes, interpreter and libraries included."""
    found = []
    whole = {}
    with safe_open(a, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            whole[name] = opened.get_tensor(name)
    largest = max(tensor.nbytes for tensor in whole.values()) / 2**20
    torch.save(whole, zipped)
    del whole
    limit = 3 * largest + 300
    for file, kind in ((a, "safetensors"), (zipped, "a torch zip")):
        peak = _fresh(file)
        note = f"interpreter included; largest tensor {largest:.0f} MB"
        work = f"statistics of {kind} of {file.stat().st_size / 1e9:.2f} GB: peak memory"
        found.append(Row.at_most(work, peak, "largest tensor x 3 + 300 MB", limit, 1, unit="MB", note=note))
    return found


def _statistics(file: Path) -> None:
    with open_checkpoint(file) as checkpoint:
        statistics(checkpoint)


def _differences(a: Path, b: Path) -> None:
    with open_checkpoint(a) as before, open_checkpoint(b) as after:
        differences(before, after)


def mapped_read(file: Path, *, threads: int = 1) -> int:
    """Every byte of a fresh map, looked at once and by the cheapest means: sums of 8 bytes at a time."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        words = np.frombuffer(mapped, np.uint64, len(mapped) // 8)
        parts = np.array_split(words, 64)
        with ThreadPoolExecutor(threads) as pool:
            total = sum(int(part) for part in pool.map(np.sum, parts)) if threads > 1 else int(words.sum())
        del words, parts
    return total


def mapped_copy(file: Path) -> None:
    """Every byte of a fresh map, copied to a buffer that stays in the cache."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        held = np.frombuffer(mapped, np.uint8)
        into = np.empty(_BUFFER, np.uint8)
        for start in range(0, len(held), _BUFFER):
            part = held[start : start + _BUFFER]
            np.copyto(into[: len(part)], part)
        del held, part


def plain_read(file: Path) -> int:
    """Every byte by the system's `read`, into one buffer; how many they are."""
    into, total = bytearray(_BUFFER), 0
    with file.open("rb", buffering=0) as opened:
        while got := opened.readinto(into):
            total += got
    return total


def cat(file: Path) -> None:
    subprocess.run(["cat", os.fspath(file)], check=True, stdout=subprocess.DEVNULL)


def torch_statistics(file: Path) -> list[tuple[object, ...]]:
    """What one would write with torch: a line for each statistic."""
    found = []
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            stored = opened.get_tensor(name)
            x = stored.float()
            nan, inf = x.isnan().sum(), x.isinf().sum()
            if nan or inf:
                x = x[x.isfinite()]
            mean, std = x.mean(), x.std(correction=0)
            zero = x == 0
            found.append(
                (
                    name,
                    mean.item(),
                    std.item(),
                    x.norm().item(),
                    x.min().item(),
                    x.max().item(),
                    zero.float().mean().item(),
                    nan.item(),
                    inf.item(),
                    ((x.abs() < _TINY[stored.dtype]) & ~zero).sum().item(),
                    (((x - mean) / std) ** 4).mean().item() - 3,
                    zero.all(1).sum().item() if x.ndim == 2 else None,
                    zero.all(0).sum().item() if x.ndim == 2 else None,
                    torch.bincount((x.flatten().view(torch.int32) >> 23) & 511, minlength=512).tolist(),
                )
            )
    return found


def torch_differences(a: Path, b: Path) -> list[tuple[object, ...]]:
    """What one would write with torch: a line for each number."""
    found = []
    with safe_open(a, "pt") as before, safe_open(b, "pt") as after:
        for name in before.keys():  # noqa: SIM118 - no mapping
            x, y = before.get_tensor(name).float().flatten(), after.get_tensor(name).float().flatten()
            d = y - x
            found.append(
                (
                    name,
                    x.norm().item(),
                    y.norm().item(),
                    d.norm().item(),
                    torch.dot(x, y).item(),
                    d.abs().max().item(),
                    (x != y).float().mean().item(),
                    x.isnan().sum().item(),
                    y.isnan().sum().item(),
                    x.isinf().sum().item(),
                    y.isinf().sum().item(),
                )
            )
    return found


def _fresh(file: Path) -> float:
    command = [sys.executable, "-c", _ALONE, os.fspath(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


#: Without torch, which the package does not need to judge a checkpoint.
_ALONE = """
import sys
from analysis.weights.statistics import statistics
from benchmarks.measure import peak_rss_mb
from parsers.checkpoints.opening import open_checkpoint
with open_checkpoint(sys.argv[1]) as checkpoint:
    statistics(checkpoint)
assert "torch" not in sys.modules
print(peak_rss_mb())
"""
