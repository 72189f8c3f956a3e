"""The step in a series of spreads that nothing else explains: age, level and context, alone or beside the step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR", "SIDE", "clearest_step"]

Floats = NDArray[np.float64]
#: Blocks before and after a step at least, and those next to it in which the change must already be there in full.
SIDE, NEAR = 3, 3
#: Blocks that must lie on their own side of the middle, before and after, and how much of the step their medians show.
_KEPT, _SHOWN = 0.8, 0.5
#: Part of the step by which the next blocks must differ.
_AT_ONCE = 0.6
#: Standard errors of the step that healthy series stay below whatever their length, since the number of blocks has a
#: ceiling: simulated on Gaussian, heavy-tailed and autocorrelated noise (tests/analysis/settling/test_spread.py).
_SURE = 6.0
#: What a step leaves unexplained must be less than what all else without one leaves, by 5.5 natural logarithms of
#: likelihood; where it stands all by itself, this share of it is little enough too.
_LIKELIER, _BETTER = 5.5, 0.65
#: Blocks of few rows differ by chance by this variance at least, however well a step happens to fit them.
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class _Fit:
    """The best step beside some of what is known: block, height, its standard errors, variance that is left."""

    place: int
    height: float
    score: float
    variance: float
    alone: bool


def clearest_step(
    spread: Floats, known: Floats, rising: Sequence[int], young: float
) -> tuple[int, float, float] | None:
    """Block before which the step lies, its height and its standard errors; None where there is no clear one.

    `known` holds columns that may explain the spread: ones, age, level, and context. What is in `rising` explains a
    spread that grows with it and no other: a learning rate that falls makes no noise. A step may stand beside what
    grows slowly, since the noise of a loss grows with its age as well; but with the step so much less must be left
    than by all of these, and a bend, without one.
    """
    count = len(spread)
    splits = np.arange(max(SIDE, round(young * count)), count - SIDE + 1)
    if len(splits) == 0:
        return None
    least = _least_variance(spread, known, rising)
    likelier = float(np.exp(-2.0 * _LIKELIER / count))
    best: _Fit | None = None
    for columns in _sets(known.shape[1]):
        fit = _best_step(spread, known[:, columns], [columns.index(k) for k in columns if k in rising], splits)
        if fit is None or fit.score < _SURE or not _stays(spread, fit.place, fit.height):
            continue
        enough = max(_BETTER, likelier) if fit.alone else likelier
        if fit.variance <= enough * least and (best is None or fit.variance < best.variance):
            best = fit
    return None if best is None else (best.place, best.height, best.score)


def _sets(columns: int) -> Iterator[list[int]]:
    """What may explain the spread together: nothing, its age, one of the others, age and one of the others."""
    others = range(2, columns)
    return itertools.chain([[0], [0, 1]], ([0, k] for k in others), ([0, 1, k] for k in others))


def _least_variance(spread: Floats, known: Floats, rising: Sequence[int]) -> float:
    """The least variance that is left without a step; noise may also grow with its age along a bend."""
    bend = np.concatenate([known[:, :2], known[:, 1:2] ** 2], axis=1)
    tried = [
        (known[:, columns], [columns.index(k) for k in columns if k in rising]) for columns in _sets(known.shape[1])
    ]
    least = np.inf
    for part, up in [*tried[1:], (bend, [])]:
        found = np.linalg.lstsq(part, spread, rcond=None)[0]
        if (found[up] >= 0).all():
            rest = spread - part @ found
            least = min(least, float(rest @ rest) / (len(spread) - part.shape[1]))
    return least


def _best_step(spread: Floats, part: Floats, rising: Sequence[int], splits: NDArray[np.int64]) -> _Fit | None:
    """The step that leaves the least beside some columns; None where each turns one of `rising` about.

    All steps are fitted at once: each column of ones and zeros less what the other columns explain of it is what the
    step adds to them.
    """
    count, width = part.shape
    steps = (np.arange(count)[:, None] >= splits[None, :]).astype(np.float64)
    inverse = np.linalg.pinv(part)
    own, old = inverse @ spread, inverse @ steps
    rest, new = spread - part @ own, steps - part @ old
    square = np.maximum((new**2).sum(axis=0), 1e-12)
    height = new.T @ rest / square
    variance = np.maximum((rest @ rest - height**2 * square) / (count - width - 1), _LEAST)
    slopes = own[list(rising), None] - old[list(rising)] * height
    variance[(slopes < 0).any(axis=0)] = np.inf
    at = int(np.argmin(variance))
    if not np.isfinite(variance[at]):
        return None
    score = abs(float(height[at])) * float(np.sqrt(square[at] / variance[at]))
    return _Fit(int(splits[at]), float(height[at]), score, float(variance[at]), width == 1)


def _stays(spread: Floats, place: int, height: float) -> bool:
    """Whether a step is there in full at once, and nearly all blocks lie on their own side of it."""
    leap = float(spread[place : place + NEAR].mean() - spread[place - NEAR : place].mean())
    after, before = float(np.median(spread[place:])), float(np.median(spread[:place]))
    middle, way = (after + before) / 2, np.sign(height)
    kept = min(np.mean(way * (spread[place:] - middle) > 0), np.mean(way * (middle - spread[:place]) > 0))
    shown = way * (after - before) >= _SHOWN * abs(height)
    return bool(way * leap >= _AT_ONCE * abs(height) and kept >= _KEPT and shown)
