"""Faults of gradients and layers: explosion, vanishing, dead units, frozen layers, clipping, a loss scale."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from benchmarks.faults.effects import level
from benchmarks.faults.loop import Hook, State, train
from benchmarks.faults.planting import ANY, NAMED, SIMPLE, Ask, Draw, NotPlantedError, Planted, close_to, plants
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.trace import Trace

__all__ = ["Scaler", "amp_collapse", "clipping", "dead_units", "exploding", "frozen", "vanishing"]

LAYERED = ("event-stream", "jsonl", "tensorboard", "lightning-csv")


def _rise(trace: Trace, row: int) -> float:
    """Level of the loss over the 20 rows after a row, over the 20 before it."""
    values = trace.series("loss")[1]
    return level(values[row : row + 20]) / level(values[max(0, row - 20) : row])


class _Louder(Hook):
    """From a step on gradients are multiplied by a factor that grows within some rows (an un-divided loss scale)."""

    def __init__(self, at: int, over: int, factor: float) -> None:
        self.at, self.over, self.factor = at, over, factor

    def gradients(self, state: State) -> None:
        if state.step >= self.at:
            now = self.factor ** min(1.0, (state.step - self.at + 1) / self.over)
            torch._foreach_mul_([p.grad for p in state.parameters if p.grad is not None], now)


def _adam(recipe: Recipe, ask: Ask) -> Recipe:
    """Adam's steps do not depend on the size of a gradient: the run goes on while its norm explodes."""
    layers = bool(ask.rng.random() < 0.4)
    chosen = "adam" if recipe.optimizer == "sgd" else recipe.optimizer
    return recipe.with_(optimizer=chosen).opt(layers=layers, mean=False)


@plants("exploding-gradient", reps=2, families=SIMPLE, formats=ANY, points=(90, 150, 300), demand=_adam)
def exploding(draw: Draw) -> Planted:
    """The norm grows within a tenth of the run (at times within two rows) and stays there."""
    row = draw.place(0.35, 0.75)
    rows = int(draw.rng.choice([2, max(3, draw.recipe.points // 10)]))
    every, onset = draw.recipe.every, (row + 1) * draw.recipe.every
    trace = train(draw.recipe, [_Louder(onset, rows * every, draw.size)])
    norms = trace.series("grad_norm")[1]
    found = float(np.nanmax(norms[row:])) / level(norms[max(0, row - 20) : row])
    size = close_to(found, draw.size, 4.0 if draw.size > 100 else 2.0, "growth of the gradient norm")
    risen = _rise(trace, row)
    accepted = ("loss-spike", "divergence", "level-shift") if risen > 1.3 else ()
    return Planted(trace, size, onset, metric="grad_norm", accepted=accepted, extra={"loss_rise": risen})


def _deep(recipe: Recipe, ask: Ask) -> Recipe:
    """Hidden layers of sigmoids: each takes the gradient to about a seventh."""
    depth = {1: 9, 2: 8, 3: 7, 4: 6, 5: 4, 6: 3}[ask.magnitude]
    return recipe.with_(batch=max(16, recipe.batch)).opt(layers=True, activation="sigmoid", widths=[24] * depth)


@plants("vanishing-gradient", families=("classifier", "regression"), formats=LAYERED, points=(120, 300), demand=_deep)
def vanishing(draw: Draw) -> Planted:
    """A stack of sigmoids whose first layers have next to no gradient; norms are logged by layer."""
    trace = train(draw.recipe)
    names = [name for name in trace.metrics() if name.startswith("grad_norm/")]
    first, last = (trace.series(name)[1] for name in (names[0], names[-1]))
    early = slice(0, max(10, len(first) // 2))
    ratio = close_to(level(first[early]) / level(last[early]), draw.size, 8.0, "ratio of the layers")
    return Planted(trace, ratio, draw.recipe.every, metric=names[0])


class _Dying(Hook):
    """At a step the biases of a share of the hidden units are pushed so far down that their ReLU never opens."""

    def __init__(self, at: int, share: float) -> None:
        self.at, self.share = at, share

    def before(self, state: State) -> None:
        if state.step == self.at:
            for layer in _hidden(state.model):
                dead = torch.from_numpy(state.noise.permutation(len(layer.bias))[: round(self.share * len(layer.bias))])
                with torch.no_grad():
                    layer.bias[dead] = -60.0


def _hidden(model: nn.Module) -> list[nn.Linear]:
    assert isinstance(model, nn.Sequential)
    return [layer for layer in list(model)[:-1] if isinstance(layer, nn.Linear)]


def _relus(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.opt(activation="relu", widths=[48, 48], mean=False, units=True)


@plants("dead-units", variants=("init", "leap"), families=("classifier", "regression"), formats=LAYERED,
        points=(120, 300), demand=_relus)  # fmt: skip
def dead_units(draw: Draw) -> Planted:
    """`init`: biases wrong from the beginning; `leap`: a step throws them there later. Shares are logged by layer."""
    row = 0 if draw.variant == "init" else draw.place(0.3, 0.6)
    onset = 1 if row == 0 else (row + 1) * draw.recipe.every
    trace = train(draw.recipe, [_Dying(onset, draw.size)])
    name = next(name for name in trace.metrics() if name.startswith("dead_units/"))
    found = level(trace.series(name)[1][-max(10, len(trace.rows) // 5) :])
    size = close_to(found, draw.size, 1.3, "share of dead units")
    return Planted(trace, size, onset, metric=name)


class _Frozen(Hook):
    """Layers that stand still from a step on: without gradients, or left out by the optimiser."""

    def __init__(self, names: list[str], at: int, *, gradients: bool) -> None:
        self.names, self.at, self.with_gradients = names, at, gradients
        self.kept: dict[int, torch.Tensor] = {}

    def _parameters(self, state: State) -> list[nn.Parameter]:
        layers = state.task.layers()
        return [parameter for name in self.names for parameter in layers[name]]

    def before(self, state: State) -> None:
        if state.step == self.at:
            for parameter in self._parameters(state):
                self.kept[id(parameter)] = parameter.detach().clone()
                parameter.requires_grad_(self.with_gradients)
                if not self.with_gradients:
                    parameter.grad = None

    def after(self, state: State) -> None:
        if state.step >= self.at and self.with_gradients:
            with torch.no_grad():
                for parameter in self._parameters(state):
                    parameter.copy_(self.kept[id(parameter)])


#: What people call the list of what is to train, in a configuration (docs/plan.md).
_TRAINABLE = ("trainable", "trainable_layers", "trainable_modules")
_FROZEN = {1: (3, 1.0), 2: (2, 1.0), 3: (1, 1.0), 4: (1, 0.6), 5: (1, 0.32), 6: (1, 0.2)}


def _four_layers(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.opt(layers=True, updates=True, widths=[40, 40, 40], state_lr=False)


@plants("frozen-layer", variants=("requires-grad", "optimizer"), families=("classifier", "regression"), formats=LAYERED,
        points=(120, 300), schedules=("constant", "warmup-constant", "linear"), demand=_four_layers)  # fmt: skip
def frozen(draw: Draw) -> Planted:
    """Three, two or one of four layers for the whole run; one of them for the last 60, 32 or 20 % of it.

    A layer without gradients is a fault only where it was to train, which no number of a log tells (layers are frozen
    on purpose every day): the plan and the configuration of `requires-grad` state it.
    """
    count, share = _FROZEN[draw.magnitude]
    at = 1 if share == 1.0 else round((1 - share) * draw.recipe.steps)
    names = ["0", "2", "4", "6"]
    chosen = names[:count] if count > 1 else [str(draw.rng.choice(names[:3]))]
    trace = train(draw.recipe, [_Frozen(chosen, at, gradients=draw.variant == "optimizer")])
    last = [row.values[f"param_norm/{chosen[0]}"] for row in trace.where("train") if row.step >= at]
    if max(last) != min(last):
        raise NotPlantedError("the layer moved")
    if draw.variant == "requires-grad":
        trace.plan["trainable"] = trace.config[str(draw.rng.choice(_TRAINABLE))] = names
    size = len(chosen) / len(names) * share
    return Planted(trace, size, at, metric=f"param_norm/{chosen[0]}", extra={"layers": chosen})


@plants("clipping", families=SIMPLE, formats=ANY, points=(90, 150, 300))
def clipping(draw: Draw) -> Planted:
    """A limit so low that every step is clipped; logged norms are those before it, the configuration has the limit."""
    usual = level(draw.healthy(draw.recipe).series("grad_norm")[1])
    limit = float(f"{usual / draw.size:.2g}")
    both = bool(draw.rng.random() < 0.5)
    trace = train(draw.recipe.opt(clip=limit, log_clipped=both))
    norms = trace.series("grad_norm")[1]
    size = close_to(level(norms) / limit, draw.size, 3.0, "norm over the limit")
    share = float((norms > limit).mean())
    if share < 0.98 and draw.magnitude <= 4:
        raise NotPlantedError(f"{share:.0%} of the steps are clipped")
    return Planted(trace, size, draw.recipe.every, metric="grad_norm", extra={"clipped_share": share})


class Scaler(Hook):
    """A loss scaler as in torch.amp: halves its scale and skips the step on an overflow, doubles it every `grow` steps.

    Overflows are drawn with the chance `overflow(step, scale)`: this model has none of its own in float32.
    """

    def __init__(self, overflow: dict[str, float], floor: float, at: int, grow: int) -> None:
        self.chance, self.floor, self.at, self.grow = overflow, floor, at, grow
        self.scale, self.since, self.skipped, self.over = 65536.0, 0, 0, False

    def skip(self, state: State) -> bool:
        broken = state.step >= self.at and self.scale > self.floor
        p = self.chance["broken"] if broken else self.chance["usual"]
        self.over = bool(state.noise.random() < p) or (state.step >= self.at and self.since >= self.grow)
        if self.over:
            self.scale, self.since, self.skipped = self.scale / 2, 0, self.skipped + 1
            state.norm = math.inf
        else:
            self.since += 1
            if self.since >= self.grow and state.step < self.at:
                self.scale, self.since = self.scale * 2, 0
        return self.over

    def row(self, state: State, values: dict[str, float]) -> None:
        values["amp_scale"], values["amp_skipped_count"] = self.scale, float(self.skipped)
        if self.over and "grad_norm" in values:
            values["grad_norm"] = math.inf


def _amp(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.with_(every=1).opt(mean=False, config={"precision": "16-mixed"})


@plants("amp-collapse", families=SIMPLE, formats=NAMED, points=(90, 150, 300), demand=_amp)
def amp_collapse(draw: Draw) -> Planted:
    """From one row on a third of the steps overflow until the scale is down to its end, where it stays."""
    row = draw.place(0.2, 0.5)
    scaler = Scaler({"broken": 0.35, "usual": 0.0}, draw.size, row + 1, grow=10**9)
    trace = train(draw.recipe, [scaler])
    last = trace.series("amp_scale")[1][-1]
    size = close_to(float(last), draw.size, 1.01, "loss scale at the end")
    return Planted(trace, size, row + 1, metric="amp_scale", extra={"skipped": scaler.skipped})
