"""The loss accounting of a run as two tables: components by step, totals by step, each number with its precision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.accounting.loss_rows import one_series_each, with_occurrence, with_precision
from analysis.accounting.precision import FLOAT32, arithmetic_eps
from analysis.accounting.stated_weights import fill_weights
from parsers.run import Run
from parsers.tables.constants import constant

__all__ = ["FIELDS", "STATED", "WHOLE", "LossTable", "loss_table"]

Whole = NDArray[np.int64]

#: Numbers of a component, and numbers of the whole loss.
FIELDS = ("raw", "weight", "weighted", "contribution")
WHOLE = ("total", "displayed", "scaled_total")
#: Every weight that was logged, in the order of the log: `used` in a loss record, else declared by the curriculum.
STATED = pl.Schema(
    {
        "step": pl.Int64,
        "occurrence": pl.Int64,
        "component": pl.String,
        "used": pl.Boolean,
        "value": pl.Float64,
        "half": pl.Float64,
        "epoch": pl.Float64,
    }
)

_COMPONENT = re.compile(r"losses/(.+)/(raw|weight|weighted|contribution)", re.DOTALL)
_WHOLE = re.compile(r"losses/(total|displayed|scaled_total)")
_CURRICULUM = re.compile(r"curriculum/weight/(.+)", re.DOTALL)
#: Whole numbers lie close together where their range is at most this many times their count: a table of that range
#: takes less time than to sort them, and no more memory.
_CLOSE = 4
#: Stands for a step that is unknown, before all others.
_NO_STEP = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class LossTable:
    """`components`: at, step, component, the four `FIELDS` and `half_...` of each (largest printing error).

    `totals`: at, step, the three `WHOLE` numbers and `half_...` of each. `at` numbers the records by step and then by
    their order where a step was logged repeatedly. `weight` is what the loss record says, else what the curriculum
    logged at that step, else the value on which the records of it before and after agree. `eps` is the machine
    epsilon of the totals' arithmetic, `stated` every weight as it was logged (`STATED`).
    """

    components: pl.DataFrame
    totals: pl.DataFrame
    eps: float = FLOAT32
    stated: pl.DataFrame = field(default_factory=lambda: STATED.to_frame())


#: The tables of the runs that are in use: accounts and curriculum are judged by the same one.
_KEPT: WeakKeyDictionary[Run, LossTable] = WeakKeyDictionary()
#: Those two may run beside one another: the second waits for the table of the first.
_MAKING = Lock()


def loss_table(run: Run) -> LossTable:
    """The tables of `run`: lowest rank that logged losses, dead branches of resumes left out, training split.

    Empty tables with the same columns where the run logged no `losses/...`. Made at the first use and kept as long as
    the run is.
    """
    with _MAKING:
        kept = _KEPT.get(run)
        if kept is None:
            kept = _KEPT[run] = _made(run)
        return kept


def _made(run: Run) -> LossTable:
    rows = with_precision(with_occurrence(one_series_each(run, "losses/", "curriculum/weight/")), run)
    names = sorted(rows["metric"].unique().to_list())
    metric = rows["metric"].cast(pl.Enum(names)).to_physical().to_numpy()
    parts = [_COMPONENT.fullmatch(name) for name in names]
    components = sorted({part[1] for part in parts if part})
    group = np.array([components.index(part[1]) if part else -1 for part in parts], np.int64)
    component_field = np.array([FIELDS.index(part[2]) if part else -1 for part in parts], np.int64)
    wholes = [_WHOLE.fullmatch(name) for name in names]
    whole_field = np.array([WHOLE.index(whole[1]) if whole else -1 for whole in wholes], np.int64)

    logged = np.array([name.startswith("losses/") for name in names], bool)[metric]
    metric, records = metric[logged], rows.filter(pl.Series(logged))
    at, steps = _moments(records)
    wide = _wide(records, at, group[metric], component_field[metric], FIELDS, len(components))
    wide = wide.with_columns(component=pl.Series(components, dtype=pl.String).gather(wide["group"]))
    totals = _wide(records, at, np.zeros_like(at), whole_field[metric], WHOLE, 1)
    stated = _stated(rows, names)
    made = fill_weights(_with_step(wide, steps), stated.filter(~pl.col("used")))
    order = ["at", "step"]
    return LossTable(
        made.select(*order, "component", *FIELDS, *(f"half_{f}" for f in FIELDS)),
        _with_step(totals, steps).select(*order, *WHOLE, *(f"half_{f}" for f in WHOLE)),
        arithmetic_eps(totals["total"].drop_nulls().to_numpy()),
        stated,
    )


def _moments(records: pl.DataFrame) -> tuple[Whole, Whole]:
    """The number of the moment of each row, and the step of each moment: by step, and by occurrence within it."""
    step, again = records["step"].fill_null(_NO_STEP).to_numpy(), records["occurrence"].to_numpy()
    steps, at = _distinct(step)
    if not again.any():
        return at, steps
    most = int(again.max()) + 1
    moments, place = _distinct(at * most + again)
    return place, steps[moments // most]


def _distinct(numbers: Whole) -> tuple[Whole, Whole]:
    """What `np.unique` gives, and the place of each number in it, without sorting where the numbers lie close together.

    Where they do not, they are sorted as those of a log come: in ascending pieces.
    """
    if len(numbers) == 0:
        return numbers, numbers
    least, most = int(numbers.min()), int(numbers.max())
    if most - least < _CLOSE * len(numbers):
        there = np.zeros(most - least + 1, bool)
        there[numbers - least] = True
        if there.all():
            return np.arange(least, most + 1), numbers - least
        return np.flatnonzero(there) + least, (np.cumsum(there) - 1)[numbers - least]
    ordered = np.sort(numbers, kind="stable")
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    found: Whole = ordered[first]
    return found, np.searchsorted(found, numbers)


def _with_step(wide: pl.DataFrame, steps: Whole) -> pl.DataFrame:
    step = pl.Series("step", steps[wide["at"].to_numpy()], dtype=pl.Int64)
    return wide.with_columns(step=step.replace(_NO_STEP, None) if (steps[:1] == _NO_STEP).any() else step)


def _wide(
    records: pl.DataFrame, at: Whole, group: Whole, place: Whole, fields: Sequence[str], groups: int
) -> pl.DataFrame:
    """One row per moment and group, sorted: at, group, each of `fields` (null where not logged) and its half.

    `place` says which field a row of `records` is, -1 for none. Of several numbers for one field the first counts.
    """
    chosen = np.flatnonzero(place >= 0)
    cell, place = at[chosen] * max(groups, 1) + group[chosen], place[chosen]
    cells, row = _distinct(cell)
    value, known = records["value"].fill_null(np.nan).to_numpy()[chosen], records["value"].is_not_null().to_numpy()
    half, known = records["half"].to_numpy()[chosen], known[chosen]
    columns = {"at": cells // max(groups, 1), "group": cells % max(groups, 1)}
    made = [pl.Series(name, numbers, dtype=pl.Int64) for name, numbers in columns.items()]
    for number, name in enumerate(fields):
        mine = np.flatnonzero((place == number) & known)[::-1]  # backwards: what is written last is the first one
        if len(mine) == 0:
            made += [constant(name, pl.Float64, None, len(cells)), pl.Series(f"half_{name}", np.zeros(len(cells)))]
            continue
        values, halves, there = np.zeros(len(cells)), np.zeros(len(cells)), np.zeros(len(cells), bool)
        values[row[mine]], halves[row[mine]], there[row[mine]] = value[mine], half[mine], True
        made += [_masked(name, values, there), pl.Series(f"half_{name}", halves)]
    return pl.DataFrame(made)


def _masked(name: str, values: NDArray[np.float64], there: NDArray[np.bool_]) -> pl.Series:
    series = pl.Series(name, values, dtype=pl.Float64)
    return series if there.all() else series.to_frame().select(pl.when(pl.Series(there)).then(pl.col(name))).to_series()


def _stated(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    found = []
    for name in names:
        used, declared = _COMPONENT.fullmatch(name), _CURRICULUM.fullmatch(name)
        if used and used[2] == "weight":
            found.append((name, used[1], True))
        elif declared:
            found.append((name, declared[1], False))
    if not found:
        return STATED.to_frame()
    known = pl.DataFrame(found, schema={"metric": pl.String, "component": pl.String, "used": pl.Boolean}, orient="row")
    chosen = rows.join(known, on="metric", how="inner", maintain_order="left")
    return chosen.select(pl.col(name).cast(dtype) for name, dtype in STATED.items())
