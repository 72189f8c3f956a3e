"""Runs with chains of faults planted into them, and healthy runs with single faults far apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parsers.finish import finish
from parsers.run import Run

__all__ = ["CHAINS", "columns_of", "far_apart", "run_of"]

Floats = NDArray[np.float64]
Columns = dict[str, tuple[Floats, Floats]]


def run_of(columns: Columns, events: list[dict[str, Any]] | None = None, **more: Any) -> Run:
    """A run of steps and values a tag; events with their payloads as objects."""
    parts = [
        pl.DataFrame({"tag": [tag] * len(steps), "step": steps.astype(np.int64), "value": values.astype(float)})
        for tag, (steps, values) in columns.items()
    ]
    told = [{**e, "payload": json.dumps(e["payload"])} for e in events or []]
    table = pl.DataFrame(told, schema_overrides={"step": pl.Int64}) if told else None
    return finish("r", "r", "jsonl", pl.concat(parts), events=table, **more)


def columns_of(seed: int, n: int = 2000, noise: float = 0.03) -> Columns:
    """A healthy training: loss, gradient norm and learning rate at every step, eval loss at every 20th."""
    rng = np.random.default_rng(seed)
    x = np.arange(n)
    falling = 0.4 + 2.2 / np.sqrt(1 + x / (n / 20))
    rate = 3e-4 * np.minimum(1, (x + 1) / (n / 20)) * (0.55 + 0.45 * np.cos(np.pi * x / n))
    return {
        "loss": (x, falling * np.exp(noise * rng.standard_normal(n))),
        "grad_norm": (x, np.exp(0.2 * rng.standard_normal(n))),
        "lr": (x, rate),
        "eval_loss": (x[19::20], (1.05 * falling * np.exp(noise / 3 * rng.standard_normal(n)))[19::20]),
    }


def _scaled(columns: Columns, tag: str, first: int, last: int, factor: float | Floats) -> None:
    steps, values = columns[tag]
    values[(steps >= first) & (steps < last)] *= factor


def _lost(columns: Columns, tag: str, first: int, value: float = np.nan, last: int = 10**9) -> None:
    steps, values = columns[tag]
    values[(steps >= first) & (steps < last)] = value


def learning_rate_leaps() -> Run:
    """The rate is set tenfold, gradients explode, the loss spikes and is NaN soon after."""
    made = columns_of(1)
    _scaled(made, "lr", 1190, 2000, 10.0)
    _scaled(made, "grad_norm", 1198, 1225, 60.0)
    _scaled(made, "loss", 1204, 1225, 4.0)
    for tag in ("loss", "grad_norm", "eval_loss"):
        _lost(made, tag, 1225)
    return run_of(made)


def gradients_explode_and_the_loss_climbs() -> Run:
    made = columns_of(2)
    steps = np.arange(2000)
    made["grad_norm"][1][:] *= np.exp(np.clip((steps - 1400) / 15, 0, 8))
    made["loss"][1][:] *= np.exp(np.clip((steps - 1440) / 100, 0, 3.5))
    return run_of(made)


def loss_climbs_and_gradients_grow_late() -> Run:
    made = columns_of(2)
    steps = np.arange(2000)
    made["grad_norm"][1][:] *= np.exp(np.clip((steps - 1550) / 60, 0, 8))
    made["loss"][1][:] *= np.exp(np.clip((steps - 1300) / 120, 0, 4))
    return run_of(made)


def one_bad_batch() -> Run:
    """One step leaps in train loss, a component and eval; gradients too."""
    made = columns_of(3)
    steps = made["loss"][0]
    made["kd_loss"] = (steps, 0.4 * made["loss"][1].copy())
    _scaled(made, "loss", 999, 1002, 5.0)
    _scaled(made, "kd_loss", 999, 1002, 5.0)
    _scaled(made, "eval_loss", 999, 1002, 3.0)
    return run_of(made)


def nan_begins_in_the_gradient() -> Run:
    made = columns_of(4)
    _lost(made, "grad_norm", 1500)
    _lost(made, "loss", 1502)
    _lost(made, "eval_loss", 1502)
    return run_of(made)


def loss_scale_falls_with_infinite_gradients() -> Run:
    made = columns_of(5)
    steps = np.arange(2000)
    scale = 65536.0 / 2.0 ** np.clip((steps - 1200) // 2, 0, 40)
    made["amp_scale"] = (steps, scale)
    made["amp_skipped_count"] = (steps, np.clip(steps - 1200, 0, None).astype(float))
    _lost(made, "grad_norm", 1201, np.inf)
    _lost(made, "loss", 1203)
    return run_of(made)


def spike_that_never_comes_back() -> Run:
    made = columns_of(6)
    _scaled(made, "grad_norm", 1290, 1310, 40.0)
    _scaled(made, "loss", 1296, 2000, 3.0)
    _scaled(made, "eval_loss", 1296, 2000, 3.0)
    return run_of(made)


def memory_leaks_until_the_job_dies() -> Run:
    made = columns_of(7)
    steps = np.arange(2000)
    rng = np.random.default_rng(7)
    made["resources/memory_mb"] = (steps, 40_000 + 20.0 * steps + 20 * rng.standard_normal(2000))
    speed = 400 * np.where(steps < 1500, 1.0, 0.5) * np.exp(0.03 * rng.standard_normal(2000))
    made["resources/throughput_steps_per_s"] = (steps, speed)
    ended = {"kind": "end", "step": 1999, "payload": {"status": "failed", "error": "CUDA out of memory"}}
    return run_of(made, [ended])


def dead_layer() -> Run:
    made = columns_of(8)
    steps = np.arange(0, 2000, 20)
    rng = np.random.default_rng(8)
    for i in range(4):
        dead = i == 2
        for name, level in (("grad_norm", 0.5), ("update_ratio", 1e-3)):
            wobble = level * np.exp(0.2 * rng.standard_normal(100))
            made[f"{name}/blocks.{i}.fc"] = (steps, np.where(dead & (steps >= 1000), 0.0, wobble))
        share = np.clip(0.05 + 0.02 * rng.standard_normal(100), 0, 1)
        made[f"dead_units/blocks.{i}.fc"] = (steps, np.where(dead & (steps >= 1000), 1.0, share))
        made[f"zero_grads/blocks.{i}.fc"] = (steps, np.where(dead & (steps >= 1000), 1.0, share))
    return run_of(made)


def overfits() -> Run:
    made = columns_of(9)
    steps, values = made["eval_loss"]
    values[:] = values * (1 + np.clip((steps - 800) / 400, 0, 5))
    _, train = made["loss"]
    train[:] *= np.exp(-np.clip(np.arange(2000) - 600, 0, None) / 500)
    return run_of(made)


def discriminator_wins_and_samples_collapse() -> Run:
    rng = np.random.default_rng(10)
    steps = np.arange(600)
    won = steps >= 250
    balance = np.exp(0.1 * rng.standard_normal((3, 600)))
    return run_of(
        {
            "d_loss": (steps, np.where(won, 0.004, 1.38) * balance[0]),
            "g_loss": (steps, np.where(won, 8.0, 0.7) * balance[1]),
            "diversity": (steps, np.where(steps >= 280, 0.05, 0.9) * balance[2]),
            "d_real": (steps, np.where(won, 0.998, 0.55)),
            "d_fake": (steps, np.where(won, 0.002, 0.45)),
        }
    )


def term_that_is_never_applied() -> Run:
    made: Columns = {}
    rng = np.random.default_rng(11)
    steps = np.arange(0, 600, 5)
    hard, feature = (np.exp(-steps / 300 + 0.05 * rng.standard_normal(120)) for _ in range(2))
    for name, raw, weight, used in (("hard", hard, 1.0, 1.0), ("feature", feature, 0.5, 0.0)):
        made[f"losses/{name}/raw"] = (steps, raw)
        made[f"losses/{name}/weight"] = (steps, np.full(120, weight))
        made[f"losses/{name}/weighted"] = (steps, raw * used)
    made["losses/total"] = (steps, hard)
    return run_of(made, plan={"loss_weights": {"hard": 1.0, "feature": 0.5}})


def far_apart(seed: int, n: int = 1200) -> Run:
    """A healthy run, or one with up to three faults at 100 steps or more from each other, none of them another's."""
    rng = np.random.default_rng(1000 + seed)
    made = columns_of(seed, n, noise=float(rng.choice([0.02, 0.05])))
    speed = "resources/throughput_steps_per_s"
    made[speed] = (np.arange(n), 400 * np.exp(0.03 * rng.standard_normal(n)))
    for place in rng.choice(np.arange(2, 12), size=int(rng.integers(0, 4)), replace=False) * 100:
        fault = rng.choice(["spike", "eval", "gradient", "speed", "nan", "jump"])
        if fault == "nan":
            _lost(made, "loss", place, last=place + 1)
        else:
            tag, last, factor = {
                "spike": ("loss", place + 2, 5.0),
                "eval": ("eval_loss", place + 20, 4.0),
                "gradient": ("grad_norm", place + 40, 100.0),
                "speed": (speed, n, 0.6),
                "jump": ("loss", n, 1.8),
            }[str(fault)]
            _scaled(made, tag, place, last, factor)
    return run_of(made)


#: Chains: the run, kind and metric of the root, and what else must stand in its incident.
CHAINS: Mapping[str, tuple[Any, str, set[str]]] = {
    f.__name__: (f, root, members)
    for f, root, members in (
        (learning_rate_leaps, "exploding-gradient", {"level-shift", "non-finite"}),
        (gradients_explode_and_the_loss_climbs, "exploding-gradient", {"divergence"}),
        (loss_climbs_and_gradients_grow_late, "divergence", {"exploding-gradient"}),
        (one_bad_batch, "loss-spike", {"loss-spike"}),
        (nan_begins_in_the_gradient, "non-finite", set()),
        (loss_scale_falls_with_infinite_gradients, "non-finite", {"amp-collapse"}),
        (spike_that_never_comes_back, "level-shift", {"outlier"}),
        (memory_leaks_until_the_job_dies, "memory-growth", {"memory-overflow"}),
        (dead_layer, "dead-units", {"frozen-layer"}),
        (overfits, "overfitting", {"train-eval-gap"}),
        (discriminator_wins_and_samples_collapse, "discriminator-dominance", {"mode-collapse"}),
        (term_that_is_never_applied, "weight-not-applied", {"inactive-component"}),
    )
}
