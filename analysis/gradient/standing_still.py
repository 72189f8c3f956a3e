"""`dead-units` and `frozen-layer`: units without a gradient, and layers that should train and do not move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.findings import Finding, Severity
from analysis.gradient.levels import first_lasting
from analysis.gradient.scene import Scene, some
from analysis.gradient.tracks import WHOLE, Model, Track, natural, stacks_of

__all__ = ["dead_units", "frozen_layers"]

#: Observations that a unit needs to count as dead in the first place (docs/event-stream.md).
_OBSERVED = 5
#: Share of a layer's units: half is where Amazon SageMaker Debugger's rule DeadRelu speaks; nine of ten are no layer.
#: From a fifth on it is told (the limit of the kind, with which the other two move).
_GONE, _NEARLY_ALL, _HALF = 0.999, 0.9, 0.5
#: A warning from two fifths on, of which the CS231n notes ("Neural Networks Part 1") speak as of a fault of too high a
#: rate; a layer of few units shows that share as three of eight.
_MANY = 0.375
#: Observations that a layer needs to be judged at all.
_FEWEST = 5
#: Share of zeros in a gradient above which an even sample of the weights may miss what moved (rows of an embedding).
_SPARSE = 0.5
_TRY_DEAD = (
    "lower the learning rate, or warm it up: one large step can push a ReLU below zero for good",
    "use LeakyReLU, GELU or SiLU, or He initialisation with small positive biases",
    "normalise the inputs of the layer",
)


def dead_units(scene: Scene, model: Model) -> list[Finding] | str:
    """Layers of which many units have had no gradient for long; or the reason why that is not known."""
    tracks = {name: t for name, t in model.layers("dead_units").items() if len(t.values) > _OBSERVED}
    whole = model.get("dead_units")
    if not tracks and whole is not None and len(whole.values) > _OBSERVED:
        tracks = {WHOLE: whole}
    if not tracks:
        return f"no share of dead units is logged over more than {_OBSERVED} observations (at.watch does)"
    last = max(tracks, key=natural)
    found = []
    for layer, track in tracks.items():
        share = _lasting_share(track)
        scene.gauge.keep("dead-units", share, track.metric)
        # Rows of an output layer have no gradient where their class is neither seen nor believed in.
        if (
            share >= scene.limit("dead-units", track)
            and scene.meant.of(layer) != "freeze"
            and not (layer == last and share < 1 and len(tracks) > 2)
        ):
            found.append((share, layer, track))
    if not found:
        return []
    # A layer without any gradient passes none to those before it: of such layers the last is where it began.
    found.sort(key=lambda one: -one[0])
    gone = sorted((one for one in found if one[0] >= _GONE), key=lambda one: natural(one[1]), reverse=True)
    found = [*gone, *(one for one in found if one[0] < _GONE)]
    return [_dead_finding(scene, model, found)]


def _lasting_share(track: Track) -> float:
    """The share that is dead in the last third of the observations, three at least."""
    known = track.values[_OBSERVED:]
    known = known[np.isfinite(known)]
    return float(np.median(known[-max(3, len(known) // 3) :])) if len(known) >= 3 else 0.0


def _dead_finding(scene: Scene, model: Model, found: list[tuple[float, str, Track]]) -> Finding:
    share, layer, track = found[0]
    limit = scene.limit("dead-units", track)
    scale = scene.gauge.limits.scale("dead-units", track.metric, layer)
    nearly_all, many_units = (min(bar * scale, _GONE) for bar in (_NEARLY_ALL, _MANY))
    severity: Severity = "critical" if share >= nearly_all else "warning" if share >= many_units else "info"
    # where the larger part of the way from its lowest share was done; a share that only ever wavers was there at once
    lowest = float(np.min(track.values, initial=share, where=np.isfinite(track.values)))
    first = first_lasting(track.values >= min((lowest + share) / 2, 0.8 * share)) or 0
    step = track.step_at(first)
    many = [name for part, name, _ in found if part >= _HALF]
    also = f"; half or more are in {some(many[1:])} too" if len(many) > 1 else ""
    where = model.title(layer) or "the model"
    begins = "from the start" if first <= _OBSERVED else f"from step {step:,} on" if step is not None else "at the end"
    zeros = model.get("zero_grads", layer)
    causes = [_why_dead(share, first, begins)]
    rate = scene.rate_beside(track.steps[first])
    if rate is not None and first > _OBSERVED and rate[0] >= 0.9 * rate[1]:
        causes.append(f"the learning rate was at its highest then ({rate[0]:.3g})")
    return Finding(
        "dead-units",
        severity,
        scene.run,
        f"{share:.0%} of the units of {where} are dead {begins}{also}",
        metric=track.metric,
        first_step=step,
        last_step=track.step_at(len(track.values) - 1),
        evidence={
            "model": model.name,
            "layer": layer,
            "share": share,
            "limit": limit,
            "layers": len(many),
            "observations": len(track.values),
            "zero_grads": float(zeros.values[-1]) if zeros is not None else None,
            "split": track.split,
        },
        causes=tuple(causes),
        suggestions=_TRY_DEAD,
    )


def _why_dead(share: float, first: int, begins: str) -> str:
    if share >= _GONE:
        return f"nothing behind it passes a gradient on {begins}: all of its ReLUs below zero, or a branch times 0"
    if first <= _OBSERVED:
        return f"{share:.0%} of its units had no gradient since the first count: initialisation, or the first steps"
    return f"its ReLUs were pushed below zero {begins}: {share:.0%} had no gradient {_OBSERVED} observations running"


#: Why a layer stands still: it gets no gradient at all, one of exact zeros, or one that does not move it.
_Reason = Literal["no gradient", "zero gradient", "no move"]


@dataclass(frozen=True, slots=True)
class _Still:
    layer: str
    track: Track
    first: int
    reason: _Reason
    moved: bool
    #: Observations since, less three times the longest rest before.
    rows: int


def frozen_layers(scene: Scene, model: Model) -> list[Finding] | str:
    """Layers that stand still while others move; or the reason why that is not known."""
    quantity = "update_ratio" if len(model.layers("update_ratio")) >= 2 else "grad_norm"
    tracks = model.layers(quantity)
    if len(tracks) < 2:
        return "no update ratio or gradient norm of two or more layers is logged (at.watch does)"
    if max(len(track.values) for track in tracks.values()) < _FEWEST:
        return f"fewer than {_FEWEST} observations of each layer"
    moving = _moving(tracks)
    found = [one for layer, track in tracks.items() if (one := _still(scene, model, layer, track, moving)) is not None]
    groups: dict[tuple[_Reason, Severity], list[_Still]] = {}
    for one in found:
        groups.setdefault((one.reason, _severity(scene, model, one, quantity)), []).append(one)
    return [_frozen_finding(scene, model, severity, group) for (_, severity), group in groups.items()]


def _moving(tracks: dict[str, Track]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Sorted steps at which some layer moves: at the others nothing does (a rate of 0, a step that was skipped)."""
    first = next(iter(tracks.values())).steps
    moves = [np.isfinite(track.values) & (track.values > 0) for track in tracks.values()]
    if all(np.array_equal(track.steps, first) for track in tracks.values()) and np.all(first[1:] >= first[:-1]):
        return first[np.any(moves, axis=0)]
    return np.unique(np.concatenate([t.steps[moved] for t, moved in zip(tracks.values(), moves, strict=True)]))


def _still(
    scene: Scene, model: Model, layer: str, track: Track, moving: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> _Still | None:
    """The layer, where it stood still at the last observations at which others moved."""
    if not (track.values[-_FEWEST:] == 0).any():
        scene.gauge.keep("frozen-layer", 0.0, track.metric)
        return None
    begins = scene.meant.begins(layer)
    rows = np.flatnonzero(np.isin(track.steps, moving) & (track.steps >= begins) & np.isfinite(track.values))
    still = track.values[rows] == 0
    first = first_lasting(still)
    rested = 0 if first is None else len(rows) - first - 3 * _longest(still[:first])
    scene.gauge.keep("frozen-layer", float(max(rested, 0)), track.metric)
    if first is None or rested < scene.limit("frozen-layer", track):
        return None
    start = int(rows[first])
    reason = _reason(model, layer, track.steps[start])
    zeros = model.get("zero_grads", layer)
    if reason == "no move" and zeros is not None and np.nanmedian(zeros.values) >= _SPARSE:
        return None
    return _Still(layer, track, start, reason, first > 0, rested)


def _longest(holds: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """The longest run of rows at which something holds: layers that are dropped at random rest now and then."""
    ends = np.flatnonzero(~np.concatenate([[False], holds, [False]]))
    return int(np.diff(ends).max()) - 1 if len(ends) > 1 else 0


def _reason(model: Model, layer: str, since: float) -> _Reason:
    gradient = model.get("grad_norm", layer)
    late = gradient.values[gradient.steps >= since] if gradient is not None else np.empty(0)
    late = late[np.isfinite(late)]
    if len(late) == 0:
        return "no gradient"
    return "zero gradient" if not late.any() else "no move"


def _severity(scene: Scene, model: Model, one: _Still, quantity: str) -> Severity:
    if scene.meant.of(one.layer) == "train" or scene.meant.begins(one.layer) > -np.inf:
        return "critical"
    if not one.moved and (one.reason == "no gradient" or quantity == "grad_norm") and not _amid(model, one.layer):
        # Parameters that no loss uses are common (a pooler, a mask token): they harm nothing.
        return "info"
    return "warning"


def _amid(model: Model, layer: str) -> bool:
    """Whether a layer stands in a row of its like, of which those before and behind it have gradients."""
    stack = next((stack for stack in stacks_of([*model.layers("param_norm"), layer]) if layer in stack), [])
    having = [bool(gradient.values.any()) if (gradient := model.get("grad_norm", name)) else False for name in stack]
    place = stack.index(layer) if stack else 0
    return any(having[:place]) and any(having[place + 1 :])


def _rate_is_zero(scene: Scene) -> bool:
    """Whether the learning rate of a group is 0 for most of the run."""
    return any(len(rate.values) and float(np.median(rate.values)) == 0 for rate in scene.rates)


_SAID: dict[_Reason, str] = {
    "no gradient": "get no gradient at all",
    "zero gradient": "get a gradient of exactly 0",
    "no move": "get a gradient, and their weights do not move",
}
_WHY: dict[_Reason, str] = {
    "no gradient": "the loss does not depend on them: unused in forward, detached, or behind a branch that is off",
    "zero gradient": "what lies behind them passes nothing on: dead ReLUs, a multiplication by 0, a saturated gate",
    "no move": "the learning rate of their group is 0, or updates are below the resolution of the weights' precision",
}
_DO: dict[_Reason, tuple[str, ...]] = {
    "no gradient": (
        "set requires_grad to False, or leave them out of the optimizer, if that is meant",
        "else follow forward from these layers to the loss: detach, no_grad, an output that nobody reads",
    ),
    "zero gradient": (
        "look at the activations behind these layers",
        "see whether a weight or mask multiplies their branch by 0",
    ),
    "no move": (
        "print the optimizer's groups: which learning rate do these layers have",
        "keep the weights in float32 while training in bfloat16 or float16",
    ),
}


def _why_still(scene: Scene, told: _Still) -> str:
    if told.reason == "no move" and len(scene.rates) > 1:
        if _rate_is_zero(scene):
            return "the learning rate of a group of parameters is logged as 0"
        return "no learning rate is logged as 0: updates are below the resolution of the weights' precision"
    return _WHY[told.reason]


def _frozen_finding(scene: Scene, model: Model, severity: Severity, group: list[_Still]) -> Finding:
    group = sorted(group, key=lambda one: (one.track.steps[one.first], natural(one.layer)))
    told = group[0]
    names = [model.title(one.layer) for one in group]
    step = told.track.step_at(told.first)
    since = "all along" if not told.moved else f"since step {step:,}" if step is not None else "at the end"
    said = (
        _SAID[told.reason]
        if len(group) > 1
        else _SAID[told.reason].replace("get a", "gets a").replace("get no", "gets no")
    )
    meant = scene.meant.of(told.layer)
    expected = (
        ", which the plan says trains"
        if meant == "train"
        else ", which was to be unfrozen"
        if meant == "freeze"
        else ""
    )
    counted = f"{len(group)} layers ({some(names)})" if len(group) > 1 else names[0]
    return Finding(
        "frozen-layer",
        severity,
        scene.run,
        f"{counted}{expected}: frozen {since}; {said if len(group) == 1 else 'they ' + said}",
        metric=told.track.metric,
        first_step=step,
        last_step=told.track.step_at(len(told.track.values) - 1),
        evidence={
            "model": model.name,
            "layer": told.layer,
            "layers": ", ".join(names[:50]),
            "count": len(group),
            "gradient": told.reason,
            "moved_before": told.moved,
            "observations": len(told.track.values) - told.first,
            "rows_still": float(told.rows),
            "limit": scene.limit("frozen-layer", told.track),
            "split": told.track.split,
        },
        causes=(_why_still(scene, told),),
        suggestions=_DO[told.reason],
    )
