"""How far a run came, on each axis on which its plan says how far it should."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from analysis.planned.counting import counts_planned_steps
from parsers.run import Run

__all__ = ["Reached", "reached"]

#: Metrics in which frameworks log the true step beside a counter of their own.
_GLOBAL = ("trainer/global_step", "train/global_step", "global_step")
#: Formats in which a step is called a step; in the others it is whatever the caller counts.
_COUNTED = (
    "aftertrain",
    "huggingface",
    "lightning",
    "mmlab",
    "mlperf",
    "dllogger",
    "debug-blocks",
    "jsonl",
    "csv",
    "text",
)
#: A log whose steps are so near the planned number of epochs counts epochs.
_AN_EPOCH = 1.0


@dataclass(frozen=True, slots=True)
class Reached:
    """One planned length: `planned` and `reached` in `unit`, the largest distance `every` of two records there.

    `sure` is False where the log's steps may be of another kind (epochs, calls of the logger). `why` then says so.
    """

    unit: str
    planned: float
    reached: float
    every: float
    source: str
    sure: bool = True
    why: str = ""

    @property
    def share(self) -> float:
        """Share of the plan that was done; the steps from the last record to the next one count as done."""
        return self.reached / self.planned

    @property
    def done(self) -> bool:
        """Whether the end is nearer than the next record would be."""
        return self.planned - self.reached <= self.every + 1e-9


def reached(run: Run) -> list[Reached]:
    """The planned lengths of a run with what it reached: steps, epochs, both or none.

    Where the Trainer of Hugging Face states its steps, they are all that counts: it stops at no other number.
    """
    plan, longest = run.planned, _longest(run)
    if longest is None:
        return []
    found = []
    if longest["last_step"] is not None:
        if plan.max_steps is not None:
            found.append(_steps(run, plan.max_steps, plan.sources.get("max_steps", ""), longest))
        elif plan.epochs is not None and plan.steps_per_epoch is not None:
            told = f"{plan.sources.get('epochs', '')}, {plan.sources.get('steps_per_epoch', '')}"
            found.append(_steps(run, round(plan.epochs * plan.steps_per_epoch), told, longest))
    if plan.epochs is not None and not (found and plan.max_steps is not None and run.format.startswith("huggingface")):
        epochs = _epochs(run, plan.epochs, longest)
        found += [] if epochs is None else [epochs]
    return found


def last_time(run: Run) -> tuple[datetime | None, float | None]:
    """Time of the last number, and the usual seconds between the records of the longest series."""
    longest = _longest(run)
    if longest is None:
        return None, None
    here = (
        (pl.col("tag") == longest["tag"]) & (pl.col("split") == longest["split"]) & (pl.col("rank") == longest["rank"])
    )
    times = run.lazy().filter(here).select("time").collect()["time"].drop_nulls()
    last = run.lazy().select(pl.col("time").max()).collect().item()
    usual = times.diff().drop_nulls().dt.total_microseconds().median() if len(times) > 1 else None
    return last, float(usual) / 1e6 if isinstance(usual, int | float) else None


def _longest(run: Run) -> dict[str, Any] | None:
    """The longest series of training, else of any split."""
    rows = run.catalogue.sort("count", descending=True)
    training = rows.filter(pl.col("split").is_in(["", "train"]))
    rows = training if training.height else rows
    return rows.row(0, named=True) if rows.height else None


def _steps(run: Run, planned: int, source: str, longest: dict[str, Any]) -> Reached:
    last = int(run.catalogue["last_step"].max() or 0)  # type: ignore[arg-type]
    first, count = longest["first_step"] or 0, longest["count"]
    counted = _global_step(run)
    if counted is not None:
        return Reached("steps", planned, *counted, source)
    every = max((longest["last_step"] - first) / max(count - 1, 1), 1.0)
    sure = _says_steps(run) or every > 1.5 or counts_planned_steps(run, planned, last + (first == 0))
    why = "" if sure else "the log counts one by one, which may be epochs or calls of the logger as well as steps"
    return Reached("steps", planned, last, math.ceil(every), source, sure, why)


def _says_steps(run: Run) -> bool:
    """Whether the format calls a step a step."""
    return run.format.split("+")[0] in _COUNTED


def _global_step(run: Run) -> tuple[float, float] | None:
    """The last step and the usual distance of two, where the log has the true step as a metric."""
    named = next((name for name in _GLOBAL if name in run.metrics), None)
    values = pl.Series([], dtype=pl.Float64) if named is None else run.series(named)["value"].drop_nans().drop_nulls()
    if values.is_empty():
        return None
    last, first = float(values.max()), float(values.min())  # type: ignore[arg-type]
    return last, max((last - first) / max(len(values) - 1, 1), 1.0)


def _epochs(run: Run, planned: float, longest: dict[str, Any]) -> Reached | None:
    """Epochs done: whole numbers that begin at 0 name the epoch that is going on."""
    source = run.planned.sources.get("epochs", "")
    values = _counted_epochs(run)
    if values is not None:
        first, last, whole = values
        done = last + 1 if whole and first < 1 else last
        return Reached("epochs", planned, done, 1.0 if whole else _fraction(last - first, longest["count"]), source)
    last_step, first_step = longest["last_step"], longest["first_step"]
    if last_step is None or longest["count"] < 2:
        return None
    rhythm = (last_step - first_step) / (longest["count"] - 1)
    done = last_step + (first_step == 0)
    near = abs(done - planned) <= _AN_EPOCH
    if rhythm != 1 or done > planned + _AN_EPOCH or (_says_steps(run) and not near):
        return None  # steps of something finer, of which nothing says how many make an epoch
    why = "the log counts one by one, which is taken for epochs"
    return Reached("epochs", planned, done, 1.0, source, near, why)


def _counted_epochs(run: Run) -> tuple[float, float, bool] | None:
    """First and last epoch, and whether all are whole numbers."""
    epoch = pl.col("epoch")
    told = run.lazy().select(
        first=epoch.min(), last=epoch.max(), whole=(epoch.drop_nulls() == epoch.drop_nulls().floor()).all()
    ).collect().row(0)  # fmt: skip
    if told[0] is None and "epoch" in run.metrics:
        values = run.series("epoch")["value"].drop_nans().drop_nulls()
        if len(values):
            told = values.min(), values.max(), bool((values == values.floor()).all())
    first, last, whole = told
    return None if first is None or not math.isfinite(last) else (float(first), float(last), bool(whole))


def _fraction(length: float, count: int) -> float:
    """Epochs between two records; the frameworks round what they print."""
    return max(length / max(count - 1, 1), 0.01)
