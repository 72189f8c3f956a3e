"""Faults of the data and the weights, really trained: bad batches, a harder shard, a smaller batch."""

from __future__ import annotations

import math

import numpy as np
import torch

from benchmarks.faults.effects import jump, level, log_noise, peak
from benchmarks.faults.loop import Hook, State, train
from benchmarks.faults.planting import ANY, NAMED, Ask, Draw, NotPlantedError, Planted, close_to, plants
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.tasks.base import Batch

__all__ = ["level_shift", "loss_spike", "variance_shift"]

#: Families whose loss is one number of one kind from beginning to end.
WHOLE = ("classifier", "language", "autoencoder", "regression", "speaker")
#: Rows whose level a spike is measured against, and rows within which its top lies.
BEFORE, TOP = 15, 4


def _own_rows(recipe: Recipe, ask: Ask) -> Recipe:
    """Each row the loss of its own step: a mean over rows would hide half of what one batch does."""
    recipe = recipe.opt(mean=False, eval_rows=max(1, recipe.points // 12))
    return recipe.with_(optimizer="adam") if ask.variant == "never" and recipe.optimizer == "sgd" else recipe


class _Poison(Hook):
    """At one step the weights go uphill on a batch with wrong targets, as far as makes the loss rise by a factor.

    `stuck`: the gradients of that batch stay in Adam's second moment, so that nothing is learned from there on.
    """

    def __init__(self, at: int, factor: float, *, stuck: bool) -> None:
        self.at, self.factor, self.stuck = at, factor, stuck
        self.held: dict[int, torch.Tensor] = {}

    def before(self, state: State) -> None:
        if state.step == self.at:
            usual = level(np.array(state.losses[-BEFORE * state.recipe.every :]))
            self._damage(state, usual * self.factor)

    def _damage(self, state: State, wanted: float) -> None:
        probe = state.task.batch(state.step)
        wrong = state.task.harder(probe, 1.0, state.noise)
        taken = state.snapshot()
        state.optimizer.zero_grad(set_to_none=True)
        state.task.loss(wrong, state.step)[0].backward()
        moves = [
            (p, p.grad.clone() * (p.norm() / (p.grad.norm() + 1e-12))) for p in state.parameters if p.grad is not None
        ]
        low, high = 0.0, 8.0
        for _ in range(18):
            middle = (low + high) / 2
            state.restore(taken)
            _move(moves, middle)
            low, high = (middle, high) if state.loss_on(probe) < wanted else (low, middle)
        state.optimizer.zero_grad(set_to_none=True)

    def after(self, state: State) -> None:
        if self.stuck and state.step >= self.at:
            for parameter, kept in state.optimizer.state.items():
                if "exp_avg_sq" in kept:
                    first = self.held.setdefault(id(parameter), kept["exp_avg_sq"].clone() * 1e8 + 1e4)
                    kept["exp_avg_sq"].copy_(first)


@torch.no_grad()
def _move(moves: list[tuple[torch.nn.Parameter, torch.Tensor]], length: float) -> None:
    for parameter, move in moves:
        parameter.sub_(length * move)


class _BadBatches(Hook):
    """Steps whose batches have wrong targets, scaled so that the loss of the batch is a factor above; learned from
    with clipped gradients, so that the weights hardly suffer.
    """

    def __init__(self, steps: range, factor: float) -> None:
        self.steps, self.factor = steps, factor
        self.scale = 1.0

    def batch(self, state: State, batch: Batch) -> Batch:
        if state.step not in self.steps:
            return batch
        usual = level(np.array(state.losses[-BEFORE * state.recipe.every :]))
        x, y = state.task.harder(batch, 1.0, state.noise)
        loud = x if not x.is_floating_point() else None
        low, high = 0.0, 1.0 if loud is not None else 12.0
        for _ in range(14):
            middle = (low + high) / 2
            tried = self._spoiled(state, batch, (x, y), middle)
            low, high = (middle, high) if state.loss_on(tried) < usual * self.factor else (low, middle)
        return self._spoiled(state, batch, (x, y), high)

    def _spoiled(self, state: State, batch: Batch, wrong: Batch, strength: float) -> Batch:
        """Strength up to 1 is the share of wrong targets, beyond it the inputs are too loud by as much."""
        count = round(min(strength, 1.0) * len(batch[1]))
        y = torch.cat([wrong[1][:count], batch[1][count:]])
        x = batch[0] * max(1.0, strength) if batch[0].is_floating_point() else batch[0]
        return x, y

    def gradients(self, state: State) -> None:
        if state.step in self.steps:
            for parameter in state.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(0.02)


@plants("loss-spike", variants=("fast", "slow", "never"), families=WHOLE, formats=ANY, demand=_own_rows)
def loss_spike(draw: Draw) -> Planted:
    """`fast`: one to three bad batches; `slow`: damaged weights that are learned again; `never`: damaged weights and an
    optimiser that cannot mend them.
    """
    recipe = draw.recipe
    healthy = draw.healthy(recipe)
    row = draw.place(0.35, 0.75)
    steps, values = healthy.series("loss")
    noise = log_noise(values[max(0, row - 60) : row])
    factor, onset = draw.factor(noise), int(steps[row])
    if draw.variant == "fast":
        hook: Hook = _BadBatches(range(onset, onset + recipe.every * (int(draw.rng.integers(1, 4)) - 1) + 1), factor)
    else:
        hook = _Poison(onset, factor, stuck=draw.variant == "never")
    trace = train(recipe, [hook])
    found = trace.series("loss")[1]
    top = close_to(peak(found, row, TOP, BEFORE), factor, 1.35, "height of the spike")
    back = _recovered(found, row, noise)
    after = None if back is None else int(steps[back])
    if draw.variant == "never" and back is not None and draw.magnitude <= 4:
        raise NotPlantedError("the loss recovered")
    if draw.variant == "slow" and draw.magnitude <= 4 and back is not None and back - row < 8:
        raise NotPlantedError(f"the loss was back after {back - row} rows")
    # damage that is not mended by the end of the log is, in that log, the same picture as one that never is
    lasting = ("level-shift", "divergence") if draw.variant == "slow" and back is None else ()
    end = None if draw.variant == "never" else after
    return Planted(trace, top, onset, end, accepted=lasting, extra={"noise": noise})


def _recovered(values: np.ndarray, row: int, noise: float) -> int | None:
    """The first row from which ten rows' median is within a noise of the level before; None where there is none."""
    usual = level(values[max(0, row - BEFORE) : row]) * math.exp(max(noise, 0.02))
    for i in range(row + 1, len(values)):
        if level(values[i : i + 10]) <= usual:
            return i
    return None


class _Harder(Hook):
    """From a step on a share of the examples has wrong targets: as large as makes the level rise by a factor."""

    def __init__(self, at: int, factor: float) -> None:
        self.at, self.factor, self.share = at, factor, 0.0

    def before(self, state: State) -> None:
        if state.step != self.at:
            return
        probe = [state.task.batch(state.step + i) for i in range(8)]
        x, y = torch.cat([b[0] for b in probe]), torch.cat([b[1] for b in probe])
        clean, wrong = state.loss_on((x, y)), state.loss_on(state.task.harder((x, y), 1.0, state.noise))
        self.share = (self.factor - 1) * clean / max(wrong - clean, 1e-9)
        if self.share > 0.95:
            raise NotPlantedError("wrong targets alone do not raise the loss so far")

    def batch(self, state: State, batch: Batch) -> Batch:
        return state.task.harder(batch, self.share, state.noise) if state.step >= self.at else batch


@plants("level-shift", reps=2, families=WHOLE, formats=ANY,
        points=(150, 200, 400), demand=_own_rows)  # fmt: skip
def level_shift(draw: Draw) -> Planted:
    """From one row on the data is harder: a share of its targets is wrong. The held-out data stays as it was."""
    healthy = draw.healthy(draw.recipe)
    row = draw.place(0.4, 0.75)
    steps, values = healthy.series("loss")
    factor = draw.factor(log_noise(values[max(0, row - 60) : row]))
    trace = train(draw.recipe, [_Harder(int(steps[row]), factor)])
    span = min(25, len(values) - row)
    shifted = trace.series("loss")[1]
    found = jump(shifted, row, span)
    close_to(math.log(max(found, 1.0)), math.log(factor), 1.4, "logarithm of the shift of the level")
    noisier = log_noise(shifted[row:]) / log_noise(shifted[row // 3 : row])
    # batches of which a share is wrong differ by how many of them are
    accepted = ("variance-shift",) if noisier > 1.5 else ()
    return Planted(trace, found, int(steps[row]), accepted=accepted, extra={"noise_ratio": noisier})


class _SmallerBatch(Hook):
    def __init__(self, at: int, size: int) -> None:
        self.at, self.size = at, size

    def batch(self, state: State, batch: Batch) -> Batch:
        return (batch[0][: self.size], batch[1][: self.size]) if state.step >= self.at else batch


def _large_batch(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.with_(batch=256, every=1).opt(mean=False, lr_factor=0.3)


@plants("variance-shift", reps=2, families=("classifier", "autoencoder", "regression", "speaker"), formats=NAMED,
        points=(300, 400, 600), demand=_large_batch)  # fmt: skip
def variance_shift(draw: Draw) -> Planted:
    """From one row on batches hold 4 to 128 examples instead of 256."""
    row = draw.place(0.4, 0.7)
    size = {1: 4, 2: 8, 3: 16, 4: 32, 5: 64, 6: 128}[draw.magnitude]
    trace = train(draw.recipe, [_SmallerBatch(row + 1, size)])
    steps, values = trace.series("loss")
    noisier = log_noise(values[row:]) / log_noise(values[row // 3 : row])
    found = close_to(noisier, draw.size, 1.35, "growth of the noise")
    risen = jump(values, row, 60)
    # small batches at the same rate do raise the level where the noise of the steps becomes large
    accepted = ("level-shift", "loss-spike", "divergence") if risen > 1.3 else ("level-shift",) if risen > 1.1 else ()
    return Planted(trace, found, int(steps[row]), accepted=accepted, extra={"level_ratio": risen})
