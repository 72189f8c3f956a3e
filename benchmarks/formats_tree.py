"""Listing and loading a tree of small runs in four formats: cold, and from the cache, each in a fresh process."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row
from parsers.tfevents.write import record, scalar_event

STEPS = 100
#: Prints the seconds of the call alone: who loads a thousand runs has begun long before.
_LOAD = """
import sys, time
import aftertrain as at
at.load_all([])
begun = time.perf_counter()
runs = at.load_all(sys.argv[1], workers=int(sys.argv[2]), cache=sys.argv[3] == "cached")
print(time.perf_counter() - begun, len(runs))
"""
_CALL = "import sys; from aftertrain.cli import main; sys.exit(main(['ls', sys.argv[1]]))"


def rows(quick: bool) -> list[Row]:
    count = 40 if quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        make_tree(tree, count)
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(folder, "cache"))}
        cold = _listed(tree, environment, count)
        warm = min(_listed(tree, environment, count) for _ in range(3))
        one, two = (_loaded(tree, environment, count, workers) for workers in (1, 2))
        first = _loaded(tree, environment, count, 1, "cached")
        second = min(_loaded(tree, environment, count, 1, "cached") for _ in range(3))
    formats = "JSONL, trainer_state, CSV, tfevents"
    work, note = f"aftertrain ls of {count:,} runs", f"a fresh process, its start included; {formats}"
    load, alone = f"load_all of {count:,} runs", f"a fresh process, its start not counted; {formats}"
    return [
        Row.at_most(f"{load}, cold, 1 worker", one, "the goal", 10.0, 1.0, note=alone),
        Row.shown(f"{load}, cold, 2 workers", two, "1 worker", one, note="the start of the workers included"),
        Row.at_most(f"{load}, cold, kept in the cache", first, "without a cache", one, 2.0, note=alone),
        Row.at_most(f"{load}, from the cache", second, "the goal", 1.0, 1.0, note=alone),
        Row.at_most(f"{work}, cold", cold, "the goal", 10.0, 1.0, note=note),
        Row.at_most(f"{work}, from the cache", warm, "the goal", 1.0, 1.0, note=note),
    ]


def make_tree(root: Path, count: int) -> None:
    """`count` runs of `STEPS` steps in folders of fifty."""
    rng = random.Random(0)
    for number in range(count):
        folder = root / f"group{number // 50:03d}" / f"run{number:04d}"
        folder.mkdir(parents=True)
        losses = [round(rng.random(), 5) for _ in range(STEPS)]
        _WRITERS[number % len(_WRITERS)](folder, losses)


def _jsonl(folder: Path, losses: list[float]) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps({"step": s, "loss": x}) + "\n" for s, x in enumerate(losses)))


def _state(folder: Path, losses: list[float]) -> None:
    entries = [{"step": s, "epoch": s / 50, "loss": x, "learning_rate": 1e-3} for s, x in enumerate(losses, 1)]
    state = {"max_steps": STEPS, "global_step": STEPS, "log_history": entries}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def _csv(folder: Path, losses: list[float]) -> None:
    lines = "".join(f"{s},{s // 50},{x},\n" for s, x in enumerate(losses))
    (folder / "metrics.csv").write_text("step,epoch,train_loss,val_loss\n" + lines)
    (folder / "hparams.yaml").write_text("lr: 0.1\n")


def _tfevents(folder: Path, losses: list[float]) -> None:
    events = [record(scalar_event("train/loss", x, s, 1.7e9 + s)) for s, x in enumerate(losses)]
    (folder / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"".join(events))


_WRITERS = (_jsonl, _state, _csv, _tfevents)


def _loaded(tree: Path, environment: dict[str, str], count: int, workers: int, cache: str = "none") -> float:
    """Seconds of one loading in a fresh process."""
    command = [sys.executable, "-c", _LOAD, str(tree), str(workers), cache]
    told = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout.split()
    if int(told[1]) != count:
        raise RuntimeError(f"{told[1]} runs were loaded of {count}")
    return float(told[0])


def _listed(tree: Path, environment: dict[str, str], count: int) -> float:
    """Seconds of one listing in a fresh process."""
    start = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-c", _CALL, str(tree)], env=environment, capture_output=True, check=True, text=True
    )
    taken = time.perf_counter() - start
    found = len(told.stdout.splitlines()) - 1
    if found != count:
        raise RuntimeError(f"{found} runs were listed of {count}")
    return taken
