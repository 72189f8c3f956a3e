"""Runs with saves in a folder beside their log, one fault planted in each: what a diagnosis finds of weights."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.loading import load
from parsers.run import Run

__all__ = ["cut_off", "drifting", "malicious", "not_finite", "sound"]

_STEPS = (100, 200, 300, 400, 500, 600)
Weights = dict[str, NDArray[np.float32]]


def _run(folder: Path) -> Run:
    """A log of 600 steps in a folder, loaded with it."""
    rng = np.random.default_rng(0)
    with (folder / "log.jsonl").open("w") as log:
        for step in range(0, 601, 10):
            loss = (0.5 + 2 * np.exp(-step / 200)) * np.exp(0.02 * rng.normal())
            log.write(json.dumps({"step": step, "loss": loss, "lr": 1e-3}) + "\n")
    run = load(folder / "log.jsonl")
    assert isinstance(run, Run)
    return run


def _course(leap: float = 1.0) -> list[Weights]:
    """Weights that go a little way from save to save; one layer goes `leap` times as far in the fourth stretch."""
    rng = np.random.default_rng(1)
    names = [f"blocks.{n}.{part}.weight" for n in range(3) for part in ("up", "down")]
    weights: Weights = {name: rng.normal(0, 0.2, (24, 24)).astype(np.float32) for name in names}
    saves = [weights]
    for n in range(1, len(_STEPS)):
        moved = {}
        for name, values in saves[-1].items():
            way = 0.02 * (leap if (n, name) == (4, "blocks.1.up.weight") else 1.0)
            step = rng.normal(0, 1, values.shape)
            length = way * np.linalg.norm(values) / np.linalg.norm(step)
            moved[name] = (values + length * step).astype(np.float32)
        saves.append(moved)
    return saves


def _saved(folder: Path, saves: list[Weights]) -> Path:
    place = folder / "checkpoints"
    place.mkdir(exist_ok=True)
    for step, weights in zip(_STEPS, saves, strict=False):
        whole: dict[str, Any] = dict(weights)
        np.savez(place / f"step_{step}.npz", **whole)
    return place


def sound(folder: Path) -> Run:
    """Saves with nothing wrong."""
    _saved(folder, _course())
    return _run(folder)


def drifting(folder: Path, times: float = 20.0) -> Run:
    """One layer moves so many times farther between two saves than before and after."""
    _saved(folder, _course(times))
    return _run(folder)


def not_finite(folder: Path) -> Run:
    """The last save holds NaN in one matrix."""
    saves = _course()
    saves[-1]["blocks.1.up.weight"][3, 4:7] = np.nan
    _saved(folder, saves)
    return _run(folder)


def cut_off(folder: Path) -> Run:
    """The last save ends in the middle of its bytes."""
    last = _saved(folder, _course()) / f"step_{_STEPS[-1]}.npz"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    return _run(folder)


class _Planted:
    """What a pickle would run when it is opened the ordinary way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch planted",)


def malicious(folder: Path) -> Run:
    """A file of torch's kind whose pickle calls the shell."""
    place = folder / "checkpoints"
    place.mkdir()
    with zipfile.ZipFile(place / "step_100.pt", "w") as archive:
        archive.writestr("step_100/data.pkl", pickle.dumps({"model": {}, "config": _Planted()}, protocol=2))
        archive.writestr("step_100/version", "3\n")
    return _run(folder)
