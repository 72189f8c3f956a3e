"""Whether train and eval have both settled, so that what lies between them is not being memorised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.generalisation.trend import theil_sen

__all__ = ["both_settled"]

Floats = NDArray[np.float64]
#: Evals over the last half at least: fewer do not show a trend.
_FEWEST = 8
#: Train may still fall by this share over the last half, and the gap grow by this share of itself.
_MOVES = 0.15
#: Train must be this share of where it began: below it a model has learned its data by heart, whatever moves.
_BY_HEART = 0.05


def both_settled(x: Floats, evaluated: Floats, train: Floats, start: float) -> bool:
    """Whether over the last half of the evals train hardly fell any more and the gap hardly grew.

    Memorising shows in a train loss that goes on falling while eval does not. Where both stand, far from nothing
    (`start` is the train loss at the beginning), a model repeats on eval what it does on train, and eval lies above it
    for another reason. For losses; fewer than 16 evals show no trend.

    >>> x = np.arange(30.0)
    >>> train = 0.2 + 0.8 * np.exp(-x / 4)
    >>> both_settled(x, train + 0.15 * (1 - np.exp(-x / 4)), train, 1.0)
    True
    >>> both_settled(x, np.maximum(np.exp(-x / 8), 0.4), np.exp(-x / 8), 1.0)
    False
    """
    half = slice(len(x) // 2, None)
    late, gap = train[half], evaluated[half] - train[half]
    if len(late) < _FEWEST or late.min() <= 0 or np.median(late) < _BY_HEART * start:
        return False
    span = float(x[-1] - x[len(x) // 2])
    falls = -theil_sen(x[half], np.log(late)).value * span
    grows = theil_sen(x[half], gap).value * span
    return bool(falls <= _MOVES and grows <= _MOVES * float(np.median(gap)))
