"""What a log hides or tells twice: values carried on, NaN that a filter took out, two logs, data fed again."""

from __future__ import annotations

import math

from benchmarks.faults.loop import Hook, State, train
from benchmarks.faults.planting import Ask, Draw, Planted, plants
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.tasks.base import Batch
from benchmarks.faults.trace import Row, Trace

__all__ = ["disagreement", "hidden_nan", "repeated", "stale"]

WHOLE = ("classifier", "language", "autoencoder", "regression", "speaker")
_CARRIED = {1: 50, 2: 25, 3: 10, 4: 5, 5: 3, 6: 2}


def _rare_evals(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.opt(eval_rows=_CARRIED[ask.magnitude] + 1, mean=False)


@plants("stale-values", families=WHOLE, formats=("event-stream", "jsonl", "lightning-csv", "tensorboard", "text"),
        points=(300, 500), demand=_rare_evals)  # fmt: skip
def stale(draw: Draw) -> Planted:
    """Every row repeats the numbers of the last evaluation, as a loop does that logs one dictionary for both."""
    trace = draw.healthy(draw.recipe).copy()
    rows: list[Row] = []
    carried, kept = set(), None
    evals = {row.step: row for row in trace.where("eval")}
    for row in trace.where("train"):
        rows.append(row)
        if row.step in evals:
            kept = evals[row.step]
            rows.append(kept)
        elif kept is not None:
            rows.append(Row(row.step, dict(kept.values), "eval", row.epoch))
            carried.add(row.step)
    trace.rows, trace.carried = rows, frozenset(carried)
    return Planted(trace, draw.size, min(carried), metric="loss", extra={"rows": len(carried)})


def _tens(recipe: Recipe, ask: Ask) -> Recipe:
    most = {"language": 3}.get(recipe.family, 10)
    return recipe.with_(every=min(most, max(2, 1500 // recipe.points))).opt(mean=True)


@plants("hidden-non-finite", families=WHOLE, formats=("trainer-state",), points=(60, 120, 300), demand=_tens)
def hidden_nan(draw: Draw) -> Planted:
    """The Trainer's filter (`logging_nan_inf_filter`) adds the mean since the last row for a loss that is not finite.

    1 to 3: from one row on every loss is NaN, so that nothing is there to take a mean of and the row reads 0. 4 to 6:
    the last step of 5, 2 or 1 rows overflowed: the row shows the mean of the others, and a gradient norm of NaN.
    """
    trace = draw.base()
    rows = trace.where("train", "loss")
    if draw.magnitude <= 3:
        start = len(rows) - max(2, round(draw.size * len(rows)))
        for row in trace.rows:
            if row.step >= rows[start].step:
                _all_lost(row)
        return Planted(trace, float(len(rows) - start), rows[start].step)
    start = int(draw.rng.integers(len(rows) // 4, len(rows) - 8))
    last = start + int(draw.size) - 1
    for row in rows[start : last + 1]:
        row.values["grad_norm"] = math.nan
    return Planted(trace, draw.size, rows[start].step, rows[last].step)


def _all_lost(row: Row) -> None:
    for name in row.values:
        if name != "lr" and row.split == "train":
            row.values[name] = 0.0 if name == "loss" else math.nan if name == "grad_norm" else row.values[name]
        elif row.split == "eval":
            row.values[name] = 0.125 if name == "accuracy" else math.nan


def _means_of_steps(recipe: Recipe, ask: Ask) -> Recipe:
    return recipe.opt(mean=False)


@plants("source-disagreement", families=WHOLE, formats=("csv+tensorboard",), points=(120, 300), demand=_means_of_steps,
        pooled=True)  # fmt: skip
def disagreement(draw: Draw) -> Planted:
    """Two loggers of one run: from one row on the loss in TensorBoard is another than in the CSV."""
    trace = draw.base()
    onset = trace.where("train")[0 if draw.rng.random() < 0.5 else draw.place(0.3, 0.7)].step
    trace.other = trace.copy()
    rows = [row for row in trace.other.where("train", "loss") if row.step >= onset]
    trace.other.change("loss", rows, lambda value: value * (1 + draw.size))
    # the log that is wrong has a leap where it becomes wrong
    leaps = ("level-shift", "loss-spike") if draw.size > 0.04 and onset > trace.rows[0].step else ()
    return Planted(trace, draw.size, onset, accepted=leaps)


class _Again(Hook):
    """From a step on batches are those of `back` steps earlier."""

    def __init__(self, at: int, back: int) -> None:
        self.at, self.back = at, back

    def batch(self, state: State, batch: Batch) -> Batch:
        return state.task.batch(state.step - self.back) if state.step >= self.at else batch


_LENGTH = {1: 1000, 2: 800, 3: 600, 4: 400, 5: 300, 6: 300}


def _small_batches(recipe: Recipe, ask: Ask) -> Recipe:
    """Batches of a few examples each: what a batch is like shows in its loss."""
    return recipe.with_(batch=int(ask.rng.choice([4, 8, 16])), every=1, points=_LENGTH[ask.magnitude]).opt(
        mean=False, eval_rows=_LENGTH[ask.magnitude] // 10
    )


@plants("repeated-data", families=("classifier", "autoencoder", "regression", "speaker"),
        formats=("event-stream", "tensorboard"), points=(1000,), demand=_small_batches)  # fmt: skip
def repeated(draw: Draw) -> Planted:
    """The run is killed and resumed; its data loader begins where it was some rows before, and goes on from there.

    The training has the same batches twice, with the weights of the resume.
    """
    back, points = int(draw.size), draw.recipe.points
    at = int(draw.rng.integers(back + 20, points - back - 5)) if points > 2 * back + 30 else points - back - 1
    trace = train(draw.recipe, [_Again(at, back)])
    resume(trace, at)
    end = min(at + back - 1, trace.last_step)
    return Planted(trace, float(min(back, trace.last_step - at + 1)), at, None if end == trace.last_step else end)


def resume(trace: Trace, at: int) -> None:
    """Makes a second attempt of everything from a step on."""
    for record in (*trace.rows, *trace.events):
        if record.step is not None and record.step >= at:
            record.attempt = 1
