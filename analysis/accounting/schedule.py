"""The schedule behind observed weights: pieces that are constant, linear or half a cosine, found by their residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Segment", "infer_schedule"]

Floats = NDArray[np.float64]
Shape = Literal["constant", "linear", "cosine", "free"]

#: More pieces than this are no schedule that somebody wrote down: the weights move freely.
_MOST_PIECES = 60
#: Resting places that are tried as the end of a cosine; the longest rests of a schedule are its phases.
_MOST_STOPS = 20
#: Weights of a long piece that are looked at before all of them are.
_LOOKED_AT = 32


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a schedule from step `start` to `end` (both included), the weight going from `first` to `last`."""

    start: float
    end: float
    shape: Shape
    first: float
    last: float


def infer_schedule(steps: Floats, weights: Floats, tolerance: float = 1e-6) -> list[Segment]:
    """Pieces of the schedule that `weights` follow, each within `tolerance` (the largest error of one weight).

    From each point on the longest piece is taken that fits, constant before linear before half a cosine. Weights that
    need more than 60 pieces are one piece of shape "free". Steps must be ascending; NaN is left out; nothing gives
    nothing, one weight a constant of one step.

    >>> steps = np.arange(0.0, 40)
    >>> weights = np.clip((steps - 10) / 20, 0, 1)
    >>> [(s.shape, s.start, s.end) for s in infer_schedule(steps, weights)]
    [('constant', 0.0, 10.0), ('linear', 11.0, 30.0), ('constant', 31.0, 39.0)]
    """
    known = np.isfinite(weights) & np.isfinite(steps)
    steps, weights = steps[known], weights[known]
    made: list[Segment] = []
    start = 0
    while start < len(weights):
        if len(made) >= _MOST_PIECES:
            return [_segment(steps, weights, 0, len(weights), "free")]
        end, shape = _next_piece(steps, weights, start, tolerance)
        made.append(_segment(steps, weights, start, end, shape))
        start = end
    return made


def _next_piece(steps: Floats, weights: Floats, start: int, tolerance: float) -> tuple[int, Shape]:
    """End (excluded) and shape of the piece that begins at `start`; a more complicated shape must reach further."""
    flat = _longest(steps, weights, start, tolerance, slope=False)
    sloped = _longest(steps, weights, start, tolerance, slope=True)
    # two points always lie on a line: a piece has to be clearly longer to be believed a ramp
    end, shape = (sloped, "linear") if sloped >= max(flat + 2, start + 3) else (flat, "constant")
    for stop in _stops(weights, start, tolerance):
        if stop < max(end + 2, start + 8):
            break
        if _is_cosine(steps[start:stop], weights[max(start - 1, 0)], weights[start:stop], tolerance):
            return stop, "cosine"
    return end, cast(Shape, shape)


def _stops(weights: Floats, start: int, tolerance: float) -> list[int]:
    """Where a ramp from `start` on may end, the furthest first: where the weights turn back, and where they rest."""
    step = np.diff(weights[start:])
    moving = np.flatnonzero(np.abs(step) > 0)
    if len(moving) == 0:
        return []
    against = np.flatnonzero(step * np.sign(step[moving[0]]) < -2 * tolerance)
    turn = int(against[0]) if len(against) else len(step)
    moving = moving[moving < turn]
    rests = np.diff(moving, append=turn)
    longest = moving[np.argsort(rests, kind="stable")[-_MOST_STOPS:]]
    return sorted({start + int(m) + 2 for m in longest} | {start + turn + 1}, reverse=True)


def _longest(steps: Floats, weights: Floats, start: int, tolerance: float, *, slope: bool) -> int:
    """End (excluded) of the longest piece from `start` on that fits: doubled until it fails, then halved."""
    good, bad = start + 1, len(weights) + 1
    width = 2
    while good < len(weights):
        end = min(start + width, len(weights))
        if not _fits(steps[start:end], weights[start:end], tolerance, slope=slope):
            bad = end
            break
        good, width = end, width * 2
    while bad - good > 1 and bad <= len(weights):
        middle = (good + bad) // 2
        if _fits(steps[start:middle], weights[start:middle], tolerance, slope=slope):
            good = middle
        else:
            bad = middle
    return good


def _fits(steps: Floats, weights: Floats, tolerance: float, *, slope: bool) -> bool:
    """Whether all weights lie within `tolerance` of a constant, or of their line of least squares."""
    if not _may_fit(steps, weights, tolerance, slope=slope):
        return False
    spread = weights
    if slope and len(weights) > 1:
        x = steps - steps.mean()
        spread = weights - x * (x @ weights) / max(float(x @ x), 1e-300)
    return float(spread.max() - spread.min()) <= 2 * tolerance * (1 + 1e-9)


def _may_fit(steps: Floats, weights: Floats, tolerance: float, *, slope: bool) -> bool:
    """Whether a few of the weights leave room for a fit: what they tell spares looking at all of a long piece.

    Around any line that all weights keep within twice the tolerance, a weight in between cannot be further from the
    straight line through the first and the last one than that.
    """
    if len(weights) <= 4 * _LOOKED_AT:
        return True
    few = np.linspace(0, len(weights) - 1, _LOOKED_AT).astype(int)
    seen, first, last = weights[few], few[0], few[-1]
    if slope:
        share = (steps[few] - steps[first]) / max(float(steps[last] - steps[first]), 1e-300)
        seen = seen - (weights[first] + share * (weights[last] - weights[first]))
    reach = float(np.abs(seen).max()) if slope else float(seen.max() - seen.min())
    return reach <= 2 * tolerance * (1 + 1e-6) + 1e-12 * float(np.abs(weights[few]).max())


def _is_cosine(steps: Floats, first: float, weights: Floats, tolerance: float) -> bool:
    """Whether `weights` are the half cosine that leads from the weight `first` to the last one."""
    moved = weights[-1] - first
    if abs(moved) <= 4 * tolerance:
        return False
    share = (weights - first) / moved
    inside = (share > 0.05) & (share < 0.95)
    if inside.sum() < 4:
        return False
    # the half cosine made straight: its phase is linear in the step, which gives both of its ends
    phase = np.arccos(1 - 2 * share[inside]) / np.pi
    x = steps - steps.mean()
    slope, offset = np.polyfit(x[inside], phase, 1)
    curve = first + moved * (1 - np.cos(np.pi * np.clip(slope * x + offset, 0, 1))) / 2
    begins_there = slope * x[0] + offset > -2 * slope * (x[1] - x[0])
    ends_there = slope * x[-1] + offset < 1 + 2 * slope * (x[-1] - x[-2])
    return bool(begins_there and ends_there and np.max(np.abs(curve - weights)) <= 3 * tolerance + 1e-6 * abs(moved))


def _segment(steps: Floats, weights: Floats, start: int, end: int, shape: Shape) -> Segment:
    first, last = weights[start], weights[end - 1]
    return Segment(float(steps[start]), float(steps[end - 1]), shape, float(first), float(last))
