"""A log that ends high up: rows at its end that no others follow, so that a centred trend goes through them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.detection import Detection
from analysis.anomaly.episodes import Episode
from analysis.anomaly.log_series import Series
from analysis.anomaly.residuals import neighbour_noise

__all__ = ["open_end"]

Floats = NDArray[np.float64]
#: Rows at the end that are looked at (longer stretches are changes of level), and rows before that say what was due.
_LONGEST, _BEFORE = 50, 50
#: Lengths that are tried first: of a leap of any length one of them covers three quarters or more.
_TRIED = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 19, 24, 31, 40, 50)
#: Rows in all at least, rows of the end that must lie above the middle of the leap, and its least height as a factor.
_FEWEST, _ABOVE, _LEAST = 30, 0.9, 1.3


def open_end(series: Series, found: Detection) -> Episode | None:
    """The leap from which a loss had not come back when its log ends; None where it ends as was due.

    For every length up to 50 rows (a quarter of the log at most) the median of the last rows is held against the line
    that leads to them through the 50 rows before. A leap must exceed the threshold of the series, in spreads of those
    rows or of the noise between neighbours, and a factor of 1.3; and nearly all of its rows must keep it.
    """
    if found.scale is None or found.scale.name != "log" or not np.isfinite(found.threshold):
        return None
    row = np.flatnonzero(np.isfinite(series.values))
    scaled = found.scale.forward(series.values[row])
    if len(scaled) < _FEWEST or not np.isfinite(scaled).all():
        return None
    longest = min(_LONGEST, len(scaled) // 4)
    if _leap(scaled, found.threshold, [length for length in _TRIED if length <= longest]) is None:
        return None  # nearly every log: all lengths are tried only where some of them show a leap
    best = _leap(scaled, found.threshold, range(1, longest + 1))
    return None if best is None else _episode(series, found, row, *best)


def _leap(scaled: Floats, threshold: float, lengths: Iterable[int]) -> tuple[float, int, float] | None:
    """The clearest leap at the end of one of `lengths`: its score, its first row and what was due."""
    noise, log_least = neighbour_noise(scaled), float(np.log(_LEAST))
    least = max(threshold * noise, log_least)
    best: tuple[float, int, float] | None = None
    for length in lengths:
        first = len(scaled) - length
        before, end = scaled[max(0, first - _BEFORE) : first], float(np.median(scaled[first:]))
        early, late = _halves(before)
        if end - min(early, late) <= least:
            continue  # nothing lower is due, and no spread is less than the noise: nearly every log ends here
        due, spread = _due(before, early, late, noise)
        height = end - due
        kept = float(np.mean(scaled[first:] > due + height / 2))
        if spread > 0 and height > max(threshold * spread, log_least) and kept >= _ABOVE:
            score = height / spread
            if best is None or score * length**0.5 > best[0] * (len(scaled) - best[1]) ** 0.5:
                best = score, first, due
    return best


def _halves(before: Floats) -> tuple[float, float]:
    """Medians of the first half of some rows, and of the second."""
    half = len(before) // 2
    return float(np.median(before[:half])), float(np.median(before[half:]))


def _due(before: Floats, early: float, late: float, noise: float) -> tuple[float, float]:
    """Where rows lead to, by a line through the medians of their halves, and how far they scatter about it."""
    half = len(before) // 2
    slope = (late - early) / max(len(before) - half, 1)
    line = late + slope * (np.arange(len(before)) - half - (len(before) - half - 1) / 2)
    rest = before - line
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    # a fall that is about to end leads below itself: nothing lower than the lowest level is due
    return max(float(line[-1] + slope), min(early, late)), max(spread, noise)


def _episode(series: Series, found: Detection, row: NDArray[np.int64], score: float, first: int, due: float) -> Episode:
    assert found.scale is not None
    values = series.values[row[first:]]
    peak = int(np.argmax(values))
    reach = score and (float(np.log(values[peak] + found.scale.shift)) - due) / score
    low, expected, high = found.scale.backward(
        np.array([due - found.threshold * reach, due, due + found.threshold * reach])
    )
    return Episode(
        series,
        "spike",
        int(row[first]),
        int(row[-1]),
        int(row[first + peak]),
        float(values[peak]),
        float(expected),
        float(low),
        float(high),
        score,
        len(values),
        None,
    )
