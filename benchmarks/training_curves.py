"""Synthetic losses with known truth: curves that training really draws, times noise that minibatches really make."""

from __future__ import annotations

import numpy as np
import polars as pl

from parsers.finish import finish
from parsers.run import Run

CURVES = ("exponential", "power", "step", "warmup", "cosine", "flat", "to_zero")
NOISES = ("lognormal", "normal", "heavy", "gamma", "autocorrelated")


def curve(kind: str, n: int) -> np.ndarray:
    row = np.arange(n)
    t = row / n
    return {
        "exponential": 0.5 + 2.5 * np.exp(-6 * t),
        "power": 0.3 + 3 * (1.0 + row) ** -0.35,
        "step": np.select([t < 0.3, t < 0.7], [2.5 * np.exp(-3 * t) + 0.8, 0.9 * np.exp(0.3 - t)], 0.5),
        "warmup": np.where(t < 0.05, 3 - 10 * t, 0.4 + 2.1 * np.exp(-5 * (t - 0.05))),
        "cosine": 0.6 + 1.2 * (1 + np.cos(np.pi * t)),
        "flat": np.full(n, 2.3),
        "to_zero": 3 * np.exp(-12 * t) + 1e-4,
    }[kind]


def noise(kind: str, sigma: float, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "lognormal":
        return np.exp(sigma * rng.normal(size=n))
    if kind == "normal":
        return np.maximum(1 + sigma * rng.normal(size=n), 0.01)
    if kind == "heavy":  # Student's t with 5 degrees of freedom, of the same standard deviation
        return np.exp(sigma * rng.standard_t(5, size=n) / np.sqrt(5 / 3))
    if kind == "gamma":
        return rng.gamma(1 / sigma**2, sigma**2, size=n)
    wander = np.empty(n)
    last = rng.normal()
    for i, shock in enumerate(rng.normal(size=n) * np.sqrt(1 - 0.9**2)):
        last = wander[i] = 0.9 * last + shock
    return np.exp(sigma * wander)


def run_of(series: dict[str, np.ndarray], *, attempt: np.ndarray | None = None, step: np.ndarray | None = None) -> Run:
    frames = []
    for tag, values in series.items():
        columns = {"step": np.arange(len(values)) if step is None else step}
        if attempt is not None:
            columns["attempt"] = attempt
        frames.append(pl.DataFrame({"tag": pl.repeat(tag, len(values), eager=True), **columns, "value": values}))
    return finish("synthetic", "", "memory", pl.concat(frames) if frames else None)
