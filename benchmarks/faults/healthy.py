"""Healthy runs with what fools detectors: each quirk changes a recipe, and is really trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.faults.dress import dress
from benchmarks.faults.effects import level
from benchmarks.faults.loop import train
from benchmarks.faults.planting import ANY, NAMED, ONE_LOSS, SIMPLE, STREAM, TIMED
from benchmarks.faults.plants.contracts import add_inputs
from benchmarks.faults.plants.gradients import Scaler
from benchmarks.faults.plants.hidden import WHOLE, resume
from benchmarks.faults.ranks import train_ranks
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.schedules import SCHEDULES
from benchmarks.faults.trace import Trace

__all__ = ["QUIRKS", "Quirk"]

LENGTHS = (30, 60, 90, 120, 200, 300, 300, 500, 800)


@dataclass(frozen=True)
class Quirk:
    """A healthy sort of run: where it may occur, what it changes in the recipe, and what happens `after` the training
    (or instead of it, where `trained` is false).
    """

    families: tuple[str, ...] = ONE_LOSS
    formats: tuple[str, ...] = ANY
    points: tuple[int, ...] = LENGTHS
    schedules: tuple[str, ...] = SCHEDULES
    change: Callable[[Recipe, np.random.Generator], Recipe] = lambda recipe, rng: recipe
    after: Callable[[Trace, Recipe, np.random.Generator], Trace] = lambda trace, recipe, rng: trace
    trained: bool = True
    memory: bool | None = None
    speed: bool | None = None


def _opt(**options: object) -> Callable[[Recipe, np.random.Generator], Recipe]:
    return lambda recipe, rng: recipe.opt(**options)


def _few_examples(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    """Many epochs over few examples, without replacement: the loss falls a little at each new epoch."""
    batch = min(recipe.batch, 32)
    epoch = int(rng.integers(20, 60))
    return recipe.with_(batch=batch, every=1).opt(examples=batch * epoch, sharpness=6.0, eval_rows=0)


def _sparse(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    every = {"language": 25, "distillation": 25}.get(recipe.family, 100)
    return recipe.with_(every=every).opt(eval_rows=int(rng.choice([0, 1, 5])))


def _tiny_batch(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    return recipe.with_(batch=int(rng.choice([2, 4])), every=1).opt(mean=False)


def _to_zero(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    return recipe.with_(batch=64).opt(target_noise=0.0)


def _short_decay(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    """Trained long past the point where it has learned what there is; the rate decays to nothing."""
    return recipe.with_(every=5).opt(lr_factor=2.0)


def _clipped(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    """A limit between the usual norm and three times it, as one that was chosen after a look at the norms."""
    usual = level(train(recipe).series("grad_norm")[1])
    return recipe.opt(clip=float(f"{usual * rng.uniform(1.0, 3.0):.2g}"), log_clipped=bool(rng.random() < 0.5))


def _resumed(trace: Trace, recipe: Recipe, rng: np.random.Generator) -> Trace:
    """The same training in two attempts, with weights, optimiser and data restored: nothing shows but the pause."""
    resume(trace, trace.where("train")[int(rng.uniform(0.3, 0.7) * recipe.points)].step)
    return trace


def _twice(trace: Trace, recipe: Recipe, rng: np.random.Generator) -> Trace:
    """Two loggers that tell the same."""
    dress(trace, recipe, rng)
    trace.other = trace.copy()
    return trace


def _of_ranks(trace: Trace, recipe: Recipe, rng: np.random.Generator) -> Trace:
    """Two or four processes that agree."""
    return train_ranks(recipe, int(rng.choice([2, 4])))


def _contract(trace: Trace, recipe: Recipe, rng: np.random.Generator) -> Trace:
    """A contract that is kept."""
    dress(trace, recipe, rng)
    add_inputs(trace)
    return trace


def _mixed_precision(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    return recipe.with_(every=1).opt(mean=False, config={"precision": "16-mixed"})


def _scaled(trace: Trace, recipe: Recipe, rng: np.random.Generator) -> Trace:
    """A loss scale that overflows now and then, and grows again."""
    chance = {"broken": 0.0, "usual": 1.0 / 150}
    return train(recipe, [Scaler(chance, 65536.0, at=10**9, grow=150)])


#: Name -> quirk; each is made equally often in both halves.
QUIRKS: dict[str, Quirk] = {
    "plain": Quirk(families=ONE_LOSS),
    "high-initial-loss": Quirk(families=SIMPLE, change=_opt(init_scale=12.0)),
    "warmup": Quirk(schedules=("warmup-constant", "warmup-cosine")),
    "step-decay": Quirk(schedules=("step",)),
    "one-cycle": Quirk(schedules=("one-cycle",)),
    "cosine-restarts": Quirk(schedules=("cosine-restarts",)),
    "dropout": Quirk(families=("classifier", "regression", "speaker"), change=_opt(dropout=0.4)),
    "epoch-sawtooth": Quirk(families=("classifier", "speaker"), points=(120, 300, 500), change=_few_examples),
    "loss-near-zero": Quirk(families=("regression",), change=_to_zero),
    "constant-clipping": Quirk(change=_clipped),
    "gan": Quirk(families=("gan",), formats=NAMED, points=(100, 160, 300)),
    "eval-pauses": Quirk(formats=TIMED, change=_opt(slow_evals=True), speed=True),
    "accuracy": Quirk(families=("classifier", "speaker"), change=_opt(accuracy=True)),
    "sparse-logging": Quirk(families=SIMPLE, points=(30, 40, 50), change=_sparse),
    "converged": Quirk(families=("autoencoder", "regression"), points=(300, 800),
                       schedules=("warmup-cosine", "linear", "step", "one-cycle"), change=_short_decay),
    "tiny-batch": Quirk(change=_tiny_batch),
    "memory": Quirk(formats=NAMED, memory=True, speed=True),
    "long": Quirk(families=SIMPLE, points=(1200, 2000, 2000, 5000), change=lambda r, rng: r.with_(every=1)),
    "layers": Quirk(families=SIMPLE, formats=(*STREAM, "jsonl", "tensorboard"), points=(120, 300),
                    change=_opt(layers=True, param_norm=True)),
    "curriculum": Quirk(families=("distillation",), formats=NAMED),
    "clean-resume": Quirk(families=WHOLE, formats=("event-stream", "tensorboard"), points=(120, 300, 500),
                          after=_resumed),
    "two-logs": Quirk(families=WHOLE, formats=("csv+tensorboard",), points=(120, 300), after=_twice),
    "ranks": Quirk(families=("classifier", "regression", "autoencoder"), formats=STREAM, points=(90, 150),
                   change=lambda r, rng: r.with_(every=1, batch=max(8, min(32, r.batch))).opt(mean=False),
                   trained=False, after=_of_ranks),
    "contract": Quirk(families=WHOLE, formats=STREAM, points=(60, 120), after=_contract),
    "mixed-precision": Quirk(families=SIMPLE, formats=NAMED, points=(120, 300, 800), change=_mixed_precision,
                             trained=False, after=_scaled),
    "few-evals": Quirk(families=WHOLE, change=lambda r, rng: r.opt(eval_rows=max(1, r.points // 3))),
    "units": Quirk(families=("classifier", "regression"), formats=("event-stream", "jsonl", "tensorboard"),
                   points=(120, 300), change=_opt(layers=True, updates=True, units=True, widths=[48, 48])),
}  # fmt: skip
