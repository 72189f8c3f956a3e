"""A training loss that reads finite where it was NaN: filtered to 0 or to the last value by the logger.

For a step whose loss is NaN or infinite, the Trainer of transformers (`logging_nan_inf_filter`, on by default) adds no
NaN but the sum so far, divided by one more than the steps since the last row. At the first step of a row that is 0, so
that a row without a sound step reads exactly 0.0. A row with sound steps among its own reads low by a share of up to
1 / steps, which noise hides: only what lasts to the end of a row shows, in the gradient norm (that of the row's last
step), or in a row that is 0 altogether.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.findings import Finding, Severity
from analysis.hidden.facts import Drawn, Fact, Floats, Series, catalogue, read_series, training, whole
from parsers.run import Run

__all__ = ["Hidden", "hidden_nan", "hidden_rows"]

Mask = NDArray[np.bool_]
KIND = "hidden-non-finite"
#: Rows with a sound gradient may read 0 (or repeat) in up to this share, before 0 (a repeat) stops being a sign.
_NATURAL = 0.01
#: Fewest rows of a state that lasts.
_LASTS = 3
#: A loss fell to 0 out of the blue when its last values before were all at least this (logs round to 0.0001).
_HIGH, _BEFORE = 0.01, 10
#: What the metrics of transformers' Trainer are called in other people's logs (TensorBoard, W&B).
_TRAINER_TAGS = {"train/loss", "train/learning_rate", "train/epoch"}


@dataclass(frozen=True, eq=False)
class Hidden:
    """Rows of a loss that hide something. `zero`: exactly 0 beside a gradient norm that is not finite. `held`: the
    value before, bit by bit, beside such a norm. `partly`: rows right before those, with such a norm and a loss of
    their own (some of their steps were still sound). `empty`: exactly 0 out of the blue, with a norm of 0 or none.
    """

    zero: Mask
    held: Mask
    partly: Mask
    empty: Mask

    @property
    def certain(self) -> Mask:
        """Rows that only a loss that was not finite explains."""
        found: Mask = self.zero | self.held | self.partly
        return found


def hidden_rows(loss: Floats, norm: Floats, known: Mask) -> Hidden:
    """Which rows of `loss` hide a value that was not finite; `norm` is the gradient norm where `known`, of one length.

    Infinite norms beside a loss that goes on are what a loss scaler of mixed precision leaves, and are no sign.

    >>> rows = hidden_rows(np.array([2.0, 1.9, 0.0, 0.0]), np.array([1.0, 1.0, np.nan, np.nan]), np.ones(4, bool))
    >>> rows.zero.tolist(), rows.empty.tolist()
    ([False, False, True, True], [False, False, False, False])
    """
    broken = known & ~np.isfinite(norm)
    sound = known & np.isfinite(norm) & (norm != 0)
    repeats = np.zeros(len(loss), bool)
    repeats[1:] = (loss[1:] == loss[:-1]) & (loss[1:] != 0)
    zero = broken & (loss == 0) & _is_rare((loss == 0)[sound])
    held = _runs(broken & repeats, _LASTS) & _is_rare(repeats[sound])
    hidden = zero | held
    partly = np.zeros(len(loss), bool)
    for place in np.flatnonzero(hidden[1:] & ~hidden[:-1]) + 1:
        before = place - 1
        while before >= 0 and broken[before] and not hidden[before] and np.isfinite(loss[before]):
            partly[before] = True
            before -= 1
    return Hidden(zero, held, partly, _out_of_the_blue(loss, (loss == 0) & (~known | (norm == 0))))


def _is_rare(seen: Mask) -> bool:
    return not len(seen) or float(seen.mean()) <= _NATURAL


def _runs(mask: Mask, least: int) -> Mask:
    """Rows of `mask` that stand in runs of at least `least`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    kept = np.zeros(len(mask), bool)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        kept[start:stop] = stop - start >= least
    return kept


def _out_of_the_blue(loss: Floats, zero: Mask) -> Mask:
    """Rows of `zero` whose last values before were far from 0, in a loss that is positive otherwise."""
    other = np.flatnonzero(np.isfinite(loss) & (loss != 0))
    rare = np.zeros(len(loss), bool)
    if len(other) < _BEFORE or (loss[other] < 0).any():
        return rare
    for place in np.flatnonzero(zero):
        before = other[max(np.searchsorted(other, place) - _BEFORE, 0) : np.searchsorted(other, place)]
        rare[place] = len(before) >= min(_BEFORE, 3) and loss[before].min() >= _HIGH
    return rare


def hidden_nan(run: Run) -> list[Fact] | str:
    """The fact of the run's training loss, or why it cannot be judged."""
    rows = catalogue(run)
    row, norm_row = training(rows, "loss"), training(rows, "grad_norm")
    if row is None:
        return "no training loss was logged"
    trainer = _by_trainer(run, rows)
    if norm_row is None and not trainer:
        return "no gradient norm stands beside the training loss"
    loss = read_series(run, row)
    norm, known = _beside(loss, read_series(run, norm_row)) if norm_row is not None else _unknown(loss)
    if not known.any() and not trainer:
        return "the gradient norm and the training loss share no row"
    return [_judged(run, loss, norm, known, trainer, rows)]


def _by_trainer(run: Run, rows: list[dict[str, Any]]) -> bool:
    tags = {str(row["tag"]) for row in rows}
    named = "logging_nan_inf_filter" in run.config
    return run.format.startswith("huggingface") or named or tags >= _TRAINER_TAGS


def _unknown(loss: Series) -> tuple[Floats, Mask]:
    return np.full(len(loss.value), np.nan), np.zeros(len(loss.value), bool)


def _beside(loss: Series, norm: Series) -> tuple[Floats, Mask]:
    """Gradient norm at the rows of the loss (by step, else by row where they are as many), and where it is known."""
    if loss.axis == "step" == norm.axis:
        if np.array_equal(loss.step, norm.step) and (np.diff(loss.step) > 0).all():  # as nearly every log has them
            return norm.value, np.ones(len(norm.value), bool)
        left = pl.DataFrame({"step": loss.step})
        right = pl.DataFrame({"step": norm.step, "norm": norm.value}).unique("step", keep="last")
        found = left.join(right.with_columns(known=True), on="step", how="left", maintain_order="left")
        return found["norm"].fill_null(float("nan")).to_numpy(), found["known"].fill_null(value=False).to_numpy()
    if len(loss.value) == len(norm.value):
        return norm.value, np.ones(len(norm.value), bool)
    return _unknown(loss)


def _judged(run: Run, loss: Series, norm: Floats, known: Mask, trainer: bool, rows: list[dict[str, Any]]) -> Fact:
    hidden = hidden_rows(loss.value, norm, known)
    spacing = _spacing(loss)
    marked, finding = hidden.certain, None
    if marked.any():
        finding = _certain(run, loss, norm, hidden, trainer, spacing)
    elif trainer and hidden.empty.any():
        marked = hidden.empty
        finding = _likely(run, loss, marked, known, spacing, _eval_broken(run, rows))
    if finding is None:
        detail = "no row reads finite where the loss was not"
        if spacing > 1:
            detail += f"; a row stands for {spacing} steps, and what did not last to a row's end is not visible"
        if not known.any():
            detail += "; there is no gradient norm, so only a loss that fell to 0 would show"
        return Fact(KIND, "clear", loss.split, loss.metric, len(loss.value), 0, float(spacing), detail)
    drawn = Drawn(loss.x, loss.value, marked, loss.axis, loss.name, "rows that hide a NaN")
    count = int(marked.sum())
    return Fact(
        KIND, "found", loss.split, loss.metric, len(marked), count, float(spacing), finding.message, finding, drawn
    )


def _spacing(loss: Series) -> int:
    """Steps that a row stands for: the usual distance of rows, 1 where there are no steps."""
    ahead = np.diff(loss.step)
    return max(int(np.median(ahead[ahead > 0])), 1) if (ahead > 0).any() else 1


def _eval_broken(run: Run, rows: list[dict[str, Any]]) -> int:
    """Rows of the eval losses that are not finite."""
    return sum(int(r["non_finite"]) for r in rows if r["side"] in ("eval", "test") and r["role"] == "loss")


def _where(loss: Series, marked: Mask) -> tuple[int | None, int | None, str]:
    places = loss.step[marked]
    first, last = whole(places[0]), whole(places[-1])
    said = f"row {int(np.flatnonzero(marked)[0]) + 1}" if first is None else f"step {first}"
    return first, last, f"from {said} to the end" if marked[-1] and marked.sum() > 1 else f"first at {said}"


def _certain(run: Run, loss: Series, norm: Floats, hidden: Hidden, trainer: bool, spacing: int) -> Finding:
    marked = hidden.certain
    first, last, where = _where(loss, marked)
    sound = np.flatnonzero(np.isfinite(norm) & (loss.value != 0))
    sound = sound[sound < np.flatnonzero(marked)[0]]
    last_sound = whole(loss.step[sound[-1]]) if len(sound) else None
    what = "NaN" if np.isnan(norm[marked]).all() else "NaN or infinite"
    reads = "exactly 0" if hidden.zero.any() else "the value before, unchanged,"
    count = int((hidden.zero | hidden.held).sum())
    return Finding(
        KIND,
        "warning",
        run.name,
        f"the {loss.name} reads {reads} in {count} of {len(marked)} rows where the gradient norm is {what}, {where}: "
        "the loss itself was not finite there, and the log hides it",
        metric=loss.metric,
        first_step=first,
        last_step=last,
        evidence={
            "rows": len(marked),
            "zero_rows": int(hidden.zero.sum()),
            "repeated_rows": int(hidden.held.sum()),
            "partly_filtered_rows": int(hidden.partly.sum()),
            "steps_per_row": spacing,
            "last_sound_step": last_sound,
        },
        causes=_causes(run, trainer, hidden),
        suggestions=(
            "go back to the last checkpoint before the last sound step: the weights after it are probably not finite",
            "set logging_nan_inf_filter=False, so that the loss shows what happens"
            if trainer
            else "log the loss before anything replaces it",
            "look at the batches since the last sound step; lower the learning rate; use bfloat16, not float16",
        ),
    )


def _causes(run: Run, trainer: bool, hidden: Hidden) -> tuple[str, ...]:
    if trainer and run.config.get("logging_nan_inf_filter") is not False and hidden.zero.any():
        named = "configured" if run.config.get("logging_nan_inf_filter") is True else "on by default"
        return (f"transformers' Trainer replaces NaN by the mean of the row so far (logging_nan_inf_filter, {named})",)
    if hidden.zero.any():
        return ("the training code writes 0 for a loss that is not finite, or skips it in a sum (zero_rows)",)
    return ("the training code keeps the last finite loss where the new one is not (repeated_rows)",)


def _likely(run: Run, loss: Series, marked: Mask, known: Mask, spacing: int, eval_broken: int) -> Finding | None:
    """Zeros out of the blue where the gradient norm is 0 or unknown: certain only beside an eval loss that is NaN."""
    lasting = bool(marked[-1]) and int(np.argmin(marked[::-1]) if not marked.all() else len(marked)) >= _LASTS
    if not lasting and not known[marked].all():
        return None
    first, last, where = _where(loss, marked)
    norm = "and the gradient norm too" if known[marked].all() else "and no gradient norm was logged"
    verdict = "an empty batch or a hidden NaN"
    severity: Severity = "info"
    if lasting:
        severity = "warning"
        verdict = "probably a NaN that the log hides"
        if eval_broken:
            verdict = "the eval loss is not finite either, so this is a NaN that the log hides"
    return Finding(
        KIND,
        severity,
        run.name,
        f"the {loss.name} falls to exactly 0 in {int(marked.sum())} of {len(marked)} rows, {norm}, {where}: {verdict}",
        metric=loss.metric,
        first_step=first,
        last_step=last,
        evidence={
            "rows": len(marked),
            "zero_rows": int(marked.sum()),
            "lasting": lasting,
            "steps_per_row": spacing,
            "eval_losses_not_finite": eval_broken,
        },
        causes=(
            "transformers' Trainer writes 0 for a row whose losses were all NaN (logging_nan_inf_filter)",
            "batches in which no token carries a label",
        ),
        suggestions=(
            "set logging_nan_inf_filter=False and train over these steps again",
            "count the labels of these batches that are not ignored",
        ),
    )
