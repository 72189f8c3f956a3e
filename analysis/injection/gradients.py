"""Faults of gradients, of mixed precision, and of the learning rate."""

from __future__ import annotations

import math
import re

import numpy as np

from analysis.injection.draft import Draft, Part
from analysis.injection.fault import Fault
from analysis.injection.follow import follow
from analysis.injection.shapes import Floats, parted, ramp
from parsers.naming.role_layout import SeriesRole

__all__ = ["FAULTS"]

_RECORD_NORM = "record it: rec.log(step, {'grad_norm': norm}), or at.watch(model)"
_LAYER = re.compile(r"(?:^|.*/)(?:update_ratio|grad_norm)/(?P<layer>.+)")


def _norms(draft: Draft) -> list[SeriesRole]:
    """All gradient norms, the one that `metric` names (or that stands for the run) first; the place is set."""
    first = draft.wanted("grad_norm", _RECORD_NORM)
    draft.begin(first)
    others = [one for one in draft.of_role("grad_norm") if one != first]
    return [first, *others] if draft.metric is None else [first]


def _explode(draft: Draft) -> None:
    norms = _norms(draft)
    length = draft.length(draft.onset.rest / 20)
    for norm in norms:
        draft.scale(norm, lambda rows: np.asarray(draft.size ** ramp(rows, length)))
    loss = draft.run.roles["train_loss"].series
    if draft.consequences and loss is not None:
        rise = math.log10(draft.size)

        def factor(rows: Floats) -> Floats:
            return np.asarray(1 + rise * ramp(rows, length))

        draft.scale(loss, factor)
        follow(draft, loss, factor)


def _vanish(draft: Draft) -> None:
    norms = _norms(draft)
    length = draft.length(draft.onset.rest / 20)
    for norm in norms:
        draft.scale(norm, lambda rows: np.asarray(draft.size ** -ramp(rows, length)))
    loss = draft.run.roles["train_loss"].series
    if not draft.consequences or loss is None or draft.size == 1:
        return
    (rows, times), *_ = [_back_to_the_first(part, length) for part in draft.parts(loss)]
    order = np.argsort(rows, kind="stable")

    def factor(at: Floats) -> Floats:
        return np.interp(at, rows[order], times[order])

    draft.scale(loss, factor)
    follow(draft, loss, factor)


def _back_to_the_first(part: Part, length: float) -> tuple[Floats, Floats]:
    """The factor that takes a loss back to its first level, where it is lower now."""
    own = parted(part.value)
    level = own.level(own.trend)
    with np.errstate(divide="ignore", invalid="ignore"):
        back = np.where(level > 0, np.maximum(level[0] / level, 1.0), 1.0)
    return part.rows, 1 + (np.nan_to_num(back, nan=1.0, posinf=1.0) - 1) * ramp(part.rows, length)


def _clip(draft: Draft) -> None:
    """Norms at a round limit below all but 1 - `size` of them, or the clip rate where it is logged."""
    rate = draft.found("clip_rate")
    if rate is not None:
        draft.begin(rate)
        draft.change(rate, lambda part: np.full(len(part.value), draft.size))
        return
    norm = draft.wanted("grad_norm", _RECORD_NORM)
    draft.begin(norm)

    def clipped(part: Part) -> Floats:
        known = part.value[np.isfinite(part.value) & (part.value > 0)]
        if not len(known):
            return part.value
        least = float(np.quantile(known, 1 - draft.size))
        unit = 10.0 ** math.floor(math.log10(least))
        return np.minimum(part.value, round(math.floor(least / unit) * unit, 12))

    draft.change(norm, clipped)


def _dead(draft: Draft) -> None:
    names = [one for one in draft.of_role("gradient_share") if "dead" in one.metric.lower()]
    if draft.metric is None and not names:
        raise draft.refused("no share of dead units is logged; record it with at.watch(model)")
    series = draft.wanted("gradient_share", "") if draft.metric is not None else names[0]
    draft.begin(series)
    draft.change(series, lambda part: np.where(part.inside, np.maximum(part.value, draft.size), part.value))


def _frozen(draft: Draft) -> None:
    layers: dict[str, list[SeriesRole]] = {}
    for one in draft.run.roles:
        if found := _LAYER.fullmatch(one.metric):
            layers.setdefault(found["layer"], []).append(one)
    if draft.metric is not None:
        asked = _LAYER.fullmatch(draft.metric)
        layers = {name: layers[name] for name in layers if asked and name == asked["layer"]}
    if len(layers) < (2 if draft.metric is None else 1):
        raise draft.refused(
            "no update ratio or gradient norm of two layers is logged; record them with at.watch(model)"
        )
    still = int(draft.size)

    def stood(part: Part) -> Floats:
        return np.append(part.value[:-still], np.zeros(min(still, len(part.value))))

    for series in layers[list(layers)[-1]]:
        draft.begin(series)
        draft.change(series, stood)


def _collapse(draft: Draft) -> None:
    scale = draft.wanted("loss_scale", "record the loss scale: rec.log(step, {'amp_scale': scaler.get_scale()})")
    length = draft.length(draft.begin(scale).rest / 2)
    draft.scale(scale, lambda rows: np.exp2(-np.floor(draft.size * ramp(rows, length))))


def _rate(draft: Draft) -> None:
    rate = draft.wanted("learning_rate", "record it: rec.log(step, {'lr': scheduler.get_last_lr()[0]})")
    draft.begin(rate)
    draft.scale(rate, lambda rows: np.where(rows >= 0, draft.size, 1.0))


FAULTS = (
    Fault(
        "exploding-gradient",
        "gradient norms grow to `size` times their values within `length` rows (a twentieth of what is left) and stay; "
        "the loss rises with their order of magnitude: to 1 + log10(size) times",
        _explode, "times the norm", 1000.0, 1.0, 1.0, 1e30,
    ),
    Fault(
        "vanishing-gradient",
        "gradient norms shrink to 1 / `size` within `length` rows (a twentieth of what is left) and stay; the loss "
        "goes back to the level of its first rows, as that of a saturated network does",
        _vanish, "times smaller", 1e6, 1.0, 1.0, 1e30,
    ),
    Fault(
        "dead-units",
        "one layer has `size` of its units dead from there on",
        _dead, "share of the units", 0.95, 0.0, 0.0, 1.0, tolerance=1.0,
    ),
    Fault(
        "frozen-layer",
        "the update ratio and the gradient norm of one layer are exactly 0 in the last `size` observations",
        _frozen, "observations at the end", 20.0, 0.0, 1.0, 1e9, counted=True, placed=False,
    ),
    Fault(
        "clipping",
        "`size` of all gradient norms stand at a round limit, or the clip rate is `size`, in the whole run",
        _clip, "share of the steps", 1.0, 0.0, 0.0, 1.0, placed=False, info=True,
    ),
    Fault(
        "amp-collapse",
        "the loss scale is halved `size` times over `length` rows (half of what is left)",
        _collapse, "halvings", 30.0, 0.0, 1.0, 200.0, counted=True, tolerance=0.3,
    ),
    Fault(
        "lr-schedule",
        "the learning rate is `size` times what it was, from there on",
        _rate, "times the learning rate", 3.0, 1.0, 1.0, 1e6,
    ),
)  # fmt: skip
