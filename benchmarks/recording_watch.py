"""Watching: what `watch` adds to a training step on the CPU, and what memory ten million records of one run take."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from eventstream.recorder import Recorder

#: `M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def _training(width: int, layers: int, batch: int) -> tuple[Any, Any, Callable[[], None]]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(*[part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())])
    for module in model:
        if isinstance(module, nn.Linear):
            # What keeps the signal alive through a hundred layers; vanished gradients would be denormal and slow.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    x = torch.randn(batch, width)

    def step() -> None:
        optimizer.zero_grad()
        (model(x) - x).square().mean().backward()
        optimizer.step()

    return model, optimizer, step


def _keep_memory() -> None:
    """Let the C library give no memory back to the system between steps, where it can be told (glibc).

    Gradients are freed and taken again at each step. Whether the heap shrinks and grows with them hangs on where its
    last block happens to lie: one process has no page faults, the next two thousand a step (3 ms), plain or watched.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 1 << 30)
        mallopt(_MMAP_THRESHOLD, 1 << 25)


def _seconds(step: Callable[[], None]) -> float:
    """What a step takes of the processor, whatever else runs on it."""
    start = time.process_time()
    step()
    return time.process_time() - start


def _every_step(width: int, layers: int, batch: int, blocks: int) -> tuple[float, float]:
    """Milliseconds of a step with `watch(every=1)` and of the plain step, one watched and one plain in turns.

    Neighbours in time share what others on the machine do to its caches and clock; blocks of seconds do not. So the
    ratio is taken of each pair, and the median of pairs; which of both comes first changes. The watched steps that
    measure all that there is, one in `SLOW_EVERY`, have a median of their own and count as often as they occur. The
    first steps are not counted: a watch then looks at its model once, which a training does only once.
    """
    from eventstream.watch import SLOW_EVERY, watch

    model, optimizer, step = _training(width, layers, batch)
    ratios: dict[bool, list[float]] = {True: [], False: []}
    plain = []
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, seal=False) as recorder:
        with watch(model, optimizer, every=1, recorder=recorder) as observer:
            places = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
            hooks = [dict(place) for place in places]
            for _ in range(SLOW_EVERY):
                step()
            for number in range(blocks * SLOW_EVERY):
                spent = {}
                for watched in (True, False) if number % 2 else (False, True):
                    _put(places, hooks if watched else [{}, {}])
                    spent[watched] = _seconds(step)
                plain.append(spent[False])
                ratios[number % SLOW_EVERY == 0].append(spent[True] / spent[False])
            _put(places, hooks)
            assert observer.step == (1 + blocks) * SLOW_EVERY
        assert recorder.lost == 0
    whole, usual = statistics.median(ratios[True]), statistics.median(ratios[False])
    ours = (whole + (SLOW_EVERY - 1) * usual) / SLOW_EVERY
    return statistics.median(plain) * ours * 1e3, statistics.median(plain) * 1e3


def _put(places: Iterable[dict[int, Any]], hooks: Iterable[Mapping[int, Any]]) -> None:
    """Let the optimizer have these hooks and no others."""
    for place, wanted in zip(places, hooks, strict=True):
        place.clear()
        place.update(wanted)


def _every_hundredth(width: int, layers: int, batch: int, steps: int) -> tuple[float, float]:
    """Milliseconds of a step with `watch(every=100)` and without: the time inside its hooks is measured apart.

    One step in a hundred costs more, and the difference of two loops of hundreds of steps is all noise.
    """
    from eventstream.watch import watch

    model, optimizer, step = _training(width, layers, batch)
    inside = [0.0]

    def timed(hook: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any) -> None:
            start = time.process_time()
            hook(*args)
            inside[0] += time.process_time() - start

        return wrapped

    with tempfile.TemporaryDirectory() as folder, Recorder(folder, seal=False) as recorder:
        observer = watch(model, optimizer, every=100, recorder=recorder)
        step()
        for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks):
            hooks.update({key: timed(hook) for key, hook in hooks.items()})
        start = time.process_time()
        for _ in range(steps):
            step()
        whole = time.process_time() - start
        observer.remove()
    return whole / steps * 1e3, (whole - inside[0]) / steps * 1e3


#: Run in a process of its own: its memory is the recorder's and the interpreter's alone.
_MANY = """
import json, sys
from pathlib import Path
from eventstream.recorder import Recorder

def resident():
    text = Path("/proc/self/status").read_text()
    return {k: int(text.split(k + ":")[1].split()[0]) / 1024 for k in ("VmRSS", "VmHWM")}

records = int(sys.argv[2])
with Recorder(sys.argv[1]) as rec:
    for step in range(records // 100):
        rec.log(step, {"loss": 0.5})
    before = resident()
    for step in range(records // 100, records):
        rec.log(step, {"loss": 0.5})
    after = resident()
print(json.dumps({"before": before["VmRSS"], "after": after["VmRSS"], "peak": after["VmHWM"], "lost": rec.lost}))
"""


def _many(records: int) -> dict[str, float]:
    root = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _MANY, folder, str(records)], cwd=root, stdout=subprocess.PIPE, check=True
        )
    found: dict[str, float] = json.loads(done.stdout)
    assert found["lost"] == 0
    return found


def _share(work: str, ours: float, plain: float, limit: float, turns: str) -> Row:
    note = f"of {plain:.1f} ms of the processor, one thread, AdamW; {turns}"
    return Row.at_most(work, (ours / plain - 1) * 100, "the goal", limit, 1, unit="%", note=note)


def rows(quick: bool = False) -> list[Row]:
    size = (64, 10, 16) if quick else (256, 100, 64)
    small = (64, 10, 16) if quick else (64, 100, 64)
    _keep_memory()
    shape = "watch(every={0}), MLP of {2} layers x {1}, batch {3}: share of the step"
    one, plain = _every_step(*size, blocks=2 if quick else 12)
    hundred, bare = _every_hundredth(*size, steps=20 if quick else 200)
    tiny, alone = _every_step(*small, blocks=2 if quick else 12)
    records = 100_000 if quick else 10_000_000
    memory = _many(records)
    return [
        _share(shape.format(1, *size), one, plain, 5.0, "watched and plain steps in turns"),
        _share(shape.format(100, *size), hundred, bare, 0.2, "what the hooks take"),
        Row.shown(shape.format(1, *small), (tiny / alone - 1) * 100, "the goal at width 256", 5.0, unit="%"),
        Row.at_most(
            f"memory of a run of {records:,} records",
            memory["after"],
            "after one in a hundred of them",
            memory["before"],
            1.05,
            unit="MiB",
            note=f"a process of its own, peak {memory['peak']:.0f} MiB; full segments are sealed meanwhile",
        ),
    ]
