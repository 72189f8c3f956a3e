"""Rules that people use today, as plainly as they are documented, on the series that our reader finds in a log.

Global z-score and rolling IQR on the training loss, and the built-in rules of SageMaker Debugger (smdebug) with the
defaults that its documentation states ("List of Debugger built-in rules", Amazon SageMaker developer guide). Its rules
judge tensors; a log has their norms and means, so these stand in for them. A rule that has fired is over, as there:
one finding a rule and run. Left out, since they need tensors that no log holds: SaturatedActivation, TensorVariance,
PoorWeightInitialization, ClassImbalance, Confusion, CheckInputImages and those for text and trees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.faults.rules_seen import Seen, Track, seen_of
from benchmarks.faults.score_found import Found, Told
from benchmarks.faults.score_judging import Judge
from benchmarks.faults.score_truth import Truth
from eventstream.errors import AftertrainError

__all__ = ["KINDS_OF", "RULES", "global_z", "rolling_iqr", "smdebug"]

_WINDOW = 50  # rows that a rolling fence looks back on
#: What each rule may stand for, generously: any of these counts as found.
KINDS_OF: dict[str, tuple[str, ...]] = {
    "z > 3": ("loss-spike", "outlier", "level-shift", "divergence", "suspiciously-good"),
    "outside the fences": ("loss-spike", "outlier", "level-shift", "divergence", "variance-shift", "suspiciously-good"),
    "LossNotDecreasing": ("plateau", "divergence", "loss-spike", "level-shift", "oscillation"),
    "Overfit": ("overfitting", "train-eval-gap", "train-eval-scale-mismatch"),
    "Overtraining": ("overfitting", "plateau"),
    "VanishingGradient": ("vanishing-gradient", "frozen-layer", "dead-units"),
    "ExplodingTensor": ("non-finite", "exploding-gradient", "divergence", "amp-collapse", "hidden-non-finite"),
    "WeightUpdateRatio": ("update-ratio", "frozen-layer", "exploding-gradient"),
    "DeadRelu": ("dead-units",),
    "UnchangedTensor": ("frozen-layer", "plateau", "stale-values"),
    "AllZero": ("inactive-component", "vanishing-gradient", "dead-units", "frozen-layer", "hidden-non-finite"),
    "StalledTraining": ("stall", "clock-skew", "throughput-drop"),
    "StepOutlier": ("throughput-drop", "stall"),
    "GPUMemoryIncrease": ("memory-growth", "memory-overflow"),
}
Floats = NDArray[np.float64]


def _found(rule: str, track: Track, first: int, last: int | None = None) -> Found:
    end = track.steps[first if last is None else last]
    return Found(
        rule,
        "warning",
        f"{rule}: {track.name} at step {track.steps[first]:g}",
        int(track.steps[first]),
        int(end),
        track.name,
    )


def _stretches(rule: str, track: Track, flagged: NDArray[np.bool_]) -> Iterator[Found]:
    """One finding a stretch of flagged rows that follow one another."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flagged.astype(np.int8), [0]])))
    for first, behind in edges.reshape(-1, 2):
        yield _found(rule, track, int(first), int(behind) - 1)


def global_z(seen: Seen) -> Iterator[Found]:
    """Rows of the training loss more than three deviations from its mean."""
    if seen.loss is None:
        return
    values = seen.loss.finite()
    if len(values.values) > 1 and values.values.std() > 0:
        z = np.abs(values.values - values.values.mean()) / values.values.std()
        yield from _stretches("z > 3", values, z > 3)


def rolling_iqr(seen: Seen) -> Iterator[Found]:
    """Rows of the training loss outside Tukey's fences (1.5 IQR) of the 50 rows before them."""
    if seen.loss is None:
        return
    track = seen.loss.finite()
    if len(track.values) <= _WINDOW:
        return
    windows = np.lib.stride_tricks.sliding_window_view(track.values, _WINDOW)[:-1]
    low, high = np.quantile(windows, [0.25, 0.75], axis=1)
    flagged = np.zeros(len(track.values), bool)
    room, later = 1.5 * (high - low), track.values[_WINDOW:]
    flagged[_WINDOW:] = (later < low - room) | (later > high + room)
    yield from _stretches("outside the fences", track, flagged)


def smdebug(seen: Seen) -> Iterator[Found]:
    """Every rule that fires, at its first place."""
    for rule in _SMDEBUG:
        yield from rule(seen)


def _first(rule: str, track: Track | None, flagged: NDArray[np.bool_]) -> Iterator[Found]:
    if track is not None and flagged.any():
        yield _found(rule, track, int(np.argmax(flagged)))


def _loss_not_decreasing(seen: Seen, num_steps: int = 10) -> Iterator[Found]:
    """The eval loss, else the training loss, is not below its value of at least ten steps earlier."""
    track = seen.eval_loss or seen.loss
    if track is None or not len(track.steps):
        return
    last = 0
    for row in range(1, len(track.steps)):
        if track.steps[row] - track.steps[last] < num_steps:
            continue
        if not track.values[row] < track.values[last]:
            yield _found("LossNotDecreasing", track, row)
            return
        last = row


def _overfit(seen: Seen, ratio: float = 0.1) -> Iterator[Found]:
    """(eval - train) / train above 0.1 once, train being the mean since the eval before."""
    if seen.eval_loss is None or seen.loss is None:
        return
    since = -np.inf
    for row, step in enumerate(seen.eval_loss.steps):
        between = seen.loss.values[(seen.loss.steps > since) & (seen.loss.steps <= step)]
        since = step
        train = float(between.mean()) if len(between) else np.nan
        if train != 0 and (seen.eval_loss.values[row] - train) / train > ratio:
            yield _found("Overfit", seen.eval_loss, row)
            return


def _overtraining(seen: Seen, delta: float = 0.1) -> Iterator[Found]:
    """The training loss of 5 rows and the eval loss of 10 are no better by more than 0.1 than the best before."""
    if seen.eval_loss is None or seen.loss is None:
        return
    train, evals = _without_gain(seen.loss, delta), _without_gain(seen.eval_loss, delta)
    at = np.searchsorted(seen.loss.steps, seen.eval_loss.steps, side="right") - 1
    flagged = (evals >= 10) & (at >= 0) & (train[np.maximum(at, 0)] >= 5)
    yield from _first("Overtraining", seen.eval_loss, flagged)


def _without_gain(track: Track, delta: float) -> NDArray[np.int64]:
    """For each row, how many rows have gone by since the loss last fell by more than delta."""
    best, since, counts = np.inf, 0, []
    for value in track.values:
        since = 0 if value < best - delta else since + 1
        best = value if since == 0 else best
        counts.append(since)
    return np.array(counts, np.int64)


def _vanishing_gradient(seen: Seen) -> Iterator[Found]:
    for track in seen.gradients:
        fires = list(_first("VanishingGradient", track, track.values < 1e-7))
        if fires:
            yield fires[0]
            return


def _exploding_tensor(seen: Seen) -> Iterator[Found]:
    broken = [(track.steps[~np.isfinite(track.values)], track) for track in seen.every]
    broken = [(steps, track) for steps, track in broken if len(steps)]
    if broken:
        steps, track = min(broken, key=lambda one: one[0][0])
        yield _found("ExplodingTensor", track, int(np.flatnonzero(track.steps == steps[0])[0]))


def _any_of(rule: str, tracks: tuple[Track, ...], fires: Callable[[Floats], NDArray[np.bool_]]) -> Iterator[Found]:
    """The first track on which the rule fires."""
    for track in tracks:
        flagged = fires(track.values)
        if flagged.any():
            yield _found(rule, track, int(np.argmax(flagged)))
            return


def _unchanged(values: Floats) -> NDArray[np.bool_]:
    """Rows that are close to the two before them (numpy.allclose over 3, rtol 1e-5, atol 1e-8)."""
    flagged = np.zeros(len(values), bool)
    if len(values) >= 3:
        near = np.isclose(values[1:], values[:-1], rtol=1e-5, atol=1e-8)
        flagged[2:] = near[1:] & near[:-1]
    return flagged


def _stalled_training(seen: Seen) -> Iterator[Found]:
    yield from _first("StalledTraining", seen.clock, _gaps(seen.clock) > 1800)


def _step_outlier(seen: Seen) -> Iterator[Found]:
    """More than ten rows that took longer than mean + 3 deviations."""
    gaps = _gaps(seen.clock)
    if len(gaps) > 1:
        slow = gaps > gaps[1:].mean() + 3 * gaps[1:].std()
        yield from _first("StepOutlier", seen.clock, slow if slow.sum() > 10 else np.zeros(len(gaps), bool))


def _gaps(clock: Track | None) -> Floats:
    """Seconds since the row before, 0 for the first."""
    return np.zeros(0) if clock is None else np.diff(clock.values, prepend=clock.values[:1])


def _gpu_memory_increase(seen: Seen) -> Iterator[Found]:
    """The moving average of 10 rows has risen by 5 points; where no limit is known, by 5 % of where it began."""
    for track in seen.memory:
        values = track.finite().values
        if len(values) < 20 or values[0] <= 0:
            continue
        mean = np.convolve(values, np.full(10, 0.1), mode="valid")
        rise = np.concatenate([np.zeros(9, bool), mean > 1.05 * mean[0]])
        if rise.any():
            yield _found("GPUMemoryIncrease", track.finite(), int(np.argmax(rise)))
            return


_SMDEBUG: tuple[Callable[[Seen], Iterator[Found]], ...] = (
    _loss_not_decreasing,
    _overfit,
    _overtraining,
    _vanishing_gradient,
    _exploding_tensor,
    lambda seen: _any_of("WeightUpdateRatio", seen.update_ratios, lambda v: (v > 10) | (v < 1e-8)),
    lambda seen: _any_of("DeadRelu", seen.dead_units, lambda v: v > 0.5),
    lambda seen: _any_of("UnchangedTensor", seen.losses + seen.weights, _unchanged),
    lambda seen: _any_of("AllZero", seen.losses + seen.gradients, lambda v: v == 0),
    _stalled_training,
    _step_outlier,
    _gpu_memory_increase,
)


def _judged_by(rule: Callable[[Seen], Iterator[Found]], truth: Truth, logs: Path) -> Told:
    import aftertrain as at

    try:
        seen = seen_of(at.load(logs / truth.path))
    except AftertrainError as error:
        return Told(truth.id, read=False, error=str(error))
    return Told(truth.id, read=seen.loss is not None, found=tuple(rule(seen)))


def _by_global_z(truth: Truth, logs: Path) -> Told:
    return _judged_by(global_z, truth, logs)


def _by_rolling_iqr(truth: Truth, logs: Path) -> Told:
    return _judged_by(rolling_iqr, truth, logs)


def _by_smdebug(truth: Truth, logs: Path) -> Told:
    return _judged_by(smdebug, truth, logs)


def _version() -> str:
    here = Path(__file__)
    return hashlib.sha256(here.read_bytes() + here.with_name("rules_seen.py").read_bytes()).hexdigest()[:16]


RULES = (
    Judge("global z-score", _version(), _by_global_z, KINDS_OF),
    Judge("rolling IQR", _version(), _by_rolling_iqr, KINDS_OF),
    Judge("smdebug rules", _version(), _by_smdebug, KINDS_OF),
)
