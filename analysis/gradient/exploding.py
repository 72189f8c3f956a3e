"""`exploding-gradient`: a norm that leaves its own past by orders of magnitude while the loss does not fall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.findings import Finding, Severity
from analysis.gradient.clipped import clipped_at
from analysis.gradient.leaps import lasting_leap
from analysis.gradient.levels import ROWS, Rise, Trend, decades, highest_rise
from analysis.gradient.scene import Scene
from analysis.gradient.tracks import WHOLE, Model, Track

__all__ = ["exploding"]

_KIND = "exploding-gradient"
#: Decades that a norm has to rise above its own past, by what the loss did meanwhile. Norms of healthy runs rise
#: several times over while the loss falls (A. Defazio, arXiv 2506.02285, on the end of training), and by hundreds
#: after an initialisation at zero; of a run whose loss is not known, only what no such thing explains is told.
_LEAST: dict[Trend, float] = {"rose": 1.5, "held": 2.0, "unknown": 3.0, "fell": 2.0}
#: And above its first rows, so that the way back from a valley is none: two thirds of the least rise, at most tenfold.
_ABOVE_START, _OF_LEAST = 1.0, 2.0 / 3.0
#: A layer's own norm varies more than that of all.
_LAYER_MORE = 1.0
#: A gradient this many times as large makes the loss fall as many times as fast, for Adam's steps of one length as
#: well as for those of SGD, if it is one of the same loss. The square root of it leaves room for a rate that decays.
_FASTER = 0.5
#: Decades (threefold) above the norm of all before it.
_STANDS_OUT = 0.5
#: Decades by which a layer has grown when it is asked which was first.
_SETS_OUT = 1.0
_TRY = (
    "clip gradients (a norm of 1.0 is common), or lower the limit that is set",
    "lower the learning rate, or lengthen the warmup",
    "look at the batches just before the first step named",
    "resume from the last checkpoint before it",
)


@dataclass(frozen=True, slots=True)
class _Seen:
    track: Track
    rise: Rise
    trend: Trend
    #: What the loss did from before the rise to the end of the log.
    outcome: Trend
    before: float
    after: float
    #: Decades from which on it is reported.
    least: float
    #: Whether it leapt at once and for good.
    leapt: bool = False


def exploding(scene: Scene, model: Model) -> list[Finding] | str:
    """Whether the norm of a model's gradient exploded, or that of a layer; or the reason why that cannot be told."""
    whole = model.get("grad_norm")
    if whole is None:
        return "no gradient norm is logged"
    if len(whole.values) < 5 or np.isfinite(whole.values).sum() < 2:
        return f"{whole.metric} has fewer than 5 values, or none that is finite"
    limit = clipped_at(whole)
    if limit is not None and limit.share >= 0.5:
        return f"{whole.metric} was logged after clipping at {limit.at:g}: its own size is not known"
    scene.gauge.keep(_KIND, _nearness(scene, whole), whole.metric)
    leap = _leapt(scene, whole, 0.0)
    if leap is not None:
        scene.gauge.keep(_KIND, float(10.0 ** (leap.rise.high - leap.rise.low)), whole.metric)
    seen = leap or _seen(scene, whole, 0.0) or _hidden(scene, model, whole)
    return [] if seen is None else [_finding(scene, model, seen)]


def _hidden(scene: Scene, model: Model, whole: Track) -> _Seen | None:
    """A layer that the sum of the others hides: the one that grew most is told for all of them."""
    tracks = model.layers("grad_norm").values()
    found = [_leapt(scene, track, _LAYER_MORE) or _seen(scene, track, _LAYER_MORE) for track in tracks]
    layers = [one for one in found if one is not None and _stands_out(one, whole)]
    if not layers:
        return None
    seen = max(layers, key=lambda one: one.rise.high - one.rise.low)
    return None if seen.trend == "unknown" or (seen.trend == "fell" and not seen.leapt) else seen


def _nearness(scene: Scene, track: Track) -> float:
    """How many times its own past a norm rose beyond chance, where a lost or falling loss asks more as if that were
    asked of a loss that rises; 1 for none.
    """
    logs = decades(track.values)
    rise = highest_rise(logs, least=_LEAST["rose"], above_start=_ABOVE_START)
    rise = rise or highest_rise(logs, least=0.0, above_start=0.0)
    if rise is None:
        return 1.0
    trend = _beside(scene, track, rise)[0]
    grown = (rise.top if rise.ends else rise.high) - rise.low
    return float(10.0 ** min(max(grown - _LEAST[trend] + _LEAST["rose"], 0.0), 300.0))


def _seen(scene: Scene, track: Track, more: float) -> _Seen | None:
    lowest = float(np.log10(scene.limit(_KIND, track)))
    shift = lowest - _LEAST["rose"]
    above = min(_ABOVE_START, _OF_LEAST * lowest)
    rise = highest_rise(decades(track.values), least=min(_LEAST.values()) + shift + more, above_start=above + more)
    if rise is None:
        return None
    trend, outcome, before, after = _beside(scene, track, rise)
    grown = (rise.top if rise.ends else rise.high) - rise.low
    least = _LEAST[trend] + shift + more
    return None if grown < least else _Seen(track, rise, trend, outcome, before, after, least)


def _leapt(scene: Scene, track: Track, more: float) -> _Seen | None:
    """A leap for good, out of a past that was settled, by the least that is asked with a loss that rises.

    A gradient depends smoothly on the weights: one that leaps within few rows where the loss goes on as before, or
    falls no faster than it did with the small one, is no step of the learning. Where the loss is not known, or falls
    faster than it did, this says nothing.
    """
    least = float(np.log10(scene.limit(_KIND, track))) + more
    rise = lasting_leap(decades(track.values), least)
    if rise is None:
        return None
    trend, outcome, before, after = _beside(scene, track, rise)
    if trend == "unknown" or (trend == "fell" and not _no_faster(scene, track, rise, before, after)):
        return None
    return _Seen(track, rise, trend, outcome, before, after, least, leapt=True)


def _no_faster(scene: Scene, track: Track, rise: Rise, before: float, after: float) -> bool:
    """Whether the loss had fallen before a leap, and fell on no faster than that and the leap explain."""
    past = track.steps[rise.left] - track.steps[0]
    if past <= 0 or scene.loss.trend(scene.loss.first, before) != "fell":
        return False
    speed = (scene.loss.first - before) / past
    now = (before - after) / max(track.steps[rise.peak] - track.steps[rise.left], 1.0)
    return bool(now <= speed * 10.0 ** (_FASTER * (rise.high - rise.low)))


def _stands_out(seen: _Seen, whole: Track) -> bool:
    """Whether a layer's norm did harm, or came out above that of all: else a gradient that was lost has come back."""
    past = decades(whole.values[whole.steps <= seen.track.steps[seen.rise.left]])
    past = past[np.isfinite(past)]
    return seen.trend == "rose" or len(past) == 0 or seen.rise.high >= float(np.median(past)) + _STANDS_OUT


def _beside(scene: Scene, track: Track, rise: Rise) -> tuple[Trend, Trend, float, float]:
    """What the loss did during a rise, and to the end of the log; its levels before and after."""
    before, rows, after, last = float("nan"), 0, float("nan"), float("nan")
    if scene.lone and len(scene.loss) >= ROWS:
        (before, rows), last = scene.loss.before(track.steps[rise.left]), scene.loss.last
        after = last if rise.ends else scene.loss.at(track.steps[rise.peak])
    return scene.loss.trend(before, after, rows), scene.loss.trend(before, last, rows), before, after


def _severity(seen: _Seen) -> Severity:
    if seen.trend == "rose":
        return "critical" if seen.outcome == "rose" and seen.rise.lasts else "warning"
    if seen.trend == "fell" and not seen.leapt:
        return "info"
    return "warning" if seen.rise.lasts else "info"


def _finding(scene: Scene, model: Model, seen: _Seen) -> Finding:
    track, rise = seen.track, seen.rise
    low, high = 10.0**rise.low, 10.0 ** min(rise.top if rise.ends else rise.high, 300.0)
    first = _first_layer(model, seen)
    where = model.title(track.layer)
    name = f"the gradient norm of {where}" if where else "the gradient norm"
    step = track.step_at(rise.up)
    fell = "; the loss fell no faster for it" if seen.leapt else ", and the loss fell"
    meanwhile = {"rose": "; the loss rose with it", "held": "; the loss did not fall", "fell": fell}
    return Finding(
        _KIND,
        _severity(seen),
        scene.run,
        f"{name} rose from {low:.3g} to {high:.3g}, {_times(high / low)} times its own past"
        + (f", from step {step:,} on" if step is not None else "")
        + (", and then was not finite" if rise.ends else "" if rise.lasts else ", and came back")
        + meanwhile.get(seen.trend, "")
        + (f"; {first[0]} set out first" if first else ""),
        metric=track.metric,
        first_step=step,
        last_step=track.step_at(len(track.values) - 1) if rise.lasts else track.step_at(rise.peak),
        evidence={
            "model": model.name,
            "layer": track.layer,
            "low": low,
            "high": high,
            "times": high / low,
            "limit": 10.0**seen.least,
            "decades": (rise.top if rise.ends else rise.high) - rise.low,
            "lasts": rise.lasts,
            "then_not_finite": rise.ends,
            "loss": seen.trend,
            "loss_before": seen.before,
            "loss_after": seen.after,
            "first_layer": first[0] if first else None,
            "first_layer_step": first[1] if first else None,
            "split": track.split,
        },
        causes=tuple(_causes(scene, model, seen, first)),
        suggestions=_TRY,
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio < 1e6 else f"{ratio:.1e}"


def _first_layer(model: Model, seen: _Seen) -> tuple[str, float] | None:
    """The layer whose norm was ten times that before the rise first, and the step; None without layers."""
    # A layer may be up some rows before the sum of all shows it.
    looked = max(seen.rise.valley, seen.rise.left - 3 * ROWS)
    start, end = seen.track.steps[looked], seen.track.steps[seen.rise.peak]
    found: list[tuple[float, float, str]] = []
    for layer, track in model.layers("grad_norm").items():
        logs = decades(track.values)
        past = logs[(track.steps <= start) & np.isfinite(logs)][-ROWS:]
        rows = np.flatnonzero((track.steps > start) & (track.steps <= end))
        if len(past) == 0 or len(rows) == 0:
            continue
        up = rows[logs[rows] >= np.median(past) + _SETS_OUT]
        if len(up):
            # Of layers that set out in one row, the one that grew most in it.
            found.append((float(track.steps[up[0]]), float(np.median(past) - logs[up[0]]), layer))
    if not found:
        return None
    step, _, layer = min(found)
    return layer, step


def _causes(scene: Scene, model: Model, seen: _Seen, first: tuple[str, float] | None) -> list[str]:
    causes = []
    step = seen.track.steps[seen.rise.up]
    rate = scene.rate_beside(step)
    if rate is not None and rate[0] >= 0.9 * rate[1]:
        causes.append(f"the learning rate is too high: it was {rate[0]:.3g} then, its highest being {rate[1]:.3g}")
    clip = model.get("clip_rate")
    if clip is None and seen.trend == "rose":
        causes.append("steps as long as these gradients: no clipping is logged, and the loss rose with them")
    elif clip is not None:
        late = clip.values[clip.steps >= step]
        if len(late):
            causes.append(
                f"a hard stretch of data, or a model that lost its balance: {np.mean(late):.0%} of steps were clipped"
            )
    if first is not None:
        causes.append(
            f"{first[0]} is unstable: its gradient was ten times its past at step {first[1]:,.0f}, before the others"
        )
    elif not model.layers("grad_norm"):
        causes.append("cannot tell from this log which layer it began in; record norms by layer (at.watch) to know")
    if seen.track.layer != WHOLE:
        causes.append("the norm of all gradients hides it: other layers' are larger")
    return causes
