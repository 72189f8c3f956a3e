"""TensorBoard: a file of 10 million scalars with both checksums checked, beside tbparse and EventAccumulator."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Row, time_call
from parsers.content.crc32c import crc_rows, mask
from parsers.loading import load
from parsers.tfevents.write import record, scalar_event

#: Names of one length, so that records of one width of step can be made as the rows of a table.
TAGS = tuple(f"train/{name}" for name in ("loss_sum", "loss_kd_", "loss_ce_", "lr_group", "gradnorm"))
#: What the others are given: they read some 50,000 a second, and their cost grows as the number of scalars.
SMALL = 100_000
#: Widths of the step as a varint that one file may mix.
_WIDTHS = (1, 128, 128**2, 128**3, 128**4)


def rows(quick: bool) -> list[Row]:
    large, small = (200_000, 20_000) if quick else (10_000_000, SMALL)
    with tempfile.TemporaryDirectory() as folder:
        files = {count: _make(Path(folder, str(count)), count) for count in (large, small)}
        found = load(files[large]).scalars
        assert found.height == large, "the file was not read whole"
        ours = time_call(lambda: load(files[large]).scalars, repeats=1 if quick else 3)
        note = f"{large / ours / 1e6:.3g} M scalars a second, {ours:.3g} s, peak {_peak_mb(files[large]):,.0f} MiB"
        per = ours / large * 1e6
        return [
            Row.faster(f"{large:,} scalars, per scalar", per, name, _each(call, files[small], small), 100, unit="us",
                       note=note)
            for name, call in (("tbparse", _tbparse), ("EventAccumulator", _accumulator))
        ]  # fmt: skip


def _each(call: Callable[[Path], Any], file: Path, count: int) -> float:
    start = time.perf_counter()
    call(file)
    return (time.perf_counter() - start) / count * 1e6


def _make(folder: Path, count: int) -> Path:
    folder.mkdir()
    path = folder / "events.out.tfevents.1700000000.host.1.0"
    write(path, count // len(TAGS))
    return path


def write(path: Path, steps: int, *, first: int = 1) -> None:
    """An event file as SummaryWriter writes it: each of `TAGS` at each step, a step every millisecond."""
    with path.open("wb") as file:
        file.write(record(b"\x09" + np.float64(1.7e9).tobytes() + b"\x1a\x0dbrain.Event:2"))
        for low, high in pairwise(_WIDTHS):
            for start in range(max(low, first), min(high, first + steps), 20_000):
                stop = min(start + 20_000, high, first + steps)
                file.write(_table(np.arange(start, stop)).tobytes())


def values(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Value of each tag at each step, in the order written."""
    return np.sin(np.repeat(steps, len(TAGS)) + np.tile(np.arange(len(TAGS)), len(steps))).astype(np.float32)


def _table(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The records of these steps, one a row; all have one width."""
    models = [record(scalar_event(tag, 0.0, int(steps[0]), 1.7e9)) for tag in TAGS]
    table = np.tile(np.array([list(model) for model in models], np.uint8), (len(steps), 1))
    each = np.repeat(steps, len(TAGS))
    width = next(w for w, high in enumerate(_WIDTHS[1:], 1) if steps[-1] < high)
    walls = 1.7e9 + each * 1e-3
    table[:, 13:21] = walls.astype("<f8").view(np.uint8).reshape(-1, 8)
    for k in range(width):
        table[:, 22 + k] = (each >> (7 * k) & 127) | (128 if k < width - 1 else 0)
    table[:, -8:-4] = values(steps).astype("<f4").view(np.uint8).reshape(-1, 4)
    length = table.shape[1]
    crc = mask(crc_rows(table.ravel(), np.arange(len(table)) * length + 12, length - 16))
    table[:, -4:] = crc.astype("<u4").view(np.uint8).reshape(-1, 4)
    return table


def _tbparse(file: Path) -> None:
    from tbparse import SummaryReader

    assert len(SummaryReader(str(file), pivot=False, extra_columns={"wall_time"}).scalars) > 0


def _accumulator(file: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(file), size_guidance={"scalars": 0})
    reader.Reload()
    for tag in reader.Tags()["scalars"]:
        [(e.step, e.wall_time, e.value) for e in reader.Scalars(tag)]


def _peak_mb(path: Path) -> float:
    """Peak memory of a fresh process that loads the run."""
    code = (
        "import sys; from parsers.loading import load; load(sys.argv[1]).scalars;"
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024)"
    )
    return float(subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True).stdout)
