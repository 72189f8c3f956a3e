"""Watching: what `watch` adds to a training step on the CPU, and what memory ten million records of one run take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from eventstream.recorder import Recorder

#: Steps of a block: with every=1, one in twenty measures all that there is.
BLOCK = 20


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


def _block(step: Callable[[], None], around: Callable[[], AbstractContextManager[Any]]) -> float:
    """Seconds of the processor for one step of a block: what others on the machine do is left out.

    The first step is not counted: a watch then looks at its model once, which a training does only once.
    """
    with around():
        step()
        start = time.process_time()
        for _ in range(BLOCK):
            step()
        return (time.process_time() - start) / BLOCK


def _every_step(width: int, layers: int, batch: int, blocks: int) -> tuple[float, float]:
    """Milliseconds of a step with `watch(every=1)` and of the plain loop; blocks of both take turns."""
    from eventstream.watch import watch

    model, optimizer, step = _training(width, layers, batch)
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, seal=False) as recorder:

        def watched() -> AbstractContextManager[Any]:
            return watch(model, optimizer, every=1, recorder=recorder)

        _block(step, watched)
        pairs = [(_block(step, watched), _block(step, nullcontext)) for _ in range(blocks)]
    plain = statistics.median(other for _, other in pairs)
    # Both blocks of a pair stand side by side in time, so their ratio is steadier than either.
    return plain * statistics.median(ours / other for ours, other in pairs) * 1e3, plain * 1e3


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


def _share(work: str, ours: float, plain: float, limit: float) -> Row:
    note = f"of {plain:.1f} ms of the processor, one thread, AdamW; the plain loop in turns"
    return Row.at_most(work, (ours / plain - 1) * 100, "the goal", limit, 1, unit="%", note=note)


def rows(quick: bool = False) -> list[Row]:
    size = (64, 10, 16) if quick else (256, 100, 64)
    small = (64, 10, 16) if quick else (64, 100, 64)
    shape = "watch(every={0}), MLP of {2} layers x {1}, batch {3}: share of the step"
    one, plain = _every_step(*size, blocks=2 if quick else 10)
    hundred, bare = _every_hundredth(*size, steps=20 if quick else 200)
    tiny, alone = _every_step(*small, blocks=2 if quick else 10)
    records = 100_000 if quick else 10_000_000
    memory = _many(records)
    return [
        _share(shape.format(1, *size), one, plain, 5.0),
        _share(shape.format(100, *size), hundred, bare, 0.2),
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
