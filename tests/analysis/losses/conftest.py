"""Loss records as training writes them, with planted faults, for the tests of loss accounting and curriculum."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from parsers.finish import finish
from parsers.run import Run

Floats = NDArray[np.float64]

SCHEMA = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64, "epoch": pl.Float64}


def run_of(columns: Mapping[str, Any], steps: Any, *, plan: Mapping[str, Any] | None = None, epoch: Any = None) -> Run:
    """A run whose tags hold the given columns, all at the same steps."""
    frames = [
        pl.DataFrame({"tag": [tag] * len(steps), "step": steps, "value": np.asarray(values, float),
                      "epoch": [None] * len(steps) if epoch is None else epoch}, schema_overrides=SCHEMA)
        for tag, values in columns.items()
    ]  # fmt: skip
    return finish("demo", "demo", "jsonl", pl.concat(frames), plan=plan or {})


def raws(seed: int, rows: int, names: list[str], noise: float = 0.1) -> dict[str, Floats]:
    """Decaying raw losses of very different sizes with multiplicative noise, as float32."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, rows)
    made = {}
    for name in names:
        size, floor = 10 ** rng.uniform(-1, 2.5), rng.uniform(0.1, 0.6)
        curve = size * (floor + (1 - floor) * np.exp(-3 * t)) * np.exp(noise * rng.standard_normal(rows))
        made[name] = curve.astype(np.float32).astype(float)
    return made


def losses_of(
    raw: Mapping[str, Floats],
    weights: Mapping[str, Any],
    *,
    hidden: Mapping[str, float] | None = None,
    mean: bool = False,
    divide: int = 1,
    decimals: int | None = None,
    listed: bool = False,
) -> dict[str, Floats]:
    """Columns of `losses/...`: the arithmetic in float32, `hidden` weights on top of the declared ones.

    `listed` prints what entered as `contribution` (so that a hidden weight shows there); else only the total has it.
    """
    columns: dict[str, Floats] = {}
    rows = len(next(iter(raw.values())))
    total = np.zeros(rows, np.float32)
    for name, values in raw.items():
        weight = np.broadcast_to(np.asarray(weights[name], float), rows)
        weighted = (values.astype(np.float32) * weight.astype(np.float32)).astype(np.float32)
        entered = weighted + values.astype(np.float32) * np.float32((hidden or {}).get(name, 0.0))
        total = (total + entered).astype(np.float32)
        columns |= {f"losses/{name}/raw": values, f"losses/{name}/weight": weight, f"losses/{name}/weighted": weighted}
        if listed:
            columns[f"losses/{name}/contribution"] = entered
    if mean:
        total = (total / np.float32(len(raw))).astype(np.float32)
    columns["losses/total"] = (total / np.float32(divide)).astype(np.float32)
    columns = {tag: np.asarray(values, float) for tag, values in columns.items()}
    return columns if decimals is None else {tag: np.round(values, decimals) for tag, values in columns.items()}


def kinds(result: Any, at_least: str = "info") -> list[str]:
    """Kinds of the findings at or above a severity."""
    order = ["info", "warning", "critical", "fatal"]
    return [f.kind for f in result.findings if order.index(f.severity) >= order.index(at_least)]


@pytest.fixture(scope="session")
def logs() -> SimpleNamespace:
    """The functions above, for the tests of this folder."""
    return SimpleNamespace(run_of=run_of, raws=raws, losses_of=losses_of, kinds=kinds)
