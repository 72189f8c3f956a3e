"""`update-ratio`: steps that change the weights far more, or far less, than a thousandth of their size."""

from __future__ import annotations

import numpy as np

from analysis.findings import Finding
from analysis.gradient.scene import Scene, some
from analysis.gradient.tracks import WHOLE, Model, Track

__all__ = ["update_ratios"]

_KIND = "update-ratio"
#: The rule of thumb: about 1e-3 (A. Karpathy, CS231n notes "Neural Networks Part 3", ratio of weights to updates); two
#: orders of magnitude to either side is where UMLAUT and DeepDiagnosis begin to speak. A layer lies apart from the
#: median of all by as much.
_USUAL = 1e-3
_FEWEST = 5


def update_ratios(scene: Scene, model: Model) -> list[Finding] | str:
    """Whether the weights of a model, or of single layers, move at an unusual pace; or why that is not known."""
    whole = model.get("update_ratio")
    if whole is None or len(whole.values) < _FEWEST:
        return f"no update ratio is logged over {_FEWEST} or more observations (at.watch does)"
    usual = _usual(whole)
    if usual is None:
        return f"{whole.metric} is 0 in every row"
    layers = {layer: ratio for layer, t in model.layers("update_ratio").items() if (ratio := _usual(t)) is not None}
    middle = float(np.median(np.log10(list(layers.values())))) if len(layers) >= 3 else None
    limit = scene.limit(_KIND, whole)
    far = {n: abs(float(np.log10(r)) - middle) for n, r in layers.items() if middle is not None}
    scene.gauge.keep(_KIND, max(usual / _USUAL, _USUAL / usual, 10.0 ** max(far.values(), default=0.0)), whole.metric)
    apart = {n: layers[n] for n, off in far.items() if off >= np.log10(limit)}
    if _USUAL / limit <= usual <= _USUAL * limit and not apart:
        return []
    return [_finding(scene, model, whole, usual, apart, middle)]


def _usual(track: Track) -> float | None:
    """The median of what is above 0: the end of a schedule, and steps that were skipped, are not the run's pace."""
    known = track.values[np.isfinite(track.values) & (track.values > 0)]
    return float(np.median(known)) if len(known) >= 3 else None


def _finding(
    scene: Scene, model: Model, track: Track, usual: float, apart: dict[str, float], middle: float | None
) -> Finding:
    parts, causes = [], []
    limit = scene.limit(_KIND, track)
    off = max(usual / _USUAL, _USUAL / usual)
    if not _USUAL / limit <= usual <= _USUAL * limit:
        side, rate = ("more", "high") if usual > _USUAL else ("less", "low")
        parts.append(
            f"a step changes the weights{f' of {model.name}' if model.name else ''} by {usual:.2g} of their size, "
            f"far {side} than the usual {_USUAL:g}"
        )
        causes.append(f"the learning rate is too {rate} by a factor of about {off:,.0f}")
    if apart and middle is not None:
        worst = sorted(apart, key=lambda name: -abs(np.log10(apart[name]) - middle))
        parts.append(
            f"{worst[0]} moves by {apart[worst[0]]:.2g} of itself a step, the median layer by {10**middle:.2g}"
            + (f"; so far apart: {some(worst[1:])}" if len(worst) > 1 else "")
        )
        causes.append(f"{worst[0]} has weights, gradients or a learning rate of another size than the others")
    return Finding(
        _KIND,
        "info",
        scene.run,
        "; ".join(parts),
        metric=track.metric,
        first_step=track.step_at(0),
        last_step=track.step_at(len(track.values) - 1),
        evidence={
            "model": model.name,
            "update_ratio": usual,
            "usual": _USUAL,
            "times_off": max(off, *(10 ** abs(float(np.log10(r)) - (middle or 0.0)) for r in apart.values()), 1.0),
            "limit": limit,
            "layers_apart": len(apart),
            "layer": next(iter(apart), WHOLE),
            "layers_median": None if middle is None else 10**middle,
            "split": track.split,
        },
        causes=tuple(causes),
        suggestions=(
            "compare with a run that learns well",
            "change the learning rate by the factor named, or by group",
        ),
    )
