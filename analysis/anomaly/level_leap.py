"""A loss that leaps to a higher level from one row to the next, however far it had fallen before and goes on after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.residuals import neighbour_noise
from analysis.anomaly.rolling import rolling_order

__all__ = ["level_leap"]

Floats = NDArray[np.float64]
#: Rows of an arm: an eighth of the series, within these bounds.
_LEAST, _MOST = 8, 50
#: How many times the next largest rise elsewhere a leap must be: what rises again and again is a rhythm of training.
_ALONE = 1.5
#: Part of the leap that lies between the next few rows, that all later levels keep, and that the last level keeps.
_AT_ONCE, _KEPT, _LAST = 0.6, 0.25, 0.5


def level_leap(scaled: Floats, least: float) -> tuple[int, float, float] | None:
    """Row, level before and level after of the largest lasting leap upward; None where there is none.

    The medians of an eighth of the rows (8 to 50) on either side of a row are compared. A leap must exceed
    `4 + sqrt(2 ln(independent levels))` standard errors of that difference and `least`, be half as large again as any
    rise elsewhere, lie between a few rows, and be kept: no later level may come down to a quarter of it, and the last
    not to half. `scaled` has no holes.

    >>> row = np.arange(200)
    >>> noise = 0.2 * np.random.default_rng(0).normal(size=200)
    >>> level_leap(2 * np.exp(-row / 30) + noise + np.where(row >= 114, 1.0, 0.0), 0.26)[0]
    114
    >>> level_leap(2 * np.exp(-row / 30) + noise, 0.26) is None
    True
    """
    n = len(scaled)
    arm = int(np.clip(n // 8, _LEAST, _MOST))
    if n < 4 * arm:
        return None
    level = rolling_order(scaled, arm, edge="causal", least=arm, statistics=("median",))["median"][arm - 1 :]
    height = level[arm:] - level[:-arm]  # that of row r stands at r - arm
    top = int(np.argmax(height))
    sure = 4.0 + np.sqrt(2.0 * np.log(n / arm))
    if not height[top] > max(0.8 * least, sure * 2**0.5 * 1.2533 * neighbour_noise(scaled) / arm**0.5):
        return None
    elsewhere = np.abs(np.arange(len(height)) - top) > 2 * arm
    if height[top] < _ALONE * float(np.max(height[elsewhere], initial=0.0)):
        return None
    few = max(3, arm // 4)
    rows = range(max(few, top + arm // 2), min(n - few, top + arm + arm // 2) + 1)
    steps = [float(np.median(scaled[r : r + few]) - np.median(scaled[r - few : r])) for r in rows]
    row = rows[int(np.argmax(steps))]
    near = arm // 2
    before, after = float(np.median(scaled[row - near : row])), float(np.median(scaled[row : row + near]))
    leap = after - before
    later = level[row:]
    if len(later) == 0 or not leap > max(least, sure * _noise(scaled, row, arm)) or max(steps) < _AT_ONCE * leap:
        return None
    row = _exact(scaled, row, few, before, after)
    kept = later.min() >= before + _KEPT * leap and later[-1] >= before + _LAST * leap
    return (row, before, after) if kept else None


def _exact(scaled: Floats, about: int, reach: int, before: float, after: float) -> int:
    """The row near another that parts rows nearer to one level from rows nearer to the other with the fewest wrong."""
    low = max(0, about - reach)
    side = np.clip(scaled[low : about + reach], before, after) - (before + after) / 2
    return low + int(np.argmin(np.concatenate([[0.0], np.cumsum(side)])))


def _noise(scaled: Floats, row: int, arm: int) -> float:
    """Standard deviation of the difference of two medians about a row, by what lines through either side leave.

    Noise that hangs together from row to row makes it larger, as that of an autoregression of first order does.
    """
    rest = np.concatenate([_off_line(scaled[max(0, row - arm) : row]), _off_line(scaled[row : row + arm])])
    spread = 1.4826 * float(np.median(np.abs(rest)))
    calm = np.clip(rest, -3.0 * spread, 3.0 * spread)
    square = float(calm @ calm)
    together = float(np.clip(calm[1:] @ calm[:-1] / square, 0.0, 0.95)) if square > 0 else 0.0
    inflated = float(np.sqrt((1 + together) / (1 - together)))
    return float(np.sqrt(2.0 / arm)) * 1.2533 * spread * inflated


def _off_line(part: Floats) -> Floats:
    row = np.arange(len(part)) - (len(part) - 1) / 2
    slope = float(row @ part / (row @ row)) if len(part) > 2 else 0.0
    rest: Floats = part - slope * row
    return rest - np.median(rest)
