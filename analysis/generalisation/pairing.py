"""Which series of a run belong together: the same metric on train and on eval, brought onto one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.generalisation.smoothing import smooth_at
from analysis.hidden.carried import evaluations_of
from parsers.naming.role_layout import SeriesRole, plain_name
from parsers.naming.roles import LOSSES
from parsers.run import Run

__all__ = ["OVERFLOWN", "Pair", "find_pairs", "shared_name"]

Floats = NDArray[np.float64]
#: Adversarial terms have no reason to fall, on train or on eval: they are `analysis.gan`'s matter. Nor have policies.
_ADVERSARIAL = {"generator_loss", "discriminator_loss", "policy_loss"}
_MORE_IS_BETTER = {"accuracy", "reward"}
#: Roles that make pairs of themselves: their direction is known.
_PAIRED = (LOSSES - _ADVERSARIAL) | _MORE_IS_BETTER | {"error_rate"}
_Row = tuple[dict[str, object], SeriesRole]
#: Beyond this a value is what overflow left and no measurement (below its inverse it is 0): squares and ratios stay in
#: range. NaN and infinities go with it.
OVERFLOWN = 1e100
#: More pairs than any person reads; the first ones, by importance, are kept.
_MOST_PAIRS = 50
#: Evals within so small a share of the train's steps are counted in another unit (epochs).
_OTHER_UNIT = 0.05


@dataclass(frozen=True, eq=False)
class Pair:
    """One metric on train and eval: x rises strictly, values are finite, `train` is smoothed at the eval points.

    `axis` is step, epoch or record; `step` and `epoch` are those of the eval points, NaN where unknown. `lower` says
    that smaller is better. `train_x`, `train_raw` are the training series as logged, one value a place.
    """

    metric: str
    split: str
    lower: bool
    axis: str
    x: Floats
    eval: Floats
    train: Floats
    step: Floats
    epoch: Floats
    train_x: Floats
    train_raw: Floats


def shared_name(metric: str) -> str:
    """The name under which train and eval meet: lower case, without Lightning's `_step` and `_epoch`.

    >>> shared_name("Loss_epoch"), shared_name("loss")
    ('loss', 'loss')
    """
    return plain_name(metric)


def find_pairs(run: Run, metric: str | None = None) -> tuple[list[Pair], list[str]]:
    """Pairs of the run, the most telling first, and why others could not be made (one sentence each).

    Train is the split `train` or none, eval the split `eval`, else `test`, else any other, unless the roles of the run
    say otherwise; of several series the longest is taken, of the first rank. Only losses and metrics of known direction
    make pairs unless `metric` names one. What the user names as train_loss or eval_loss is one pair, whatever the
    names.

    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 3 + ["eval_loss"] * 2, "step": [1, 2, 3, 1, 3], "value": [3.0] * 5})
    >>> pairs, why_not = find_pairs(finish("r", "r", "jsonl", rows))
    >>> [(p.metric, p.split, p.axis, len(p.x)) for p in pairs], why_not
    ([('loss', 'eval', 'step', 2)], [])
    """
    pairs: list[Pair] = []
    problems: list[str] = []
    for train, evaluated in _candidates(run, metric)[:_MOST_PAIRS]:
        made = _pair(run, train, evaluated)
        if isinstance(made, Pair):
            pairs.append(made)
        else:
            problems.append(made)
    return pairs, problems


def _candidates(run: Run, metric: str | None) -> list[tuple[_Row, _Row]]:
    table = run.catalogue
    if table.is_empty():
        return []
    named = _named_pair(run)
    groups: dict[str, tuple[list[_Row], list[_Row]]] = {}
    for row in table.filter(pl.col("rank") == table["rank"].min()).iter_rows(named=True):
        known = run.roles.of(row["metric"], row["split"], row["tag"])
        name = shared_name(row["metric"])
        if name == shared_name(metric) if metric is not None else known.role in _PAIRED:
            group = groups.setdefault(named.get((known.split, known.tag), name), ([], []))
            group[0 if known.side == "train" else 1].append((row, known))
    both = [(max(t, key=_train_rank), max(e, key=_eval_rank)) for t, e in groups.values() if t and e]
    return sorted(both, key=lambda p: _importance(p[1][1]))


def _named_pair(run: Run) -> dict[tuple[str, str], str]:
    """The name under which the two losses meet that the user named, by split and tag; empty where he named none."""
    chosen = [one.series for name in ("train_loss", "eval_loss") if (one := run.roles[name]).series is not None]
    if len(chosen) < 2 or not any(one.stands_for for one in chosen if one is not None):
        return {}
    return {(one.split, one.tag): "train_loss and eval_loss" for one in chosen if one is not None}


def _train_rank(row: _Row) -> tuple[bool, int]:
    return row[1].by == "user", int(str(row[0]["count"]))


def _eval_rank(row: _Row) -> tuple[int, bool, int]:
    return {"eval": 2, "test": 1}.get(row[1].side, 0), *_train_rank(row)


def _importance(known: SeriesRole) -> tuple[bool, int, int, str]:
    order = ("loss", "component_loss", "perplexity", "accuracy", "reward", "error_rate")
    place = order.index(known.role) if known.role in order else len(order)
    return known.stands_for == "", place, len(known.metric), known.metric


def _pair(run: Run, train: _Row, evaluated: _Row) -> Pair | str:
    known = evaluated[1]
    name, split = known.metric, known.side
    left, right = _series(run, train[0]), _evaluations(_series(run, evaluated[0]), loss=known.role in LOSSES)
    if left.is_empty() or right.is_empty():
        return f"{name}: no finite value on {'train' if left.is_empty() else split}"
    axis = _common_axis(left, right)
    if axis is None:
        return (
            f"{name}: train ({left.height} points) and {split} ({right.height}) share no axis: steps or epochs are "
            "missing, or are counted in different units"
        )
    left, right = _on_axis(left, axis), _on_axis(right, axis)
    train_x, train_raw = left[axis].cast(float).to_numpy(), left["value"].to_numpy()
    x = right[axis].cast(float).to_numpy()
    return Pair(
        metric=name,
        split=split,
        lower=known.role not in _MORE_IS_BETTER,
        axis=axis,
        x=x,
        eval=right["value"].to_numpy(),
        train=smooth_at(train_x, train_raw, x),
        step=_numbers(right, "step"),
        epoch=_numbers(right, "epoch"),
        train_x=train_x,
        train_raw=train_raw,
    )


def _series(run: Run, row: dict[str, object]) -> pl.DataFrame:
    rows = run.series(str(row["metric"]), split=str(row["split"]), rank=int(str(row["rank"])))
    value = pl.when(pl.col("value").abs() >= 1 / OVERFLOWN).then("value").otherwise(0.0).alias("value")
    kept = rows.lazy().filter((pl.col("tag") == row["tag"]) & (pl.col("value").abs() <= OVERFLOWN))
    return kept.select("step", "epoch", value).with_row_index("record").collect()


def _evaluations(rows: pl.DataFrame, *, loss: bool) -> pl.DataFrame:
    """The rows without repeats of the last evaluation, where a dense log carries it forward: they are no evals."""
    places = evaluations_of(rows["value"].to_numpy(), loss=loss)
    return rows if len(places) == rows.height else rows[places]


def _common_axis(left: pl.DataFrame, right: pl.DataFrame) -> str | None:
    """Steps, else epochs, where every row of both has them in one unit; else the record number of equal lengths."""
    for axis in ("step", "epoch"):
        if left[axis].null_count() == 0 == right[axis].null_count() and not _other_unit(left[axis], right[axis]):
            return axis
    unknown = left["step"].null_count() == left.height and right["step"].null_count() == right.height
    return "record" if unknown and left.height == right.height else None


def _other_unit(train: pl.Series, evaluated: pl.Series) -> bool:
    far = float(str(train.max())) * _OTHER_UNIT
    return len(train) >= 20 and len(evaluated) >= 3 and float(str(evaluated.max())) < far


def _on_axis(rows: pl.DataFrame, axis: str) -> pl.DataFrame:
    """One row a place, sorted: a value that was logged twice for one place counts as its mean."""
    if rows.height > 1 and (rows[axis].diff().slice(1) > 0).all():
        return rows  # nearly every log: no need to group millions of rows
    return rows.group_by(axis).agg(pl.col(c).mean() for c in ("step", "epoch", "value") if c != axis).sort(axis)


def _numbers(rows: pl.DataFrame, column: str) -> Floats:
    return rows[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
