"""The series of a log that plain rules look at, as our reader finds and names them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parsers.run import Run

__all__ = ["Seen", "Track", "seen_of"]


@dataclass(frozen=True, eq=False)
class Track:
    """One series in the order logged; steps are row numbers where the log has none."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def finite(self) -> Track:
        kept = np.isfinite(self.values)
        return Track(self.name, self.steps[kept], self.values[kept])


@dataclass(frozen=True, eq=False)
class Seen:
    """`losses` and the like hold every series of the role, `loss` and `eval_loss` those that stand for the run.

    `clock` has the seconds since 1970 of each row of the training loss; None where the log has no times.
    """

    loss: Track | None
    eval_loss: Track | None
    losses: tuple[Track, ...]
    gradients: tuple[Track, ...]
    weights: tuple[Track, ...]
    update_ratios: tuple[Track, ...]
    dead_units: tuple[Track, ...]
    memory: tuple[Track, ...]
    clock: Track | None
    every: tuple[Track, ...]


def seen_of(run: Run) -> Seen:
    """All of one run of one process: of several, the one of the lowest rank."""
    rows = run.live(run.scalars)
    rows = rows.filter(pl.col("rank") == rows["rank"].min()) if rows.height else rows
    tracks: dict[str, list[Track]] = {}
    named: dict[tuple[str, str], Track] = {}
    for (split, metric, tag), part in rows.group_by("split", "metric", "tag", maintain_order=True):
        track = _track(f"{split} {metric}".strip(), part["step"], part["value"])
        named.setdefault((str(split), str(metric)), track)
        role = run.roles.of(str(metric), str(split), str(tag)).role
        tracks.setdefault(_group(role, str(metric)), []).append(track)
    primary = {name: run.roles[name] for name in ("train_loss", "eval_loss")}
    chosen = {name: named.get((p.split or "", p.metric or "")) for name, p in primary.items()}
    groups = {name: tuple(some) for name, some in tracks.items()}
    return Seen(
        # A GAN has no training loss; its generator's, or any loss, is better than none for a rule on the loss.
        loss=chosen["train_loss"] or next(iter(groups.get("generator_loss", ()) + groups.get("loss", ())), None),
        eval_loss=chosen["eval_loss"],
        losses=groups.get("loss", ()),
        gradients=groups.get("grad_norm", ()),
        weights=groups.get("param_norm", ()),
        update_ratios=groups.get("update_ratio", ()),
        dead_units=groups.get("dead_units", ()),
        memory=groups.get("memory", ()),
        clock=_clock(rows, primary["train_loss"].metric, primary["train_loss"].split),
        every=tuple(named.values()),
    )


def _group(role: str, metric: str) -> str:
    """The roles of the reader, but for those that hold series which different rules look at."""
    for name in ("update_ratio", "dead_units"):
        if name in metric:
            return name
    return "loss" if role in ("loss", "component_loss") else role


def _track(name: str, steps: pl.Series, values: pl.Series) -> Track:
    rows = np.arange(len(values), dtype=float)
    return Track(name, rows if steps.null_count() else steps.cast(pl.Float64).to_numpy(), values.to_numpy())


def _clock(rows: pl.DataFrame, metric: str | None, split: str | None) -> Track | None:
    part = rows.filter((pl.col("metric") == metric) & (pl.col("split") == split)) if metric else rows.head(0)
    if part.height < 2 or part["time"].null_count():
        return None
    return _track("time", part["step"], part["time"].dt.epoch("us").cast(pl.Float64) / 1e6)
