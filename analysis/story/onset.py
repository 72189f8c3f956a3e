"""When a finding sets in, how sure that is, and what it is about: what two findings are compared by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from analysis.findings import SEVERITIES, Finding
from analysis.kinds import KINDS
from analysis.story.links import Agree
from parsers.naming.roles import LOSSES
from parsers.run import Run

__all__ = ["Onset", "Rhythm", "onset_of"]

#: Records by which the onset of a kind may be off: levels and slow changes are placed by windows, leaps are exact.
_UNSURE: Mapping[str, int] = {
    "level-shift": 10,
    "variance-shift": 15,
    "divergence": 15,
    "plateau": 20,
    "oscillation": 20,
    "exploding-gradient": 3,
    "vanishing-gradient": 15,
    "dead-units": 5,
    "frozen-layer": 5,
    "overfitting": 5,
    "memory-growth": 20,
    "throughput-drop": 10,
    "mode-collapse": 20,
    "discriminator-dominance": 20,
    "generator-dominance": 20,
    "player-imbalance": 20,
    "discriminator-overfitting": 20,
}
_COMPONENT = re.compile(r"(?:^|.*/)losses/(.+)/(?:raw|weight|weighted|contribution)$|^curriculum/weight/(.+)$")


class Rhythm:
    """How many steps lie between two records of a run, or of one of its metrics, and how many records there are."""

    def __init__(self, run: Run) -> None:
        table = run.catalogue.filter(pl.col("count") > 1, pl.col("last_step") > pl.col("first_step"))
        self._of: dict[tuple[str, str | None], float] = {}
        starts = [step for step in run.catalogue["first_step"] if step is not None]
        self.records, self.first_step = 1, min(starts, default=0)
        self.last_step = run.last_step
        main = run.roles["train_loss"].series or run.roles["eval_loss"].series
        steps = 1.0
        for row in table.sort("count", descending=True).iter_rows(named=True):
            every = (row["last_step"] - row["first_step"]) / (row["count"] - 1)
            for key in ((row["metric"], row["split"]), (row["metric"], None)):
                self._of.setdefault(key, every)
            if self.records == 1:
                self.records, steps = row["count"], every
        if main is not None and (main.metric, main.split) in self._of:
            steps, self.records = self._of[main.metric, main.split], max(main.count, 2)
        #: Steps from one record of the main series to the next.
        self.steps = max(steps, 1e-9)

    def of(self, metric: str | None, split: str | None = None) -> float:
        """Steps between two records of a metric; those of the run where it is no metric of it."""
        if metric is None:
            return self.steps
        return self._of.get((metric, split), self._of.get((metric, None), self.steps))


@dataclass(frozen=True, eq=False)
class Onset:
    """A finding placed: `first` and `last` are its steps (None for the whole run), `slack` the steps it may be off."""

    finding: Finding
    first: float | None
    last: float | None
    slack: float
    #: Who leads of two that begin together: 0 gradients and learning rate, 1 train losses, 2 their parts, 3 the rest.
    order: int

    @cached_property
    def key(self) -> tuple[str | float | int, ...]:
        """Sorts findings the same way whatever order they came in."""
        f = self.finding
        told = sorted((k, repr(v)) for k, v in f.evidence.items())
        first = -1.0 if self.first is None else self.first
        return (first, self.order, -SEVERITIES.index(f.severity), f.kind, f.metric or "", f.message, repr(told))

    def says(self, what: Agree) -> frozenset[str] | None:
        """What the finding says of its rank, model, layer, ...; None where it does not say."""
        f = self.finding
        if what == "metric":
            return None if f.metric is None else frozenset({f.metric})
        if what in ("component", "same-component"):
            return None if f.metric is None else frozenset({_component(f.metric)})
        if what in ("layer", "same-layer"):
            return _layers(f)
        if what == "direction":
            return _direction(f)
        value = f.evidence.get(what)
        return None if value is None or value == "" else frozenset({str(value)})


def onset_of(finding: Finding, rhythm: Rhythm, run: Run) -> Onset:
    """Where a finding sets in. What is known at its end only (a log that breaks off) sets in there."""
    split = finding.evidence.get("split")
    every = rhythm.of(finding.metric, split if isinstance(split, str) else None)
    first, last = finding.first_step, finding.last_step
    if first is None and (last is not None or finding.kind in ("truncated-stream", "unfinished-run")):
        first = last if last is not None else rhythm.last_step
    end = first if last is None else last
    slack = _UNSURE.get(finding.kind, 1) * every
    return Onset(
        finding,
        _real(first),
        None if end is None else max(float(end), _real(first) or 0.0),
        slack,
        _order(finding, run),
    )


def _real(step: int | None) -> float | None:
    return None if step is None else float(step)


def _order(finding: Finding, run: Run) -> int:
    if finding.kind in ("lr-schedule", "exploding-gradient", "vanishing-gradient", "dead-units"):
        return 0
    if KINDS[finding.kind].family == "stream":
        return 3
    first = finding.evidence.get("first_metric")
    metric = str(first) if first else finding.metric
    if metric is None:
        return 3
    split = finding.evidence.get("split")
    series = run.roles.of(metric, split if isinstance(split, str) and not first else None)
    if series.role in ("grad_norm", "learning_rate", "loss_scale"):
        return 0
    if series.side != "train" or series.role not in LOSSES:
        return 3
    return 2 if series.role == "component_loss" else 1


def _component(metric: str) -> str:
    found = _COMPONENT.match(metric)
    return metric if found is None else found[1] or found[2]


def _layers(finding: Finding) -> frozenset[str] | None:
    told = [finding.evidence.get("layer"), finding.evidence.get("layers")]
    names = {name.strip() for value in told if isinstance(value, str) for name in value.split(",")} - {""}
    return frozenset(names) or None


def _direction(finding: Finding) -> frozenset[str] | None:
    value, expected = finding.evidence.get("value"), finding.evidence.get("expected")
    if not isinstance(value, int | float) or not isinstance(expected, int | float):
        return None
    return frozenset({"up" if value > expected else "down"})
