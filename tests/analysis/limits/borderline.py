"""Runs with one fault of a given size each, in the unit of the limit of its kind: what thresholds are tried on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parsers.finish import finish
from parsers.run import COMPARED, Run, Source

__all__ = ["BORDERLINE", "run_of"]

Floats = NDArray[np.float64]
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def run_of(
    series: Mapping[str, Any], *, steps: Any = None, seconds: Any = None, plan: Any = None, rank: int = 0
) -> Run:
    parts = []
    for tag, values in series.items():
        values = np.asarray(values, dtype=np.float64)
        at = np.arange(len(values)) if steps is None else np.asarray(steps)
        part = pl.DataFrame({"tag": [tag] * len(values), "step": at.astype(np.int64), "value": values})
        if seconds is not None:
            part = part.with_columns(time=pl.Series([START + dt.timedelta(seconds=float(s)) for s in seconds]))
        parts.append(part.with_columns(rank=pl.lit(rank, pl.Int32)))
    return finish("r", "r.jsonl", "jsonl", pl.concat(parts), plan=plan or {})


def noise(n: int, size: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, size, n)


def missing(share: float) -> Run:
    """Holes of five steps at uneven places, until the share is reached."""
    total = 2000
    holes = round(share * total / 5)
    places = np.cumsum(np.random.default_rng(1).integers(20, total // (holes + 2) + 20, holes)) + 30
    gone = {int(p) + i for p in places for i in range(5)}
    steps = [s for s in range(total) if s not in gone]
    return run_of({"loss": np.ones(len(steps))}, steps=steps)


def clock(back: float) -> Run:
    seconds = np.arange(200.0) * 10
    seconds[100:] -= 10 + back
    return run_of({"loss": np.ones(200)}, seconds=seconds)


def pause(times: float) -> Run:
    seconds = np.arange(300.0) * 10 + noise(300, 0.01)
    seconds[150:] += 10 * (times - 1)
    return run_of({"loss": np.ones(300)}, seconds=seconds)


def rank_apart(difference: float) -> Run:
    frames = []
    for rank in range(4):
        loss = 2.0 * np.exp(noise(300, 0.02, rank))
        if rank == 2:
            loss[120:] *= 1 + difference
        columns = {"tag": ["loss"] * 300, "step": range(300), "value": loss}
        frames.append(pl.DataFrame(columns).with_columns(rank=pl.lit(rank, pl.Int32)))
    return finish("r", "r.jsonl", "jsonl", pl.concat(frames))


def other_log(share: float) -> Run:
    row: dict[str, Any] = dict.fromkeys(COMPARED)
    row |= {"split": "", "metric": "loss", "tag": "loss", "other_tag": "loss", "compared": 1000}
    row |= {"differing": round(share * 1000), "first_step": 3, "value": 1.0, "other_value": 2.0, "hidden": 0}
    against = pl.DataFrame([row], schema=COMPARED)
    run = run_of({"loss": np.ones(20)})
    first = Source(path="a", format="jsonl", scalars=20, against=against.clear())
    return replace(run, sources=(first, Source(path="b", format="csv", scalars=20, against=against)))


def exploding(times: float) -> Run:
    norm = np.concatenate([np.ones(200), np.geomspace(1, times, 20), np.full(60, times)]) * np.exp(noise(280, 0.02))
    loss = np.concatenate([np.linspace(2, 1, 205), np.linspace(1, 9, 75)]) + noise(280, 0.01, 1)
    return run_of({"grad_norm": norm, "loss": loss})


def vanishing(times: float) -> Run:
    norm = np.concatenate([np.ones(100), np.geomspace(1, 1 / times, 60), np.full(100, 1 / times)])
    return run_of({"grad_norm": norm * np.exp(noise(260, 0.02)), "loss": 2.0 + noise(260, 0.01, 1)})


def clipped(share: float) -> Run:
    return run_of({"clip_rate": np.full(60, share), "grad_norm": np.exp(noise(60, 0.3))})


def skipped(share: float) -> Run:
    steps = np.arange(0, 4000, 10)
    return run_of({"amp_skipped_count": np.floor(steps * share)}, steps=steps)


def updates(times: float) -> Run:
    return run_of({"update_ratio": 1e-3 * times * np.exp(noise(40, 0.05))})


def dead(share: float) -> Run:
    layers = {f"dead_units/fc{i}": np.full(30, share if i == 1 else 0.0) for i in range(4)}
    return run_of({**layers, "loss": np.linspace(2, 1, 30)})


def still(rows: float) -> Run:
    moves = np.full(60, 1e-3)
    frozen = moves.copy()
    frozen[60 - int(rows) :] = 0
    return run_of({"update_ratio/a": moves, "update_ratio/b": frozen, "update_ratio/c": moves})


def train_and_eval(train: Floats, evaluated: Floats) -> Run:
    at = np.linspace(0, len(train) - 1, len(evaluated)).astype(np.int64)
    rows = pl.DataFrame(
        {
            "tag": ["loss"] * len(train) + ["eval_loss"] * len(evaluated),
            "step": np.concatenate([np.arange(len(train)), at]),
            "value": np.concatenate([train, evaluated]),
        }
    )
    return finish("r", "r.jsonl", "jsonl", rows)


def overfitted(rise: float) -> Run:
    down = 1 + np.linspace(1, 0, 20) ** 2
    up = 1 + rise * np.minimum(np.linspace(0, 1.5, 20), 1.0)
    return train_and_eval(2 * np.exp(-np.arange(400) / 150), np.concatenate([down, up]))


def gap(times: float) -> Run:
    train = 2 * np.exp(-np.arange(400) / 400)
    apart = np.linspace(1, times, 40)
    apart[20:] = times
    return train_and_eval(train, train[:: 400 // 40] * apart)


def factor(times: float) -> Run:
    train = 2 * np.exp(-np.arange(400) / 200)
    return train_and_eval(train, train[np.linspace(0, 399, 40).astype(int)] * times)


def losses(total: float = 1.0, displayed: float = 1.0, weighted: float = 1.0, weight: float = 0.5) -> dict[str, Floats]:
    """Two components whose sum is the total; factors put one of the entries off."""
    one, two = 2 + np.abs(noise(40, 0.3)), 1 + np.abs(noise(40, 0.2, 1))
    whole = (one * weight * weighted + two * 0.25) * total
    return {
        "losses/kd/raw": one,
        "losses/kd/weight": np.full(40, weight),
        "losses/kd/weighted": one * weight * weighted,
        "losses/ce/raw": two,
        "losses/ce/weight": np.full(40, 0.25),
        "losses/ce/weighted": two * 0.25,
        "losses/total": whole,
        "losses/displayed": whole * displayed,
    }


def memory(growth: float) -> Run:
    return run_of({"host_memory_mb": 8000 * (1 + growth * np.arange(300) / 299) + noise(300, 1.0)})


def full(share: float) -> Run:
    return run_of({"gpu_memory_mb": np.full(60, share * 10_000), "gpu_memory_total_mb": np.full(60, 10_000.0)})


def slower(left: float) -> Run:
    speed = np.where(np.arange(200) < 100, 1000.0, 1000.0 * left) * np.exp(noise(200, 0.01))
    return run_of({"tokens_per_second": speed})


def collapse(share: float) -> Run:
    return run_of({"diversity": np.where(np.arange(200) < 120, 0.9, 0.9 * share) + noise(200, 0.002)})


def discriminator(share: float) -> Run:
    d = np.where(np.arange(200) < 80, 1.386, 1.386 * share)
    g = np.where(np.arange(200) < 80, 0.7, 2.5)
    return run_of({"d_loss": d * np.exp(noise(200, 0.01)), "g_loss": g})


def generator(share: float) -> Run:
    d = np.where(np.arange(200) < 80, 1.386, 3.0)
    g = np.where(np.arange(200) < 80, 0.7, 0.6931 * share)
    return run_of({"d_loss": d, "g_loss": g * np.exp(noise(200, 0.01))})


def idle(skill: float) -> Run:
    apart = np.full(200, skill) + noise(200, 1e-4)
    return run_of({"d_real": 0.5 + apart / 4, "d_fake": 0.5 - apart / 4})


def drifting(times: float) -> Run:
    d = np.where(np.arange(200) < 80, 1.0, 1 / times) * np.exp(noise(200, 0.01))
    return run_of({"g_grad_norm": np.exp(noise(200, 0.01)), "d_grad_norm": d})


def by_heart(r_t: float) -> Run:
    return run_of({"Loss/signs/real": np.clip(np.linspace(0, 1, 200) * 3, 0, 1) * r_t + noise(200, 0.001)})


def curriculum(off: float) -> Run:
    plan = {"max_steps": 40, "loss_weights": {"kd": 0.5, "ce": 0.25}}
    return run_of(losses(weight=0.5 * (1 + off)), plan=plan)


#: Kind -> the check, a run with a fault of that size, a size that the default lets pass and one that it reports, and
#: thresholds: one that lets the latter pass, and one that reports the former. Kinds that are told as information below
#: their limit are asked for a warning.
BORDERLINE: dict[str, tuple[str, Callable[[float], Run], tuple[float, float], tuple[float, float], bool]] = {
    "missing-steps": ("stream", missing, (0.005, 0.02), (0.06, 0.004), True),
    "clock-skew": ("stream", clock, (0.5, 5.0), (8.0, 0.2), False),
    "stall": ("stream", pause, (20.0, 50.0), (80.0, 10.0), False),
    "rank-divergence": ("ranks", rank_apart, (0.17, 0.4), (0.6, 0.15), True),
    "source-disagreement": ("sources", other_log, (0.005, 0.05), (0.1, 0.001), True),
    "exploding-gradient": ("gradients", exploding, (20.0, 60.0), (100.0, 12.0), False),
    "vanishing-gradient": ("gradients", vanishing, (300.0, 4000.0), (9000.0, 100.0), False),
    "clipping": ("gradients", clipped, (0.9, 0.97), (0.99, 0.8), False),
    "amp-collapse": ("gradients", skipped, (0.03, 0.1), (0.2, 0.02), False),
    "update-ratio": ("gradients", updates, (50.0, 300.0), (800.0, 20.0), False),
    "dead-units": ("gradients", dead, (0.15, 0.3), (0.4, 0.1), False),
    "frozen-layer": ("gradients", still, (4, 8), (12, 3), False),
    "overfitting": ("train_eval_gap", overfitted, (0.015, 0.04), (0.08, 0.008), False),
    "train-eval-gap": ("train_eval_gap", gap, (1.3, 1.8), (2.2, 1.15), False),
    "train-eval-scale-mismatch": ("train_eval_gap", factor, (2.4, 3.4), (4.0, 1.8), False),
    "suspiciously-good": ("train_eval_gap", factor, (0.45, 0.36), (0.3, 0.5), False),
    "loss-sum-mismatch": ("losses", lambda s: run_of(losses(total=1 + s)), (4e-4, 5e-3), (0.02, 1e-4), True),
    "loss-display-mismatch": ("losses", lambda s: run_of(losses(displayed=1 + s)), (4e-4, 5e-3), (0.02, 1e-4), True),
    "weight-not-applied": ("losses", lambda s: run_of(losses(weighted=1 + s)), (2e-3, 0.02), (0.04, 1e-3), True),
    "curriculum-off-schedule": ("curriculum", curriculum, (5e-3, 0.03), (0.06, 2e-3), True),
    "memory-growth": ("resources", memory, (0.03, 0.08), (0.12, 0.02), False),
    "memory-overflow": ("resources", full, (0.92, 0.97), (0.99, 0.9), False),
    "throughput-drop": ("resources", slower, (0.8, 0.7), (0.6, 0.85), False),
    "mode-collapse": ("gan", collapse, (0.7, 0.2), (0.09, 0.75), False),
    "discriminator-dominance": ("gan", discriminator, (0.15, 0.05), (0.02, 0.2), False),
    "generator-dominance": ("gan", generator, (0.15, 0.05), (0.02, 0.2), False),
    "discriminator-idle": ("gan", idle, (0.03, 0.012), (0.005, 0.04), False),
    "player-imbalance": ("gan", drifting, (20.0, 60.0), (90.0, 10.0), False),
    "discriminator-overfitting": ("gan", by_heart, (0.85, 0.95), (0.98, 0.8), False),
}
