"""Faults between train and eval: overfitting, a gap, sums for means, and a leak."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.faults.effects import level
from benchmarks.faults.loop import Hook, State, train
from benchmarks.faults.planting import ANY, Ask, Draw, NotPlantedError, Planted, close_to, plants
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.trace import Trace

__all__ = ["overfitting", "scale_mismatch", "suspiciously_good", "train_eval_gap"]


def _few(recipe: Recipe, ask: Ask) -> Recipe:
    """Few examples with noisy labels, a larger model, no decay of the rate, and an eval every few rows."""
    options = {"examples": int(ask.rng.choice([64, 128, 256])), "widths": [64, 64], "eval_rows": 5, "mean": True}
    options |= {"target_noise": 0.7} if recipe.family == "regression" else {"sharpness": 3.0}
    chosen = "adam" if recipe.optimizer == "sgd" else recipe.optimizer
    return recipe.with_(batch=16, optimizer=chosen, every=3, points=400).opt(**options)


def _smooth(values: np.ndarray) -> np.ndarray:
    return np.array([level(values[max(0, i - 2) : i + 3]) for i in range(len(values))])


@plants("overfitting", reps=2, families=("classifier", "regression"), formats=ANY, points=(400,),
        schedules=("constant", "warmup-constant"), demand=_few)  # fmt: skip
def overfitting(draw: Draw) -> Planted:
    """Few examples, seen again and again, until eval lies above its minimum by the factor; the run ends there."""
    trace = draw.healthy(draw.recipe).copy()
    steps, values = trace.series("loss", "eval")
    smooth = _smooth(values)
    risen = smooth / np.minimum.accumulate(smooth)
    reached = np.flatnonzero((risen >= draw.size) & (np.arange(len(risen)) >= 8))
    if not len(reached):
        raise NotPlantedError(f"eval rose by {risen.max():.2f} only")
    end = int(reached[0])
    end_training(trace, int(steps[end]))
    size = close_to(float(risen[end]), draw.size, 1.15, "rise of eval")
    onset = int(steps[int(np.argmin(smooth[: end + 1]))])
    return Planted(trace, size, onset, extra={"rows": len(trace.where("train"))})


def end_training(trace: Trace, last: int) -> None:
    """Makes a shorter training of a longer one whose rate does not depend on its length."""
    trace.rows = [row for row in trace.rows if row.step <= last]
    trace.steps = trace.config["max_steps"] = trace.plan["max_steps"] = last
    if "lr" in trace.plan:
        trace.plan["lr"]["total_steps"] = last


class _HarderEval(Hook):
    """Held-out examples of which a share has wrong targets: other data than the training's."""

    def __init__(self, share: float) -> None:
        self.share = share

    def before(self, state: State) -> None:
        if state.step == 1:
            torch.manual_seed(state.recipe.seed + 3)
            batch = (state.task.eval_x, state.task.eval_y)
            state.task.eval_y = state.task.harder(batch, self.share, np.random.default_rng(state.recipe.seed + 3))[1]


def _frequent(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.with_(batch=max(16, recipe.batch)).opt(eval_rows=max(1, recipe.points // 20))


@plants("train-eval-gap", families=("regression", "autoencoder", "classifier"), formats=ANY, points=(90, 150, 300),
        demand=_frequent)  # fmt: skip
def train_eval_gap(draw: Draw) -> Planted:
    """Eval on data of which a share does not follow the training's; the gap is there from the first evals on."""
    clean = _gap(draw.healthy(draw.recipe))
    if clean > 1.5:
        raise NotPlantedError(f"without the fault eval is {clean:.2f} times train already")
    worst = _gap(train(draw.recipe, [_HarderEval(1.0)]))
    share = (draw.size - clean) / (worst - clean)
    if not 0 < share <= 1:
        raise NotPlantedError(f"wrong targets alone make eval {worst:.2f} times train")
    trace = train(draw.recipe, [_HarderEval(share)])
    size = close_to(_gap(trace), draw.size, 1.2, "eval over train")
    values = _smooth(trace.series("loss", "eval")[1])
    rises = float(values[-1] / values.min())
    accepted = [
        *(["overfitting"] if rises > 1.05 else []),
        *(["train-eval-scale-mismatch"] if _constant(trace) else []),
    ]
    first = trace.where("eval")[0].step
    return Planted(trace, size, first, accepted=tuple(accepted), extra={"eval_rise": rises})


def _constant(trace: Trace) -> bool:
    """Whether eval lies above train by the same number from the first fifth of the evals on.

    Wrong targets add a constant to a squared error as soon as the model has learned something: that is the picture of a
    component that train lacks, and no log tells the two apart.
    """
    steps, values = trace.series("loss", "eval")
    at, train_values = trace.series("loss")
    above = _smooth(values - np.interp(steps, at, _smooth(train_values)))
    fifth = above[: max(2, len(above) // 5)]
    return bool(np.mean(fifth) > above[-1] / 2 and np.std(above[len(fifth) :]) < 0.25 * above[-1])


def _gap(trace: Trace) -> float:
    fifth = [level(v[-max(3, len(v) // 5) :]) for v in (trace.series("loss", "eval")[1], trace.series("loss")[1])]
    return fifth[0] / fifth[1]


COMPARABLE = ("classifier", "language", "autoencoder", "regression", "speaker")


def _evals(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.opt(eval_rows=max(1, recipe.points // 20), mean=True)


@plants("train-eval-scale-mismatch", families=COMPARABLE, formats=ANY, points=(120, 300), demand=_evals, pooled=True)
def scale_mismatch(draw: Draw) -> Planted:
    """The train loss is logged as the sum over the accumulated batches; nothing else changes."""
    trace = draw.base()
    trace.change("loss", trace.where("train"), lambda value: value * draw.size)
    trace.config["gradient_accumulation_steps"] = int(draw.size)
    return Planted(trace, draw.size, trace.where("train")[0].step, extra={"ratio": _gap(trace)})


@plants("suspiciously-good", families=COMPARABLE, formats=ANY, points=(120, 300), demand=_evals, pooled=True)
def suspiciously_good(draw: Draw) -> Planted:
    """A share of the held-out examples is answered from its own labels: their loss is 0, their answers are right."""
    trace = draw.base()
    for row in trace.where("eval"):
        row.values["loss"] *= draw.size
        if "accuracy" in row.values:
            row.values["accuracy"] = 1 - (1 - row.values["accuracy"]) * draw.size
        if "eer" in row.values:
            row.values["eer"] *= draw.size
    return Planted(trace, draw.size, trace.where("eval")[0].step, extra={"eval_over_train": _gap(trace)})
