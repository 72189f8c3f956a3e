"""Steps that count micro-batches: rows come at every step, but the learning rate moves only at every k-th of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Finding
from analysis.hidden.facts import (
    Drawn,
    Fact,
    Floats,
    Series,
    catalogue,
    last_digit,
    ordinal,
    read_series,
    training,
    whole,
)
from analysis.integrity.rhythm import usual_step
from parsers.run import Run

__all__ = ["Stairs", "accumulation", "micro_batches", "stairs_of"]

KIND = "micro-batch-steps"
#: Fewest changes that make stairs, and the share of stairs that must be equally wide.
_STAIRS, _SHARE = 12, 0.95
#: A change of the learning rate smaller than so many units of the last digit written is a matter of the print.
_DIGITS = 3.0
#: Share of the changes that fall on the beginning of an epoch, from which on the schedule is one of epochs.
_EPOCHS = 0.8
#: Widest stairs that are taken for micro-batches where neither configuration nor epochs say it.
_WIDEST = 256
_ACCUMULATION = re.compile(
    r"(gradient|grad)_?accum(ulation|ulate)?(_steps|_iters?|_iter)?|accumulate_grad(_batches|ients)?|"
    r"accum(ulation)?_(steps?|iters?|grad)|update_freq|iter_size|acc_grad_iter"
)
_MAX_STEPS = re.compile(r"max_steps|max_iters?|max_updates?|total_steps|num_training_steps|num_train_steps")


@dataclass(frozen=True, eq=False)
class Stairs:
    """Values that change at `starts` only, nearly always `width` rows apart."""

    starts: NDArray[np.int64]
    width: int


def stairs_of(values: Floats) -> Stairs | None:
    """The stairs of a learning rate, or None: where it changes at every row, seldom, or at uneven distances.

    A step decay (a few long stairs), a rounded print (stairs of one last digit, or of uneven width) and a constant are
    none. Rows before the first and after the last change do not count, nor does a long rest between (a plateau).

    >>> stairs_of(np.repeat(1e-3 * 0.97 ** np.arange(30), 4)).width
    4
    >>> stairs_of(1e-3 * 0.99 ** np.arange(120)) is None
    True
    """
    if len(values) < 2 * _STAIRS or not np.isfinite(values).all():
        return None
    starts = np.flatnonzero(values[1:] != values[:-1]) + 1
    wide = np.diff(starts)
    if len(wide) < _STAIRS:
        return None
    width = int(np.median(wide))
    if width < 2 or float((wide == width).mean()) < _SHARE:
        return None
    change = np.abs(np.diff(values[starts]))
    return Stairs(starts, width) if float(np.median(change)) >= _DIGITS * last_digit(values[starts]) else None


def accumulation(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """Name and number of the batches that the configuration says make one update; None where it says nothing.

    >>> accumulation({"train": {"gradient_accumulation_steps": 8}})
    ('gradient_accumulation_steps', 8)
    """
    found = [(name, value) for name, value in _whole_numbers(config) if _ACCUMULATION.fullmatch(name.lower())]
    return found[0] if found and len({value for _, value in found}) == 1 else None


def _whole_numbers(config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, int]]:
    """Names (the last part of a path) and values of the positive whole numbers in a configuration."""
    for key, value in config.items():
        name = re.split(r"[./]", str(key))[-1]
        if isinstance(value, Mapping):
            if set(value) <= {"value", "desc"} and type(value.get("value")) is int:  # as W&B writes them
                value = value["value"]
            elif depth < 6:
                yield from _whole_numbers(value, depth + 1)
        if type(value) is int and value > 0:
            yield name, value


def micro_batches(run: Run) -> list[Fact] | str:
    """The fact of the run's learning rate and configuration, or why neither can tell."""
    rows = catalogue(run)
    told = accumulation(run.config)
    row = training(rows, "learning_rate")
    lr = read_series(run, row) if row is not None else None
    if lr is None or lr.axis != "step" or len(lr.value) < 2 * _STAIRS:
        planned = _by_plan(run, rows, told)
        return [planned] if planned is not None else _why_not(lr)
    if told is not None and told[1] == 1:
        return [_clear(lr, f"{told[0]} is 1")]
    rhythm = usual_step(lr.step.astype(np.int64))
    stairs = stairs_of(lr.value) if rhythm else None
    if stairs is None or rhythm is None:
        return [_by_plan(run, rows, told) or _clear(lr, "the learning rate does not stand still at a regular rhythm")]
    return [_judge(run, lr, stairs, rhythm, told, rows)]


def _why_not(lr: Series | None) -> str:
    if lr is None:
        return "no learning rate was logged"
    if lr.axis != "step":
        return "the learning rate has no steps"
    return f"the learning rate has {len(lr.value)} rows; {2 * _STAIRS} are needed to see a rhythm"


def _clear(series: Series, detail: str) -> Fact:
    return Fact(KIND, "clear", series.split, series.metric, len(series.value), 0, None, detail)


def _judge(
    run: Run, lr: Series, stairs: Stairs, rhythm: int, told: tuple[str, int] | None, rows: list[dict[str, Any]]
) -> Fact:
    every = stairs.width * rhythm
    if told is not None and told[1] != every:
        return _clear(lr, f"the learning rate changes every {every} steps, and {told[0]} is {told[1]}")
    epochs = _share_at_epochs(lr, stairs)
    if told is None and epochs is not None and epochs >= _EPOCHS:
        return _clear(lr, f"the learning rate changes once an epoch ({stairs.width} rows)")
    norm = _norm_every(lr, training(rows, "grad_norm"), run)
    if told is None and epochs is None and norm != every and stairs.width > _WIDEST:
        return _clear(lr, f"the learning rate changes every {every:,} steps, as schedules of epochs do")
    finding = _finding(run, lr, stairs, every, told, epochs, norm)
    marked = np.zeros(len(lr.value), bool)
    marked[stairs.starts] = True
    near = slice(0, stairs.starts[0] + 12 * stairs.width)  # the whole would show a smooth curve
    drawn = Drawn(lr.x[near], lr.value[near], marked[near], lr.axis, lr.name, "changes")
    count = len(stairs.starts)
    return Fact(KIND, "found", lr.split, lr.metric, len(marked), count, float(every), finding.message, finding, drawn)


def _share_at_epochs(lr: Series, stairs: Stairs) -> float | None:
    """Share of the changes at the first row of an epoch (or the last of the one before); None without epochs."""
    if not np.isfinite(lr.epoch).all() or lr.epoch[-1] - lr.epoch[0] <= 0:
        return None
    begins = np.flatnonzero(np.diff(np.floor(lr.epoch)) > 0) + 1
    near = np.isin(stairs.starts, np.concatenate([begins - 1, begins, begins + 1]))
    # stairs so narrow that every change is near some epoch's beginning say nothing of epochs
    return float(near.mean()) if stairs.width > 3 else float(np.isin(stairs.starts, begins).mean())


def _norm_every(lr: Series, row: dict[str, Any] | None, run: Run) -> int | None:
    """Steps between rows of the gradient norm, where it is logged more seldom than the learning rate."""
    if row is None or int(row["count"]) >= len(lr.value):
        return None
    norm = read_series(run, row)
    return usual_step(norm.step.astype(np.int64)) if norm.axis == "step" else None


def _finding(
    run: Run, lr: Series, stairs: Stairs, every: int, told: tuple[str, int] | None, epochs: float | None,
    norm: int | None,
) -> Finding:  # fmt: skip
    count = len(stairs.starts)
    seen = f"{lr.metric} changes only at every {ordinal(stairs.width)} row ({count:,} times, every {every} steps)"
    both = f"; the gradient norm comes every {every} steps too" if norm == every else ""
    if told is not None:
        verdict = f"{told[0]} is {told[1]}: steps count micro-batches, and {every} of them make one update"
    elif norm == every or epochs is not None:
        verdict = f"steps probably count micro-batches, and {every} of them make one update"
    else:
        verdict = f"either {every} micro-batches make one update, or the schedule goes by epochs of {every} steps"
    return Finding(
        KIND,
        "info",
        run.name,
        f"{seen}{both}: {verdict}",
        metric=lr.metric,
        first_step=whole(lr.step[0]),
        last_step=whole(lr.step[-1]),
        evidence={
            "steps_per_update": every,
            "rows_per_update": stairs.width,
            "updates_seen": count,
            **({} if told is None else {"accumulation_configured": told[1]}),
            **({} if epochs is None else {"changes_at_epochs": epochs}),
            **({} if norm is None else {"grad_norm_every_steps": norm}),
        },
        causes=_causes(told, epochs, norm, every),
        suggestions=_suggestions(every),
    )


def _causes(told: tuple[str, int] | None, epochs: float | None, norm: int | None, every: int) -> tuple[str, ...]:
    accumulate = f"gradients are accumulated over {every} batches while the step counts batches (steps_per_update)"
    if told is not None or epochs is not None or norm == every:
        return (accumulate,)
    return (accumulate, f"the scheduler is stepped once an epoch of {every} steps")


def _suggestions(every: int) -> tuple[str, ...]:
    return (
        f"divide steps by {every} before you compare them with a plan, a schedule or another run",
        "log optimiser steps as the step, and batches beside them",
    )


def _by_plan(run: Run, rows: list[dict[str, Any]], told: tuple[str, int] | None) -> Fact | None:
    """Steps that end where accumulation times the planned number of updates says: they count micro-batches."""
    row, last = training(rows, "loss"), run.last_step
    planned = {value for name, value in _whole_numbers(run.config) if _MAX_STEPS.fullmatch(name.lower())}
    if row is None or last is None or told is None or told[1] == 1 or len(planned) != 1:
        return None
    updates = planned.pop()
    if updates < 10 or abs(last + 1 - told[1] * updates) > max(told[1], last // 100):
        return None
    finding = Finding(
        KIND,
        "info",
        run.name,
        f"the log ends at step {last:,}, {told[1]} times the {updates:,} updates that are configured, and {told[0]} is "
        f"{told[1]}: steps count micro-batches",
        metric=str(row["metric"]),
        first_step=row["first_step"],
        last_step=row["last_step"],
        evidence={
            "steps_per_update": told[1],
            "last_step": last,
            "updates_configured": updates,
            "accumulation_configured": told[1],
        },
        causes=(f"gradients are accumulated over {told[1]} batches while the step counts batches",),
        suggestions=_suggestions(told[1]),
    )
    loss = read_series(run, row)
    marked = loss.x == loss.x[int(np.argmin(np.abs(loss.x - updates)))]
    drawn = Drawn(loss.x, loss.value, marked, loss.axis, loss.name, f"{updates:,}, the updates configured")
    points, every = len(loss.value), float(told[1])
    return Fact(KIND, "found", loss.split, loss.metric, points, updates, every, finding.message, finding, drawn)
