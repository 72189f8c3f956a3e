"""Whether train and eval are measured on one scale: a constant factor or offset between them, there from the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.generalisation.trend import neighbour_noise, theil_sen

__all__ = ["LARGE", "Mismatch", "find_mismatch"]

Floats = NDArray[np.float64]
#: A factor from here on (or its inverse) is no longer dropout, augmentation or a harder eval set.
LARGE = 3.0
#: A whole factor is told from here on.
_LEAST_WHOLE = 2
#: A factor within this share of a whole number, with an interval as narrow, is taken for that number.
_WHOLE = 0.05
#: The ratio may wander so much over the run (in logs) and still be called constant; memorising moves it by far more.
_WANDER = 0.12
#: Train must have fallen by so much between the evals, or a factor and an offset look alike and prove nothing.
_CHANGE = 0.2
#: An offset is a missing component from this share of the first train level on.
_OFFSET = 0.25


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What stands between train and eval: `kind`, its `size` with a 95 % interval, `whole` factor where it is one.

    A factor is eval / train, an offset eval - train; `inverse` says that `whole` is train / eval.
    """

    kind: Literal["factor", "offset", "percent"]
    size: float
    low: float
    high: float
    whole: int | None = None
    inverse: bool = False

    @property
    def times(self) -> float:
        """How many times one side is the other."""
        return max(self.size, 1 / self.size) if self.size > 0 else 1.0

    def counts(self, large: float) -> bool:
        """Whether a factor is `large`, or whole and at least two thirds of that; offsets and percent always count."""
        whole = min(large, max(_LEAST_WHOLE, large * _LEAST_WHOLE / LARGE))
        return self.kind != "factor" or (self.times >= large if self.whole is None else self.whole >= whole)


def find_mismatch(
    x: Floats, evaluated: Floats, train: Floats, *, lower: bool = True, large: float = LARGE
) -> Mismatch | None:
    """The constant factor or offset by which eval differs from train all along, or None.

    All arrays have one length; `train` is smoothed at the eval points. For losses (`lower`) a constant factor counts
    from `large` (3, or below 1/3) on, and from 2 on when it is a whole number to within its interval; an offset from a
    quarter of the first train level on. Both must hold at the first evals already, when a model has had no time to
    memorise, and train must meanwhile have changed by a fifth. For accuracies only percent against fractions is looked
    for.
    Fewer than five points, or losses that are not positive, give None.

    >>> x = np.arange(10.0)
    >>> find_mismatch(x, 8 * np.exp(-x / 5), np.exp(-x / 5)).whole
    8
    """
    if len(x) < 5:
        return None
    if not lower:
        return _percent(evaluated, train)
    if (train <= 0).any() or (evaluated <= 0).any() or np.ptp(np.log(train)) < _CHANGE:
        return None
    logs = np.log(evaluated / train)
    ratio = _constant(x, logs, _WANDER)
    gap = evaluated - train
    offset = _constant(x, gap / train[0], _OFFSET / 4)
    if offset is not None and _closer(train + np.median(gap), train * np.exp(np.median(logs)), evaluated):
        middle, half = offset
        if abs(middle) >= _OFFSET and abs(middle) > 4 * half:
            size, reach = middle * float(train[0]), half * float(train[0])
            return Mismatch("offset", size, size - reach, size + reach)
        return None
    return None if ratio is None else _factor(*ratio, large)


def _constant(x: Floats, values: Floats, wander: float) -> tuple[float, float] | None:
    """Median and half width of its 95 % interval, where the values neither drift nor start elsewhere."""
    middle = float(np.median(values))
    scatter = float(np.median(np.abs(values - middle))) * 1.4826
    noise = neighbour_noise(values)
    if scatter > max(abs(middle) / 4, wander):
        return None
    drift = abs(theil_sen(x, values).value) * float(x[-1] - x[0])
    first = max(len(values) // 5, 2)
    early = abs(float(values[:first].mean()) - middle)
    if drift > wander + 3 * noise * np.sqrt(3 / len(values)) or early > min(
        wander + 3 * noise / np.sqrt(first), abs(middle) / 2
    ):
        return None
    return middle, 1.96 * 1.2533 * max(scatter, noise) / float(np.sqrt(len(values)))


def _closer(one: Floats, other: Floats, truth: Floats) -> bool:
    """Whether the first explains the truth better than the second, by a margin."""
    misses = [float(np.median(np.abs(np.log(np.maximum(guess, 1e-300) / truth)))) for guess in (one, other)]
    return misses[0] < 0.7 * misses[1]


def _factor(middle: float, half: float, large: float) -> Mismatch | None:
    inverse = middle < 0
    size = float(np.exp(abs(middle)))
    whole = round(size)
    narrow = half < _WHOLE and abs(np.log(size / max(whole, 1))) <= max(half, 0.005) and half * size < 0.25
    if whole >= _LEAST_WHOLE and narrow:
        return Mismatch("factor", *_bounds(middle, half), whole=whole, inverse=inverse)
    if size >= large:
        return Mismatch("factor", *_bounds(middle, half), inverse=inverse)
    return None


def _bounds(middle: float, half: float) -> tuple[float, float, float]:
    return float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half))


def _percent(evaluated: Floats, train: Floats) -> Mismatch | None:
    one, other = float(evaluated.max()), float(train.max())
    if not (min(one, other) <= 1 < 2 < max(one, other) <= 100) or min(one, other) <= 0:
        return None
    ratio = float(np.median(evaluated) / max(float(np.median(train)), 1e-12))
    if not 20 < max(ratio, 1 / max(ratio, 1e-12)) < 500:
        return None
    return Mismatch("percent", ratio, ratio, ratio, whole=100, inverse=other > one)
