"""A smooth value of a noisy series at any place: robust local regression in a window that grows with the log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.residuals import median_apart
from analysis.anomaly.rolling import sorted_quantile

__all__ = ["smooth_at", "usual_window"]

Floats = NDArray[np.float64]
#: Elements of one batch of windows: bounds the memory at some 100 MB however many places are asked for.
_BATCH = 2_000_000
#: From so many places on, fits are made at points of the series a twelfth of a window apart, and joined by lines: a fit
#: over the whole window hardly bends between two of them (by a fiftieth of the noise that it leaves).
_MANY, _PER_WINDOW = 20_000, 12


def usual_window(points: int) -> int:
    """Window for a curve of that many points: a twentieth of it, odd, from 1 (no smoothing, under 20 points) to 201.

    A twentieth follows the bend of a training curve; 201 points take 30 % noise down to 2 %, and more buys little.

    >>> [usual_window(n) for n in (10, 60, 1000, 100_000)]
    [1, 3, 51, 201]
    """
    if points < 20:
        return 1
    return min(max(points // 20, 3) | 1, 201)


def smooth_at(x: Floats, y: Floats, at: Floats, *, window: int | None = None) -> Floats:
    """Smoothed values of the series (x, y) at the places `at`: local linear regression with tricube weights.

    `x` rises strictly and has no NaN, `y` is finite; `at` may lie anywhere, places outside the series take its end.
    `window` is the number of points in each fit (default `usual_window`); 1 interpolates linearly. Before each fit,
    points further than 5 robust standard deviations from their window's median are drawn in to that bound, so that a
    spike does not lift the curve. An empty series gives NaN. A straight line, unlike a mean, keeps its place where the
    curve is steep and at its ends (W. S. Cleveland, "Robust locally weighted regression", JASA 74 (1979)). More than
    20,000 places share fits that lie a twelfth of a window apart, joined by lines.

    >>> x = np.arange(200.0)
    >>> smooth_at(x, 3.0 - 0.01 * x, np.array([0.0, 99.5, 500.0])).round(3).tolist()
    [3.0, 2.005, 1.01]
    """
    if window is not None and window < 1:
        raise ValueError(f"window is {window} points; give 1 or more")
    n = len(x)
    if n == 0:
        return np.full(len(at), np.nan)
    width = min(usual_window(n) if window is None else window, n)
    places = np.clip(at, x[0], x[-1])
    if width < 3:
        return np.interp(places, x, y)
    fits = x[np.unique(np.append(np.arange(0, n, max(width // _PER_WINDOW, 1)), n - 1))]
    if len(places) > _MANY and len(fits) < len(places) // 2:
        return np.interp(places, fits, _fitted(x, y, fits, width))
    return _fitted(x, y, places, width)


def _fitted(x: Floats, y: Floats, places: Floats, width: int) -> Floats:
    per_batch = max(_BATCH // width, 1)
    parts = [_fit(x, y, places[i : i + per_batch], width) for i in range(0, len(places), per_batch)]
    return np.concatenate(parts) if parts else np.empty(0)


def _fit(x: Floats, y: Floats, places: Floats, width: int) -> Floats:
    start = np.clip(np.searchsorted(x, places) - width // 2, 0, len(x) - width)
    chosen = start[:, None] + np.arange(width)
    away = x[chosen] - places[:, None]
    values = _drawn_in(y[chosen])
    reach = np.abs(away).max(axis=1, keepdims=True) * (1 + 1 / width)
    weight = (1 - (np.abs(away) / np.where(reach > 0, reach, 1.0)) ** 3) ** 3  # 0: all rows of the window in one place
    total = weight.sum(axis=1)
    mean_x = (weight * away).sum(axis=1) / total
    mean_y = (weight * values).sum(axis=1) / total
    centred = away - mean_x[:, None]
    rise, run = (weight * centred * values).sum(axis=1), (weight * centred**2).sum(axis=1)
    slope = np.divide(rise, run, out=np.zeros_like(run), where=run > 0)
    fitted: Floats = mean_y - slope * mean_x
    return fitted


def _drawn_in(values: Floats) -> Floats:
    """Rows whose far-off values are moved to the bound; a row that is constant but for some spikes becomes flat."""
    ordered = np.sort(values, axis=1)
    count = np.full(len(ordered), ordered.shape[1])
    middle = sorted_quantile(ordered, count, 0.5)
    bound = 5 * 1.4826 * median_apart(ordered, count, middle)
    drawn: Floats = np.clip(values, (middle - bound)[:, None], (middle + bound)[:, None])
    return drawn
