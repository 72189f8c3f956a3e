"""The main training loss of a run as convergence is judged on it, with what stands beside each of its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.anomaly.log_series import Series, series_of
from analysis.anomaly.residuals import choose_scale
from parsers.run import Run

__all__ = ["Signal", "signals_of"]

Floats = NDArray[np.float64]
#: The norm of all parameters, not of one layer, nor of their updates.
_WEIGHTS = re.compile(r"(?:^|/)(?:total_|global_)?(?:param|parameter|weight)s?_norm$")
_BATCH = ("batch_size", "bsz", "global_batch_size", "train_batch_size", "batch-size", "global-batch-size")
#: Roles in whose company no loss has to fall, or to stand still: two players, or a policy that finds its own data.
_PLAYERS, _POLICY = {"generator_loss", "discriminator_loss"}, {"policy_loss", "reward"}


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """A loss without holes: `row` of the series, `value`, its logarithm (`scaled`, None if some are not positive).

    `step` is NaN throughout where the log has none. `rate` is the learning rate in force at each row, `batch` the
    batch size, `weights` the norm of all parameters (None where they are not logged). `company` is `policy` or
    `players` where losses need not fall.
    """

    series: Series
    row: NDArray[np.int64]
    value: Floats
    scaled: Floats | None
    step: Floats
    rate: Floats | None
    batch: Floats | None
    weights: Floats | None
    config: Mapping[str, Any]
    company: str

    @property
    def metric(self) -> str:
        """Name of the loss."""
        return self.series.metric

    @property
    def name(self) -> str:
        """Split and metric."""
        return f"{self.series.split} {self.series.metric}".strip()

    def step_at(self, place: int) -> int:
        """Step of a row of the signal; its position where the log has no steps."""
        step = self.series.step_at(int(self.row[place]))
        return place if step is None else step

    @property
    def every(self) -> float:
        """Steps from row to row, as a rule."""
        apart = np.diff(self.step)
        apart = apart[apart > 0]
        return float(np.median(apart)) if len(apart) else 1.0

    @property
    def is_constant(self) -> bool:
        """Whether all its values are one."""
        return bool((self.value == self.value[:1]).all())

    @property
    def begins(self) -> bool:
        """Whether the log holds the beginning of the training: its first row lies within 2 % of its last step."""
        first, last = self.step[0], self.step[-1]
        return bool(not np.isfinite(first) or first <= max(0.02 * last, 2 * self.every))


def signals_of(run: Run) -> list[Signal]:
    """The training loss of the run, of the lowest rank that has it, one a split; empty where there is none."""
    roles = run.roles
    main = roles["train_loss"]
    if main.metric is None:
        return []
    beside = {name: one.metric for name in ("learning_rate",) if (one := roles[name]).metric is not None}
    batch = next((m for m in run.metrics if m.lower().rsplit("/", 1)[-1] in _BATCH), None)
    norm = next((one.metric for one in roles if one.role == "param_norm" and _WEIGHTS.search(one.metric.lower())), None)
    wanted = dict.fromkeys([main.metric, *beside.values(), *(m for m in (batch, norm) if m)])
    every = list(series_of(run, metrics=list(wanted)))
    losses = [s for s in every if s.metric == main.metric and s.split == main.split and s.side not in ("eval", "test")]
    if not losses:
        return []
    loss = min(losses, key=lambda s: s.rank)
    present = {one.role for one in roles}
    company = "policy" if present & _POLICY else "players" if present & _PLAYERS else ""
    return [
        _signal(
            run, loss, _first(every, beside.get("learning_rate")), _first(every, batch), _first(every, norm), company
        )
    ]


def _first(every: list[Series], metric: str | None) -> Series | None:
    found = [s for s in every if s.metric == metric and s.frame.height]
    return min(found, key=lambda s: (s.rank, s.side != "train"), default=None)


def _signal(
    run: Run, loss: Series, rate: Series | None, batch: Series | None, norm: Series | None, company: str
) -> Signal:
    values = loss.values
    row = np.flatnonzero(np.isfinite(values))
    kept = values[row]
    step = loss.frame["step"].cast(pl.Float64).to_numpy()[row]
    scale = choose_scale(kept, multiplicative=True)
    scaled = scale.forward(kept) if scale.name == "log" and len(kept) else None
    beside = [_beside(step, row, other) for other in (rate, batch, norm)]
    return Signal(loss, row, kept, scaled, step, beside[0], beside[1], beside[2], run.config, company)


def _beside(step: Floats, row: NDArray[np.int64], other: Series | None) -> Floats | None:
    """The value of another series that was in force at each row: the last one logged up to its step."""
    if other is None:
        return None
    there = other.frame["step"].cast(pl.Float64).to_numpy()
    values = other.values
    good = np.isfinite(values)
    if not np.isfinite(step).all() or not np.isfinite(there).all():
        return values[row] if len(values) > row.max(initial=-1) and good.all() else None
    order = np.argsort(there[good], kind="stable")
    ordered, numbers = there[good][order], values[good][order]
    if len(ordered) == 0:
        return None
    return np.asarray(numbers[np.clip(np.searchsorted(ordered, step, side="right") - 1, 0, None)])
