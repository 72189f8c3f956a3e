"""The series of a run, one at a time and without copying: rows of one rank, split and metric in the order logged."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.adversarial.terms import adversarial_terms
from eventstream.errors import InputError, unknown_name
from parsers.naming.role_layout import plain_name
from parsers.naming.roles import LOSSES
from parsers.run import Run

__all__ = ["Series", "series_of"]

_COLUMNS = ("rank", "attempt", "step", "split", "metric", "tag", "value")
_KEY = ("rank", "tag", "split")
#: Metrics that follow a rule or count: a leap of theirs is a decision of the training code, not a fault of its numbers.
_RULED = {"learning_rate", "weight", "hyperparameter", "loss_scale", "counter", "wall_time", "best"}
#: raw x weight: moves with its weight by design; its raw value and the total are judged.
_PRODUCT = re.compile(r"losses/.*/(weighted|contribution)")
_MULTIPLICATIVE = LOSSES | {"grad_norm", "step_time", "throughput"}
#: As the losses of a GAN's players (`adversarial_terms`), surrogates of reinforcement learning need not fall, nor keep
#: a level.
_NEED_NOT_FALL = {"policy_loss"}


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Rows of one rank, split and tag on the live branch; `frame` has attempt, step and value without nulls.

    `role` and `side` (train, eval, test or another) are those of `run.roles`; `is_main` says that it is the training
    loss or the eval loss of the run, or the same loss of another split. `is_adversarial`: it is one player's loss of a
    GAN, a part of it, or of a policy; its level tells who is ahead, and it need not fall.
    """

    rank: int
    split: str
    metric: str
    frame: pl.DataFrame
    role: str
    side: str
    is_main: bool
    is_adversarial: bool = False

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers, in the order logged."""
        return self.frame["value"].to_numpy()

    @property
    def is_loss(self) -> bool:
        """Whether smaller is better and the series should fall."""
        return self.role in LOSSES

    @property
    def is_ruled(self) -> bool:
        """Whether the metric follows a schedule or counts something (learning rate, weight, epoch, files read)."""
        return self.role in _RULED or _PRODUCT.fullmatch(self.metric.lower()) is not None

    @property
    def is_multiplicative(self) -> bool:
        """Whether its noise is in proportion to its level, by its role."""
        return self.role in _MULTIPLICATIVE

    def step_at(self, row: int) -> int | None:
        """Step of a row, None where the log has none."""
        step = self.frame["step"][int(row)]
        return None if step is None else int(step)


def series_of(run: Run, *, metrics: Collection[str] | None = None, split: str | None = None) -> Iterator[Series]:
    """The series of a run on its live branch (see `parsers.tables.branches`), attempts joined, nulls left out.

    `metrics` and `split` choose; None takes all. Raises `InputError` for a metric or split that the run has not.
    """
    source = run.lazy().select(_COLUMNS)
    if metrics is not None:
        source = source.filter(pl.col("metric").is_in(list(metrics)))
    if split is not None:
        source = source.filter(pl.col("split") == split)
    rows = source.collect()
    _known(run, metrics, split)
    if run.last_attempt:
        rows = run.live(rows).sort(*_KEY, "attempt", maintain_order=True)
    if rows.is_empty():
        return
    spans = list(_spans(rows))
    if rows[[start for start, _ in spans]].select(pl.struct(_KEY).n_unique()).item() < len(spans):
        rows = rows.sort(_KEY, maintain_order=True)  # a parser keeps tags together; their splits may alternate
        spans = list(_spans(rows))
    main = {plain_name(p.metric) for name in ("train_loss", "eval_loss") if (p := run.roles[name]).metric is not None}
    game = {(one.split, one.metric, one.tag) for one in adversarial_terms(run.roles)}
    for start, stop in spans:
        part = rows.slice(start, stop - start)
        first = part.row(0, named=True)
        kept = part.select("attempt", "step", "value")
        kept = kept.drop_nulls("value") if kept["value"].null_count() else kept
        known = run.roles.of(first["metric"], first["split"] or "", first["tag"])
        is_main = known.role == "loss" and plain_name(known.metric) in main
        adversarial = known.role in _NEED_NOT_FALL or (known.split, known.metric, known.tag) in game
        yield Series(first["rank"], known.split, known.metric, kept, known.role, known.side, is_main, adversarial)


def _known(run: Run, metrics: Collection[str] | None, split: str | None) -> None:
    for metric in metrics or ():
        if metric not in run.metrics:
            raise InputError(f"{run.name}: {unknown_name('metric', metric, run.metrics)}")
    if split is not None:
        splits = sorted(set(run.catalogue["split"].to_list()))
        if split not in splits:
            raise InputError(f"{run.name}: {unknown_name('split', split, splits)}")


def _spans(rows: pl.DataFrame) -> Iterator[tuple[int, int]]:
    """First and past-the-last row of each series; rows of one series stand together."""
    changes = [pl.col(c).ne_missing(pl.col(c).shift()) for c in _KEY]
    starts = rows.select(pl.any_horizontal(changes).arg_true()).to_series().to_list()
    marks = [*sorted({0, *starts}), rows.height]
    yield from itertools.pairwise(marks)
