"""What the judges of gradients share: the models of a run, its loss and learning rate, and what was meant to train."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from analysis.gradient.levels import LossLevels
from analysis.gradient.tracks import Model, Track, models_of, rates_of, standing_for
from analysis.limits import Gauge
from parsers.run import Run

__all__ = ["Meant", "Scene", "meant_of", "scene_of", "some"]


@dataclass(frozen=True, slots=True)
class Meant:
    """What the plan or the configuration says about which layers train: names, their beginnings, or globs."""

    trainable: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    unfreeze_step: float | None = None

    def of(self, layer: str) -> Literal["train", "freeze", "unsaid"]:
        """What a layer is meant to do; once `unfreeze_step` has come, all of them train."""
        if _named(layer, self.frozen):
            return "freeze"
        if self.trainable:
            return "train" if _named(layer, self.trainable) else "freeze"
        return "unsaid"

    def begins(self, layer: str) -> float:
        """The step from which on a layer is meant to move; infinite for one that stays frozen."""
        if self.of(layer) != "freeze":
            return -np.inf
        return np.inf if self.unfreeze_step is None else self.unfreeze_step


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One run as the judges see it; `gauge` holds the limits, and keeps what is measured.

    `clip_norm` is the limit of the gradient's norm that the plan or the configuration states; None without one.
    """

    run: str
    models: tuple[Model, ...]
    loss: LossLevels
    rates: tuple[Track, ...]
    meant: Meant
    gauge: Gauge = field(default_factory=Gauge)
    clip_norm: float | None = None

    def limit(self, kind: str, track: Track) -> float:
        """From where on a kind is reported of a series, by its name or that of its layer."""
        return self.gauge.limits.of(kind, track.metric, track.layer)

    @property
    def lone(self) -> bool:
        """Whether one model is trained: the loss of the run is no measure of each of several (a GAN's players)."""
        return sum(1 for model in self.models if model.get("grad_norm") is not None) < 2

    def rate_beside(self, step: float) -> tuple[float, float] | None:
        """The learning rate at a step, and the largest of the run; None where none above 0 is logged.

        Of several groups that with the highest counts.
        """
        highest = [float(np.max(rate.values, initial=0.0, where=np.isfinite(rate.values))) for rate in self.rates]
        if max(highest, default=0.0) <= 0:
            return None
        rate = self.rates[int(np.argmax(highest))]
        row = min(int(np.searchsorted(rate.steps, step)), len(rate.values) - 1)
        return float(rate.values[row]), max(highest)


def scene_of(run: Run, gauge: Gauge | None = None) -> Scene:
    """What `run` holds for the judges; only the series concerned are read."""
    models = models_of(run)
    loss = standing_for(run, "train_loss") if models else None
    levels = LossLevels(np.empty(0), np.empty(0)) if loss is None else LossLevels(loss.steps, loss.values)
    rates = rates_of(run) if models else ()
    return Scene(
        run.name, models, levels, rates, meant_of(run), Gauge() if gauge is None else gauge, _clip_norm_of(run)
    )


def _clip_norm_of(run: Run) -> float | None:
    """The stated limit of the gradient's norm; None also where single numbers are clipped and not their norm."""
    stated = (run.plan, run.config, *run.beside.values())
    if any(one.get("gradient_clip_algorithm") == "value" for one in stated):
        return None
    return run.planned.clip_norm


def meant_of(run: Run) -> Meant:
    """Which layers train, as the plan of the run says it (`Plan.trainable`, `freeze`, `unfreeze_step`)."""
    plan = run.planned
    return Meant(plan.trainable, plan.freeze, plan.unfreeze_step)


def _named(layer: str, names: Iterable[str]) -> bool:
    return any(layer == name or layer.startswith(f"{name}.") or fnmatch.fnmatchcase(layer, name) for name in names)


def some(names: Iterable[str], most: int = 4) -> str:
    """Names in a sentence: the first few, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed) if more <= 0 else f"{', '.join(listed[:most])} and {more} more"
