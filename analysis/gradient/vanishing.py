"""`vanishing-gradient`: a norm that falls to nothing, or is nothing, while the loss stays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.findings import Finding, Severity
from analysis.gradient.early_layers import KIND, Number, early_layers, vanished
from analysis.gradient.levels import ROWS, decades, first_lasting, levels_of, printed_unit
from analysis.gradient.scene import Scene, some
from analysis.gradient.tracks import Model, Track

__all__ = ["vanishing"]

#: A run that fits its data lets the norm fall a thousandfold (the limit of the kind) as well, and its loss with it. Of
#: the loss at the start: what has to be gone for a run to have learned something.
_LEARNED = 0.05
#: The mean absolute gradient at which Amazon SageMaker Debugger's rule VanishingGradient speaks; of a norm, which is
#: larger than the mean, it is the surer sign.
_NOTHING = 1e-7
_FEWEST = 5
_TRY = (
    "look at what saturated: activations, gates, a softmax or a loss that is cut off (clamp, max)",
    "see whether the loss still depends on the parameters: detach, no_grad, a branch that is switched off",
    "resume from the last checkpoint before it with a lower learning rate",
)


def vanishing(scene: Scene, model: Model) -> list[Finding] | str:
    """Whether the gradient of a model, or of its early layers, vanished; or the reason why that cannot be told."""
    whole = model.get("grad_norm")
    if whole is None:
        return "no gradient norm is logged"
    if len(whole.values) < _FEWEST:
        return f"{whole.metric} has fewer than {_FEWEST} values"
    found = _zero(scene, model, whole)
    if isinstance(found, str):
        return found
    found = found or _fallen(scene, model, whole) or _never(scene, model, whole)
    return found or early_layers(scene, model)


def _zero(scene: Scene, model: Model, track: Track) -> list[Finding] | str:
    """The norm is exactly 0 to the end of the log."""
    first = first_lasting(track.values == 0)
    if first is None or len(track.values) - first < _FEWEST:
        return []
    if not scene.lone or len(scene.loss) < ROWS:
        return f"{track.metric} is 0 {_since(track, first)}, and without a loss beside it that tells nothing"
    before, last = scene.loss.at(track.steps[first]), scene.loss.last
    if first == 0 and _learned(scene):
        return f"{track.metric} is 0 in every row while the loss falls: it was not measured"
    if scene.loss.trend(before, last) == "fell" or _fitted(scene, last):
        return []
    past = track.values[:first][np.isfinite(track.values[:first])]
    if len(past) and np.median(past[-ROWS:]) <= 50 * printed_unit(track.values):
        return f"{track.metric} is printed with too few digits: what it rounds to 0 may be small only"
    message = f"the gradient norm{_of(model)} is exactly 0 {_since(track, first)}, with the loss at {last:.4g}"
    causes = ["the loss no longer depends on any parameter: every path to them is cut or saturated"]
    dead = {layer: t for layer, t in model.layers("dead_units").items() if len(t.values) and t.values[-1] >= 0.99}
    if dead:
        causes.insert(0, f"all units of {some(dead)} are dead")
    return [_told(scene, model, track, "critical", first, message, causes, {"zero_rows": len(track.values) - first})]


def _since(track: Track, first: int) -> str:
    step = track.step_at(first)
    return "in every row" if first == 0 else "to the end of the log" if step is None else f"from step {step:,} on"


def _of(model: Model) -> str:
    return f" of {model.name}" if model.name and model.name != "grad_norm" else ""


def _learned(scene: Scene) -> bool:
    """Whether the loss has fallen by something worth it since the start."""
    first = scene.loss.first
    return bool(scene.loss.last < first - _LEARNED * abs(first))


def _fitted(scene: Scene, level: float) -> bool:
    """Whether the loss is next to nothing: there is no gradient where nothing is left to learn."""
    return abs(level) <= max(1e-3 * abs(scene.loss.first), 1e-6)


def _fallen(scene: Scene, model: Model, track: Track) -> list[Finding]:
    """The level of the norm has fallen by orders of magnitude, and the loss has not."""
    logs = decades(track.values)
    known = logs[np.isfinite(logs)]
    levels = levels_of(known)
    if len(levels) == 0 or not scene.lone or len(scene.loss) < ROWS:
        return []
    # Below its first rows as well: the way back from an explosion is no vanishing.
    high, last = min(float(levels.max()), float(levels[0]) + 1.0), float(np.median(known[-ROWS:]))
    fallen = float(np.log10(scene.limit(KIND, track)))
    if not _fitted(scene, scene.loss.last) and not _learned(scene):
        scene.gauge.keep(KIND, float(10.0 ** (high - last)), track.metric)
    rows = np.flatnonzero(np.isfinite(logs))
    at = first_lasting(known <= high - fallen)
    if last > high - fallen or at is None or len(known) - at < _FEWEST:
        return []
    left = int(np.flatnonzero(known[:at] >= high - 1.0)[-1])
    before, end = scene.loss.at(track.steps[rows[left]]), scene.loss.last
    if _fitted(scene, end):
        return []
    # A run that has learned and lies still may have come to its end; one whose loss rose as the gradient went has not.
    sudden = at - left <= 3 * ROWS and scene.loss.trend(before, end) == "rose"
    if _learned(scene) and not sudden:
        return []
    severity: Severity = "critical" if not _learned(scene) else "warning"
    message = (
        f"the gradient norm{_of(model)} fell from {10**high:.3g} to {10**last:.3g}, by {high - last:.1f} orders of "
        f"magnitude, while the loss {'rose' if sudden else 'did not fall'}"
    )
    causes = [
        f"activations or the loss saturated{' at once' if sudden else ''}: the loss went from {before:.4g} to {end:.4g}"
    ]
    numbers = {
        "high": 10**high,
        "low": 10**last,
        "times": 10 ** (high - last),
        "limit": 10**fallen,
        "decades": high - last,
        "loss_before": before,
        "loss_after": end,
    }
    return [_told(scene, model, track, severity, int(rows[at]), message, causes, numbers)]


def _never(scene: Scene, model: Model, track: Track) -> list[Finding]:
    """The norm is next to nothing from the start, beside parameters of a usual size, and the loss does not move."""
    finite = track.values[np.isfinite(track.values) & (track.values > 0)]
    if len(finite) < _FEWEST or not scene.lone or len(scene.loss) < ROWS:
        return []
    usual = float(np.median(finite))
    if np.quantile(finite, 0.9) > _NOTHING or _fitted(scene, scene.loss.last):
        return []
    if scene.loss.trend(scene.loss.first, scene.loss.last) == "fell":
        return []
    message = (
        f"the gradient norm{_of(model)} is next to nothing all along ({usual:.2g}), and the loss stays where it was"
    )
    causes = ["the signal dies between the loss and the parameters, or the loss is scaled down to nothing"]
    return [_told(scene, model, track, "critical", 0, message, causes, {"norm": usual})]


def _told(
    scene: Scene,
    model: Model,
    track: Track,
    severity: Severity,
    row: int,
    message: str,
    causes: list[str],
    numbers: Mapping[str, Number],
) -> Finding:
    return vanished(scene, model, track, severity, (row, len(track.values) - 1), message, causes, numbers, _TRY)
