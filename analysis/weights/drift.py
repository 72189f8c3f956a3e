"""`weight-drift`: layers that went farther from one save to the next than optimizer, others or their past explain."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

import polars as pl

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.limits import Gauge
from analysis.weights.averages import swapped_in
from analysis.weights.moves import steps_between
from analysis.weights.saved import Saved, is_buffer, layer_of

__all__ = ["weight_drift"]

#: A change of weights below this share of their norm is no drift, however it compares.
_FELT, _ALL_FELT = 0.1, 0.3
#: Fewer elements have no typical change.
_FEWEST = 16
#: Intervals beside the one judged that tell what is usual.
_BESIDE = 2
_RATE = re.compile(r"param_groups\.\d+\.(lr|initial_lr|max_lr)$")
_DECAY = re.compile(r"param_groups\.\d+\.weight_decay$")


@dataclass(frozen=True, eq=False)
class _Interval:
    """One stretch between saves: steps, the largest learning rate known of it, and the rows of what moved."""

    before: Saved
    after: Saved
    steps: int
    rate: float | None
    rows: dict[str, dict[str, Any]]

    @cached_property
    def typical(self) -> float:
        """The median update ratio of the matrices that moved."""
        ratios = [row["update_ratio"] for row in self.rows.values() if row["update_ratio"] > 0]
        return median(ratios) if ratios else 0.0


def weight_drift(
    saves: Sequence[Saved],
    differences: Sequence[pl.DataFrame],
    run_name: str,
    learning_rates: Mapping[int, float] | None,
    gauge: Gauge,
) -> list[Finding]:
    """Jumps of single layers, jumps of the whole model, and steps longer than Adam can make them.

    The first interval is no measure of a jump: weights that begin at zero or at random go farthest there.
    """
    spans = pairwise(saves)
    intervals = [_interval(*span, frame, learning_rates) for span, frame in zip(spans, differences, strict=False)]
    found = []
    for n, here in enumerate(intervals):
        if swapped_in(here.before, here.after):
            continue
        leaps = _whole_model(intervals, n, run_name, gauge) or _single_layers(intervals, n, run_name, gauge)
        found += leaps or _beyond_adam(here, run_name, gauge)
    return found


def _interval(before: Saved, after: Saved, frame: pl.DataFrame, rates: Mapping[int, float] | None) -> _Interval:
    rows = {row["parameter"]: row for row in frame.to_dicts() if _is_judged(row)}
    return _Interval(before, after, steps_between(before, after) or 0, _rate(before, after, rates), rows)


def _is_judged(row: dict[str, Any]) -> bool:
    ratio, shape = row["update_ratio"], row["shape_a"]
    known = ratio is not None and math.isfinite(ratio) and shape is not None and bool(row["norm_a"])
    return known and len(shape) >= 2 and math.prod(shape) >= _FEWEST and not is_buffer(row["parameter"])


def _rate(before: Saved, after: Saved, logged: Mapping[int, float] | None) -> float | None:
    """The largest learning rate between two saves: of the log, and of the groups of the optimizer in both."""
    first, last = before.at, after.at
    rates = [
        float(value)
        for saved in (before, after)
        for key, value in saved.checkpoint.values.items()
        if _RATE.search(key) and isinstance(value, int | float)
    ]
    if logged and first is not None and last is not None:
        rates += [rate for step, rate in logged.items() if first <= step <= last]
    return max((rate for rate in rates if rate > 0), default=None)


def _whole_model(intervals: list[_Interval], n: int, run_name: str, gauge: Gauge) -> list[Finding]:
    """All layers at once, far beyond what the intervals beside this one moved, steps and learning rate considered."""
    here = intervals[n]
    beside = [*intervals[max(n - _BESIDE, 0) : n], *intervals[n + 1 : n + 1 + _BESIDE]]
    usual = [one.typical * _longer(here, one) for one in beside if one.typical > 0]
    if n == 0 or len(usual) < _BESIDE or here.typical < _ALL_FELT:
        return []
    times = here.typical / max(usual)
    if not gauge.reaches("weight-drift", times):
        return []
    said = (
        f"the weights changed by {here.typical:.0%} of their norm from {here.before.where} to {here.after.where}, "
        f"{times:.3g} times more than before or after (median of {len(here.rows)} matrices)"
    )
    causes = (
        f"other weights were loaded or made anew: all {len(here.rows)} matrices leapt at once",
        "training diverged there, or the learning rate was far higher than before and after",
    )
    told = {"what": "all weights", "times": times, "update_ratio": here.typical, "layers": len(here.rows)}
    return [_finding(here, run_name, "warning", said, None, told, causes, gauge)]


def _longer(here: _Interval, other: _Interval) -> float:
    """How much farther this interval may go than another, for its steps and its learning rate."""
    steps = here.steps / other.steps if here.steps and other.steps else 1.0
    rate = here.rate / other.rate if here.rate and other.rate else 1.0
    return max(steps, 1.0) * max(rate, 1.0)


def _single_layers(intervals: list[_Interval], n: int, run_name: str, gauge: Gauge) -> list[Finding]:
    """Layers whose change beside that of the others is far from what it is in the other intervals."""
    here = intervals[n]
    leapt = []
    for name, row in here.rows.items():
        times = _times_its_past(intervals, n, name)
        far = times is not None and gauge.reaches("weight-drift", times, name, layer_of(name))
        if far and times is not None and row["update_ratio"] >= _FELT:
            leapt.append((times, name))
    if not leapt:
        return []
    times, name = max(leapt)
    ratio = here.rows[name]["update_ratio"]
    said = (
        f"{name} changed by {ratio:.0%} of its norm from {here.before.where} to {here.after.where}, {times:.3g} times "
        f"more beside the other layers than before and after{_also([other for _, other in leapt if other != name])}"
    )
    causes = (
        f"the layer was made anew, loaded from elsewhere, or unfrozen: it moved {ratio:.0%}, the median layer "
        f"{here.typical:.2%}",
        "its learning rate or its gradient was far larger in this stretch",
    )
    told = {
        "what": f"leap of {layer_of(name)}",
        "layer": layer_of(name),
        "times": times,
        "update_ratio": ratio,
        "update_ratio_of_others": here.typical,
        "norm_before": here.rows[name]["norm_a"],
        "norm_after": here.rows[name]["norm_b"],
        "cosine": here.rows[name]["cosine"],
        "layers": len(leapt),
    }
    return [_finding(here, run_name, "warning", said, name, told, causes, gauge)]


def _also(names: list[str]) -> str:
    return f"; so did {some(names, 3)}" if names else ""


def _times_its_past(intervals: list[_Interval], n: int, name: str) -> float | None:
    """The layer's ratio over the median layer's, over the largest of that in the intervals beside; None if unknown.

    The first interval is not judged, and a layer that stood still beside was frozen: its first move is no leap.
    """
    beside = [*intervals[max(n - _BESIDE, 0) : n], *intervals[n + 1 : n + 1 + _BESIDE]]
    usual = [share for one in beside if (share := _beside_others(one, name)) is not None]
    now = _beside_others(intervals[n], name)
    if n == 0 or now is None or len(usual) < _BESIDE or min(usual) <= 0:
        return None
    return now / max(usual)


def _beside_others(interval: _Interval, name: str) -> float | None:
    """The layer's ratio over that of the median layer; of two layers over the other's."""
    if name not in interval.rows:
        return None
    usual = interval.typical
    if len(interval.rows) < 3:
        others = [row["update_ratio"] for key, row in interval.rows.items() if key != name]
        usual = others[0] if others else 0.0
    return float(interval.rows[name]["update_ratio"]) / usual if usual > 0 else None


def _beyond_adam(here: _Interval, run_name: str, gauge: Gauge) -> list[Finding]:
    """Single weights that moved farther than Adam's steps reach.

    A step of Adam is at most lr (1 - b1) / sqrt(1 - b2), 3.2 lr with the usual numbers, and about lr as a rule (Kingma
    and Ba, section 2.1); decoupled decay adds lr x decay x |w|. Judged is the largest change over lr x steps, with the
    highest rate known; layer-wise scaling (LAMB) and rates that no log has stay below the limit as a rule.
    """
    if not here.rate or not here.steps or not _is_adam(here.after):
        return []
    decay = max((float(v) for k, v in here.after.checkpoint.values.items() if _DECAY.search(k) and v), default=0.0)
    reach = here.rate * here.steps
    beyond = []
    for name, row in here.rows.items():
        change = row["max_change"] - reach * decay * (row["norm_a"] or 0.0)
        if gauge.reaches("weight-drift", change / reach, name, layer_of(name)) and row["update_ratio"] >= _FELT:
            beyond.append((change / reach, name))
    if not beyond:
        return []
    times, name = max(beyond)
    said = (
        f"a weight of {name} moved by {here.rows[name]['max_change']:.3g} from {here.before.where} to "
        f"{here.after.where}, {times:.3g} times what {here.steps:,} steps of Adam at {here.rate:.3g} come to"
        f"{_also([other for _, other in beyond if other != name])}"
    )
    causes = (
        "the weights were changed by something else than the optimizer: loaded, re-initialised, merged or clipped",
        "the learning rate was higher between the saves than log and optimizer say",
    )
    told = {
        "what": f"beyond the optimizer, {layer_of(name)}",
        "layer": layer_of(name),
        "times": times,
        "largest_change": here.rows[name]["max_change"],
        "learning_rate": here.rate,
        "steps_between": here.steps,
        "update_ratio": here.rows[name]["update_ratio"],
        "layers": len(beyond),
    }
    return [_finding(here, run_name, "warning", said, name, told, causes, gauge)]


def _is_adam(saved: Saved) -> bool:
    states = {row["state"] for row in saved.rows("optimizer")}
    return {"exp_avg", "exp_avg_sq"} <= states


def _finding(
    here: _Interval,
    run_name: str,
    severity: Severity,
    said: str,
    name: str | None,
    told: Mapping[str, Any],
    causes: tuple[str, ...],
    gauge: Gauge,
) -> Finding:
    return Finding(
        "weight-drift",
        severity,
        run_name,
        said,
        metric=name,
        first_step=here.before.at,
        last_step=here.after.at,
        evidence={
            **told,
            "limit": gauge.limits.of("weight-drift", name, layer_of(name or "")),
            "save": here.after.name,
            "save_before": here.before.name,
        },
        causes=causes,
        suggestions=KINDS["weight-drift"].suggestions,
    )
