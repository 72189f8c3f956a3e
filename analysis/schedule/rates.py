"""The learning rates of a run, a series a group of parameters: steps, values, attempts, and how finely printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.hidden.epochs import steps_are_epochs
from parsers.naming.roles import words_of
from parsers.run import Run

__all__ = ["Floats", "Rate", "Surroundings", "half_digits", "rates_of", "surroundings_of"]

Floats = NDArray[np.float64]

_COLUMNS = ("rank", "attempt", "step", "epoch", "split", "metric", "tag", "value")
_GROUP = re.compile(r"(?:pg|(?:param(?:eter)?_?)?group)s?[_/.-]?(\d+)$|[_/.-](\d+)$", re.IGNORECASE)
#: A share of the peak instead of the rate itself, as nanochat's `lrm`; and rates that were logged as logarithms.
_MULTIPLIER = re.compile(r"\b(?:lrm|multiplier|mult|scale|factor|ratio)\b")
_LOGARITHM = re.compile(r"\blog(?:10|2)?\b(?! [a-z]*/)")
#: Formats that hold numbers as they were; others hold what was printed of them.
_EXACT = frozenset({"aftertrain", "tensorboard", "huggingface", "wandb", "mlflow", "parquet"})
#: Fewer different values than this do not show to how many digits they were printed.
_TELLING = 4
_ACCUMULATION = re.compile(r"(?:^|[/.])(?:gradient_accumulation(?:_steps)?|accumulate_grad_batches|grad_accum\w*)$")
_PROCESSES = re.compile(r"(?:^|[/.])(?:world_size|num_processes|n_gpus?|num_gpus|num_devices|processes)$")


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """One learning rate over the live branch, in the order of its steps; `steps` are row numbers where none are known.

    `half_digit` is by how much each value may be off because it was printed with few digits (0 where it was not).
    `axis` is `step`, `epoch` (the log counts epochs and nothing finer) or `record` (it counts nothing).
    """

    split: str
    metric: str
    group: str
    axis: str
    steps: Floats
    values: Floats
    attempts: NDArray[np.int64]
    half_digit: Floats
    non_finite: int
    steps_per_epoch: float | None
    multiplier: bool

    @property
    def name(self) -> str:
        """Split and metric, as a message says them."""
        return f"{self.split} {self.metric}".strip()

    def step_at(self, row: int) -> int | None:
        """Step of a row; None where the log counts none."""
        return int(self.steps[row]) if self.axis != "record" else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Numbers of the run that explain a schedule which was stepped too often, or not often enough."""

    accumulation: int | None = None
    processes: int | None = None


def rates_of(run: Run) -> tuple[Rate, ...]:
    """The learning rates of the training, of the lowest rank, groups of parameters apart, in the order of the log."""
    tags = [one.tag for one in run.roles if one.role == "learning_rate" and one.side == "train"]
    if not tags:
        return ()
    rows = run.lazy().filter(pl.col("tag").is_in(tags)).select(_COLUMNS).collect()
    if rows["value"].null_count():  # asked of the log itself, this would have all its series read
        rows = rows.filter(pl.col("value").is_not_null())
    if rows["rank"].n_unique() > 1:
        rows = rows.filter(pl.col("rank") == pl.col("rank").min())
    if run.last_attempt:
        rows = run.live(rows)
    parts = rows.group_by("split", "tag", maintain_order=True)
    found = [_rate(part, run.format in _EXACT) for _, part in parts]
    return tuple(rate for rate in found if not _LOGARITHM.search(words_of(rate.metric)))


def _rate(part: pl.DataFrame, exact: bool) -> Rate:
    first = part.row(0, named=True)
    metric, split = str(first["metric"]), str(first["split"] or "")
    stepped = part.filter(pl.col("step").is_not_null())
    axis = "step" if stepped.height * 2 > part.height else "record"
    part = stepped.sort("step", maintain_order=True) if axis == "step" else part
    steps = part["step"].cast(pl.Float64).to_numpy() if axis == "step" else np.arange(float(part.height))
    epochs = part["epoch"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    per_epoch = None
    if axis == "step" and np.isfinite(epochs).all() and len(epochs):
        axis = "epoch" if steps_are_epochs(steps, epochs) else axis
        per_epoch = _steps_per_epoch(steps, epochs) if axis == "step" else None
    elif axis == "record" and len(epochs) and np.isfinite(epochs).all() and bool((np.diff(epochs) > 0).all()):
        axis, steps = "epoch", epochs
    values = part["value"].to_numpy()
    keep = np.isfinite(values)
    return Rate(
        split=split,
        metric=metric,
        group=_group(metric),
        axis=axis,
        steps=steps[keep],
        values=values[keep],
        attempts=part["attempt"].cast(pl.Int64).to_numpy()[keep],
        half_digit=half_digits(values[keep], exact=exact),
        non_finite=int((~keep).sum()),
        steps_per_epoch=per_epoch,
        multiplier=bool(_MULTIPLIER.search(words_of(metric))),
    )


def _group(metric: str) -> str:
    found = _GROUP.search(metric)
    return "" if found is None else next(number for number in found.groups() if number)


def _steps_per_epoch(steps: Floats, epochs: Floats) -> float | None:
    """Steps of an epoch, from counts that grow together; None where they do not."""
    if len(steps) < 3 or epochs[-1] <= epochs[0] or steps[-1] <= steps[0]:
        return None
    if (epochs == np.floor(epochs)).all():  # whole epochs: their first steps tell, and the first may have begun before
        begins = steps[np.flatnonzero(np.diff(epochs, prepend=epochs[0]) > 0)]
        return float(np.median(np.diff(begins))) if len(begins) >= 2 else None
    return float((steps[-1] - steps[0]) / (epochs[-1] - epochs[0]))


def half_digits(values: Floats, *, exact: bool = False) -> Floats:
    """By how much each value may be off since it was printed: half of its last digit, 0 for numbers in full.

    The number of digits is that of the value with the most, of those after the point and of the significant ones
    alike. Few different values (below 4) do not tell, and count as printed unless `exact`.

    >>> half_digits(np.array([0.0003, 0.0002, 0.0001, 0.0, 0.0004]))
    array([5.e-05, 5.e-05, 5.e-05, 5.e-05, 5.e-05])
    >>> half_digits(np.array([1 / 3, 2 / 3])).tolist()
    [0.0, 0.0]
    """
    different = np.unique(values[:: max(len(values) // 2000, 1)])
    if exact and len(different) < _TELLING:
        return np.zeros(len(values))
    sample = different[:: max(len(different) // 256, 1)]
    places, digits = 0, 1
    for value in sample.tolist():
        mantissa, _, exponent = f"{abs(value):.6e}".partition("e")
        figures = len(mantissa.rstrip("0").replace(".", ""))
        if value:
            places, digits = max(places, figures - 1 - int(exponent)), max(digits, figures)
    if digits >= 6:  # nobody prints so many on purpose: these are the numbers themselves
        return np.zeros(len(values))
    fixed = 0.5 * 10.0**-places if 3 <= places <= 8 else 0.0
    if len(different) < _TELLING:
        return np.full(len(values), min(fixed, float(np.abs(values).max(initial=0.0))))
    with np.errstate(divide="ignore"):
        magnitude = np.floor(np.log10(np.abs(values)))
    relative = np.where(values == 0, 0.0, 0.5 * 10.0 ** (np.where(np.isfinite(magnitude), magnitude, 0) - digits + 1))
    return np.asarray(np.maximum(relative, fixed), dtype=np.float64)


def surroundings_of(run: Run) -> Surroundings:
    """Accumulation and number of processes, as the plan and the configuration say them."""
    planned = run.planned.accumulation
    known: dict[str, int] = {} if planned is None or planned < 2 else {"accumulation": planned}
    for path, value in _leaves(run.config):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value < 1e5 or value != int(value):
            continue
        for name, pattern in (("accumulation", _ACCUMULATION), ("processes", _PROCESSES)):
            if pattern.search(path):
                known.setdefault(name, int(value))
    return Surroundings(known.get("accumulation"), known.get("processes"))


def _leaves(config: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            if depth < 8:  # settings of people are not nested deeper; those of an attacker may be
                yield from _leaves(value, path.lower(), depth + 1)
        else:
            yield path.lower(), value
