"""Eval values that a dense log carries forward: the last evaluation stands again on every row until the next one."""

from __future__ import annotations

from collections.abc import Mapping
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
from parsers.naming.roles import LOSSES
from parsers.run import Run

__all__ = ["Carried", "carried_values", "evaluations_of", "stale_values"]

KIND = "stale-values"
#: Fewest inner blocks (the first and the last may be cut) and the share of them that must hold several rows.
_BLOCKS, _SHARE = 5, 0.8
#: Neighbouring values lie this many times farther apart than the two nearest of all: a metric of so fine a grain does
#: not meet the same value twice in a row by itself, while one of coarse grain (accuracy on few samples, two decimals
#: of print) does all the time.
_GRAIN = 20.0
#: Blocks of one length, where the grain is coarse: so many of them, which blocks of chance lengths do not do.
_EQUAL, _COARSE = 10, 2.0
#: Lengths of chance are all multiples of one number in one of so many logs, at most.
_CHANCE = 1e6
#: A loss with digits this much finer than its changes, in blocks this long, is carried even where evaluations are few.
_DIGITS, _LONG = 1e4, 5
#: Share of repeats in the training loss from which on whole rows are written again, and nothing is carried in them.
_ROWS_TWICE = 0.2
#: More eval series than this say nothing new about how the log is written.
_MOST = 40
#: With fewer evaluations than this, `analysis.train_eval_gap` judges none: many rows must not hide that.
_FEW = 5


@dataclass(frozen=True, eq=False)
class Carried:
    """A series of carried values: `starts` are the rows at which a new value appears (the evaluations as far as one can
    tell), `rows` the length, `every` the usual rows of a block, `regular` whether nearly all blocks have this length,
    `monotone` whether values only ever improve or only ever worsen (a running best looks so).
    """

    starts: NDArray[np.int64]
    rows: int
    every: int
    regular: bool
    monotone: bool

    @property
    def repeats(self) -> int:
        """Rows that bring nothing new."""
        return self.rows - len(self.starts)


def carried_values(values: Floats, *, loss: bool = False) -> Carried | None:
    """The blocks of a series that repeats each value over several rows, or None where repeats have their own reasons.

    None for: a constant, a value that stands still only at the end, a coarse grain (rounded print, accuracy on few
    samples) unless its blocks all have one length, and a series in which blocks of one row are common. `loss` says that
    the values come of a mean of many digits: three blocks are then enough, if they are long. NaN equals NaN.

    >>> fresh = np.array([2.31, 1.87, 1.52, 1.61, 1.3, 1.21, 1.0, 1.12]) + np.pi / 1000
    >>> found = carried_values(np.repeat(fresh, 25), loss=True)
    >>> len(found.starts), found.every, found.repeats
    (8, 25, 192)
    >>> carried_values(np.round(np.linspace(0.5, 0.9, 200), 2)) is None
    True
    """
    if len(values) < 2:
        return None
    same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    starts = np.concatenate([[0], np.flatnonzero(~same) + 1])
    lengths = np.diff(np.append(starts, len(values)))
    inner = lengths[1:-1]
    told = values[starts]
    told = told[np.isfinite(told)]
    with np.errstate(over="ignore"):  # values near the largest float differ by infinity
        steps = np.diff(told)
    if len(inner) == 0 or len(told) < 3 or float((inner > 1).mean()) < _SHARE:
        return None
    every, equal = _rhythm(inner)
    if not _is_carried(told, np.abs(steps), inner, equal, loss):
        return None
    monotone = bool((steps > 0).all() or (steps < 0).all())
    return Carried(starts, len(values), every, equal, monotone)


def _rhythm(lengths: NDArray[np.int64]) -> tuple[int, bool]:
    """Rows from one evaluation to the next, and whether nearly all blocks keep to that.

    A block of two such lengths holds two evaluations that came out alike, as printed.
    """
    usual, common = int(np.median(lengths)), int(np.gcd.reduce(lengths))
    if common > 1 and (len(lengths) - 1) * np.log(common) >= np.log(_CHANCE):
        return common, True
    return usual, float((np.abs(lengths - usual) <= usual // 50).mean()) >= 0.9


def _is_carried(told: Floats, apart: Floats, inner: NDArray[np.int64], equal: bool, loss: bool) -> bool:
    usual, nearest = float(np.median(apart)), float(np.diff(np.unique(told)).min(initial=np.inf))
    if len(inner) >= _BLOCKS and usual >= _GRAIN * nearest and np.isfinite(nearest):
        return True
    if len(inner) >= _EQUAL and equal and usual >= _COARSE * nearest and np.ptp(apart) > 0:
        return True
    return loss and int(inner.min()) >= _LONG and usual >= _DIGITS * last_digit(told)


def evaluations_of(values: Floats, *, loss: bool) -> NDArray[np.int64]:
    """Rows at which something was evaluated: all of them, unless values are carried forward.

    >>> evaluations_of(np.array([3.0, 2.0, 1.0]), loss=True).tolist()
    [0, 1, 2]
    """
    found = carried_values(values, loss=loss)
    return np.arange(len(values)) if found is None or (found.monotone and not found.regular) else found.starts


def stale_values(run: Run) -> list[Fact] | str:
    """One fact for each eval split, about all its losses and scores; or why there is none."""
    rows = catalogue(run)
    scores = [row for row in rows if row["side"] != "train" and _is_score(row)]
    if not scores:
        return "no loss or score of an eval split was logged"
    if max(int(row["count"]) for row in scores) < 2 * _LONG:
        return "too few rows of every eval metric to see repeats"
    train = training(rows, "loss")
    loss = read_series(run, train) if train is not None else None
    facts = []
    for split in dict.fromkeys(str(row["split"]) for row in scores):
        longest = sorted((r for r in scores if r["split"] == split), key=lambda r: -int(r["count"]))[:_MOST]
        facts.append(_judge(run, split, [read_series(run, row) for row in longest], loss))
    return facts


def _is_score(row: Mapping[str, Any]) -> bool:
    """Losses and scores; a best so far is carried by its nature."""
    name = str(row["metric"]).lower()
    known = row["role"] in LOSSES or row["role"] in ("accuracy", "reward", "error_rate")
    return known and not any(word in name for word in ("best", "lowest", "highest"))


def _judge(run: Run, split: str, series: list[Series], train: Series | None) -> Fact:
    found: list[tuple[Series, Carried]] = []
    for one in series:
        carried = carried_values(one.value, loss=run.roles.is_loss(one.metric, one.split))
        if carried is not None and not (train is not None and _rows_again(one, carried, train)):
            found.append((one, carried))
    # what only ever improves, at odd rows, may be a best so far; beside one that does not it is an evaluation
    if not any(carried.regular or not carried.monotone for _, carried in found):
        first = series[0]
        return Fact(KIND, "clear", split, first.metric, len(first.value), 0, None, "every row has a value of its own")
    main, carried = min(
        found, key=lambda f: (not run.roles.is_loss(f[0].metric, f[0].split), -len(f[1].starts), f[0].metric)
    )
    finding = _finding(run, main, carried, [c for _, c in found])
    marked = np.zeros(carried.rows, bool)
    marked[carried.starts] = True
    drawn = Drawn(main.x, main.value, marked, main.axis, main.name, "evaluations")
    return Fact(
        KIND,
        "found",
        split,
        main.metric,
        carried.rows,
        len(carried.starts),
        float(carried.every),
        finding.message,
        finding,
        drawn,
    )


def _rows_again(series: Series, carried: Carried, train: Series) -> bool:
    """Whether the training loss repeats in the same rows: then the rows themselves are written several times."""
    if series.axis == train.axis and series.axis != "record":
        place = np.searchsorted(train.x, series.x, "right") - 1
        if (place < 0).all() or not (np.diff(train.x) >= 0).all():
            return False
        value = np.where(place >= 0, train.value[np.maximum(place, 0)], np.nan)
        own = np.where(place >= 0, train.x[np.maximum(place, 0)], np.nan) == series.x
    elif len(series.value) == len(train.value):
        value, own = train.value, np.ones(len(train.value), bool)
    else:
        return False
    inside = np.ones(carried.rows, bool)
    inside[carried.starts] = False
    pairs = inside[1:] & own[1:] & own[:-1]
    return bool(pairs.any()) and float((value[1:] == value[:-1])[pairs].mean()) >= _ROWS_TWICE


def _finding(run: Run, main: Series, carried: Carried, all_carried: list[Carried]) -> Finding:
    evaluations = len(carried.starts)
    together = sum(len(np.setdiff1d(c.starts, carried.starts)) == 0 for c in all_carried if c.rows == carried.rows)
    few = evaluations < _FEW <= carried.rows
    every = f"every {ordinal(carried.every)} row" if carried.regular else f"about every {ordinal(carried.every)} row"
    return Finding(
        KIND,
        "warning" if few else "info",
        run.name,
        f"{main.name} stands on {carried.rows:,} rows but was evaluated {evaluations:,} times ({every}); "
        f"the other {carried.repeats:,} rows repeat the last value",
        metric=main.metric,
        first_step=whole(main.step[0]),
        last_step=whole(main.step[-1]),
        evidence={
            "split": main.split,
            "rows": carried.rows,
            "evaluations": evaluations,
            "repeats": carried.repeats,
            "rows_per_evaluation": carried.every,
            "regular": carried.regular,
            "metrics": len(all_carried),
            "metrics_that_change_together": together,
        },
        causes=("the loop logs the last eval value with every row until the next evaluation (repeats)",),
        suggestions=(
            "log eval metrics only on the rows where they were computed",
            "count evaluations and not rows where a patience, a smoothing or a test over eval values is set",
        ),
    )
