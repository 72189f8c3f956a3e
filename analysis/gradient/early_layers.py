"""`vanishing-gradient` towards the input: early layers of a stack orders of magnitude below late ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Finding, Severity
from analysis.gradient.levels import ROWS, decades
from analysis.gradient.scene import Scene
from analysis.gradient.tracks import Model, Track, stacks_of, together

__all__ = ["KIND", "Number", "early_layers", "vanished"]

Number = float | int | str | bool | None
KIND = "vanishing-gradient"
#: A thousandth of the usual thousandth: a layer that changes by less a step stands still.
_STANDS_STILL = 1e-6
#: Of the loss at the start: what has to be gone for a run to have learned something.
_LEARNED = 0.05
#: Decades between the ends of a stack that are ten times the usual thousandfold: a warning unless the loss has fallen
#: by half, or it is logged that the early layers move.
_FAR_APART, _HALF = 4.0, 0.5
_FEWEST = 5
#: Parts of a log in which the distance is asked for, each by the medians of its rows.
_PARTS = 12
#: Share of a run, from its start, for which a loss that stands beside vanished gradients is worth a warning although
#: the layers woke later: a run of this length was had for nothing up to there.
_LOST = 1 / 3
_TRY = (
    "replace sigmoid or tanh by ReLU or GELU, or normalise between the layers",
    "add residual connections around the layers named",
    "initialise for the activation in use (Glorot for tanh, He for ReLU)",
)


@dataclass(frozen=True, slots=True)
class _Apart:
    """A stack whose ends lie `gap` decades apart up to row `last` of its early layer, and whether that is the end."""

    stack: list[str]
    gap: float
    last: int
    always: bool


def early_layers(scene: Scene, model: Model) -> list[Finding]:
    """The stack whose early layers have next to no gradient: all along, or while a third of the run learned nothing."""
    tracks = {layer: t for layer, t in model.layers("grad_norm").items() if len(t.values) >= _FEWEST}
    for stack in stacks_of(list(tracks)):
        apart = _apart(scene, tracks, stack)
        if apart is not None:
            return [_finding(scene, model, tracks, apart)]
    return []


def _apart(scene: Scene, tracks: Mapping[str, Track], stack: list[str]) -> _Apart | None:
    early = tracks[stack[0]]
    # The first rows are those of the initialisation: adapters begin at 0.
    steps, values = together([tracks[layer] for layer in stack])
    logs = decades(values[:, 1:])
    count = min(_PARTS, logs.shape[1] // 2)
    if count == 0:
        return None
    ends = np.linspace(0, logs.shape[1], count + 1).astype(int)
    gaps = np.array([_distance(logs[:, start:end]) for start, end in itertools.pairwise(ends)])
    always = float(gaps.min())
    reaches = scene.gauge.reaches(KIND, float(10.0**always), early.metric, stack[0])
    last = len(early.values) - 1
    if reaches:
        return _Apart(stack, float(np.median(gaps)), last, True)
    near = np.flatnonzero(gaps < np.log10(scene.limit(KIND, early)))
    parts = int(near[0]) if len(near) else count
    if parts < max(_LOST * count, 1) or not scene.lone:
        return None
    until = float(steps[ends[parts]])
    if len(scene.loss) < ROWS or scene.loss.fell_by(_LEARNED, until=until):
        return None
    return _Apart(stack, float(np.median(gaps[:parts])), int(np.searchsorted(early.steps, until)), False)


def _distance(logs: NDArray[np.float64]) -> float:
    """Decades from the early third of a stack (rows) to its late third, by the medians of some rows (columns).

    From the first layer to the last where no layer's norm lies below that of the one before; 0 where a layer has none.
    """
    medians = [float(np.median(known)) if len(known := row[np.isfinite(row)]) else np.nan for row in logs]
    if np.isnan(medians).any():
        return 0.0
    if len(medians) > 3 and all(np.diff(medians) >= 0):  # each layer takes its share: the ends tell how much in all
        return medians[-1] - medians[0]
    third = max(len(medians) // 3, 1)
    early, late = float(np.median(medians[:third])), float(np.median(medians[-third:]))
    return late - early if early <= min(medians[third:]) else 0.0


def _severity(scene: Scene, apart: _Apart, ratio: float | None, stuck: bool) -> Severity:
    """A warning where the early layers stand still, or the loss does and nothing shows that they move."""
    known = scene.lone and len(scene.loss) >= ROWS
    still = ratio is not None and ratio <= (10 * _STANDS_STILL if stuck else _STANDS_STILL)
    far = apart.gap >= _FAR_APART
    slowed = known and ratio is None and far and not scene.loss.fell_by(_HALF)
    return "warning" if still or slowed or (stuck and (ratio is None or far)) else "info"


def _finding(scene: Scene, model: Model, tracks: Mapping[str, Track], apart: _Apart) -> Finding:
    early, late = apart.stack[0], apart.stack[-1]
    track, gap, rows = tracks[early], apart.gap, slice(0, apart.last + 1)
    known = scene.lone and len(scene.loss) >= ROWS
    stuck = known and (not apart.always or not scene.loss.fell_by(_LEARNED))
    moves = model.get("update_ratio", early)
    ratio = float(np.nanmedian(np.where(np.isfinite(moves.values), moves.values, np.nan))) if moves else None
    small, large = (float(np.median(tracks[layer].values[rows])) for layer in (early, late))
    until = track.step_at(apart.last)
    long = "all along" if apart.always else "at first" if until is None else f"up to step {until:,}"
    message = (
        f"gradients vanish towards the input: {model.title(early)} has a norm of {small:.2g} where {model.title(late)} "
        f"has {large:.2g}, {gap:.1f} orders of magnitude apart {long}"
    ) + ("" if apart.always else ", and the loss does not fall until then")
    evidence: dict[str, Number] = {
        "early_layer": early,
        "late_layer": late,
        "early_norm": small,
        "late_norm": large,
        "times": 10.0**gap,
        "limit": scene.limit(KIND, track),
        "decades": gap,
        "layers": len(apart.stack),
        "share_of_the_run": (apart.last + 1) / len(track.values),
        "early_update_ratio": ratio,
        "loss_fell": not stuck if known else None,
    }
    severity = _severity(scene, apart, ratio, stuck)
    causes = _causes(apart, ratio)
    return vanished(scene, model, track, severity, (0, apart.last), message, causes, evidence, _TRY)


def _causes(apart: _Apart, ratio: float | None) -> list[str]:
    count, early = len(apart.stack), apart.stack[0]
    causes = [f"each of {count} layers passes on about {10 ** (-apart.gap / max(count - 1, 1)):.2g} of the gradient"]
    if ratio is None:
        return [*causes, "cannot tell from this log whether these layers move; record update_ratio (at.watch) to know"]
    moving = "it stands still" if ratio <= _STANDS_STILL else "the optimizer makes up for it"
    return [*causes, f"{early} changes by {ratio:.2g} of itself a step: {moving}"]


def vanished(
    scene: Scene,
    model: Model,
    track: Track,
    severity: Severity,
    rows: tuple[int, int],
    message: str,
    causes: list[str],
    numbers: Mapping[str, Number],
    tries: tuple[str, ...],
) -> Finding:
    """The finding about a series, from the first to the last of two rows."""
    return Finding(
        KIND,
        severity,
        scene.run,
        message,
        metric=track.metric,
        first_step=track.step_at(rows[0]),
        last_step=track.step_at(rows[1]),
        evidence={"model": model.name, "layer": track.layer, **numbers, "split": track.split},
        causes=tuple(causes),
        suggestions=tries,
    )
