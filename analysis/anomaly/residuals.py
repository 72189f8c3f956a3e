"""A noisy series taken apart: its scale (log or raw), its trend, and the local spread of what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from analysis.anomaly.rolling import rolling_moments, rolling_order, sorted_quantile

__all__ = [
    "METHODS",
    "Bands",
    "Method",
    "Scale",
    "choose_scale",
    "is_scheduled",
    "local_bands",
    "median_apart",
    "printed_step",
    "trend",
]

Floats = NDArray[np.float64]
Method = Literal["mad", "zscore", "iqr"]
METHODS: tuple[Method, ...] = ("mad", "zscore", "iqr")

#: Factors that bring the MAD, and the distance from median to quartile, to one standard deviation of a normal noise.
MAD_UNIT, QUARTILE = 1.482602218505602, 0.6744897501960817
#: A spread is estimated from this many windows of the trend: its error falls from 12 % at 101 rows to 6 % at 404.
SPREAD_WINDOWS = 4
#: The spread is estimated this often in its own window and interpolated between: neighbours share most of their rows.
_HOPS = 4
_SAMPLE = 4096
#: Windows from which on halving pays more than it costs.
_FEW = 64


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale on which a series is judged: `log` of value + `shift`, or `raw`; `step` is its last printed digit."""

    name: Literal["log", "raw"]
    shift: float = 0.0
    step: float = 0.0

    def forward(self, values: Floats) -> Floats:
        """Values on this scale; NaN where a value has no logarithm or is not finite."""
        kept = np.where(np.isfinite(values), values, np.nan)
        if self.name == "raw":
            return kept
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(kept + self.shift > 0, np.log(kept + self.shift), np.nan)

    def backward(self, scaled: Floats) -> Floats:
        """Values in their own unit again."""
        if self.name == "raw":
            return scaled
        with np.errstate(over="ignore"):
            found: Floats = np.exp(scaled) - self.shift
        return found


@dataclass(frozen=True, slots=True)
class Bands:
    """Local expectation of a residual: `centre`, the half-width of the `box` around it (quartiles; else 0), `unit`."""

    centre: Floats
    box: Floats
    unit: Floats


def printed_step(values: Floats) -> float:
    """The last decimal place that a log printed (0.0001 for `0.6931`), or 0 where values are not rounded.

    Whole numbers give 1. Up to 4096 values, evenly spread, are looked at.

    >>> printed_step(np.array([0.6931, 0.5, 12.25])), printed_step(np.array([1 / 3, 0.1]))
    (0.0001, 0.0)
    """
    seen = values[np.isfinite(values)]
    seen = np.abs(seen[:: max(1, len(seen) // _SAMPLE)])
    for digits in range(7):
        if len(seen) == 0 or seen.max() >= 1e9 / 10.0**digits:
            return 0.0  # too few digits are left behind the point to tell a rounded number from any other
        grown = seen * 10.0**digits
        if 0 < grown.max() < 0.5:
            continue  # that all are 0 to so many places says nothing of how they were printed
        if np.all(np.abs(grown - np.round(grown)) <= 1e-9 * np.maximum(grown, 1)):
            return float(10.0**-digits)
    return 0.0


def choose_scale(values: Floats, *, multiplicative: bool) -> Scale:
    """Log for a series of positive numbers whose noise is in proportion to its level, else raw.

    `multiplicative` says that the metric is of that sort by its role (losses, norms, times); other metrics are taken
    so when they are positive and span a factor of ten between their 5 % and 95 % quantiles. Values that come near
    their last printed digit get a shift of 20 such digits, so that rounding (0.0001 to 0.0003) is no threefold rise.
    """
    seen = values[np.isfinite(values)]
    step = printed_step(seen)
    if len(seen) == 0 or seen.min() < 0 or (seen.min() == 0 and step == 0.0):
        return Scale("raw", step=step)
    if not multiplicative:
        low, high = np.quantile(seen, [0.05, 0.95])
        if step == 1.0 or low <= 0 or high < 10 * low:
            return Scale("raw", step=step)
    return Scale("log", shift=20 * step if seen.min() < 100 * step else 0.0, step=step)


def is_scheduled(scaled: Floats) -> bool:
    """Whether a series follows a rule instead of noise: smooth almost everywhere, or standing still most of the time.

    Schedules bend and restart; at a bend there is no noise to compare with, so such series need another test.
    """
    seen = scaled[np.isfinite(scaled)]
    if len(seen) < 4:
        return True
    first = np.diff(seen)
    slope, bend = np.median(np.abs(first)), np.median(np.abs(np.diff(first)))
    return bool(slope == 0 or bend <= 0.02 * slope)


def trend(scaled: Floats, window: int, *, causal: bool = False) -> Floats:
    """What each row should be, by its neighbours: a running median that neither lags on slopes nor follows spikes.

    Centred windows shrink alike on both sides near the ends, so that they stay centred: on a falling curve the median
    of a lopsided window would lag, and the start of every healthy run would stand out. The first and the last row are
    therefore their own trend. Where a curve falls faster than its noise moves it, a running median goes through the
    points themselves; so the median is smoothed, taken off, and the median of the rest is added (Tukey's twicing),
    except where smoothing would blur a level shift. A window takes at most a quarter of the series, at least 9 rows.
    `causal=True` is the plain median of the rows before a row, NaN until a quarter of a window has passed.
    """
    span = span_of(len(scaled), window)
    if causal:
        least = max(3, span // 4)
        past = rolling_order(scaled, span, edge="causal", statistics=("median",), least=least)["median"]
        return np.concatenate([[np.nan], past[:-1]]) if len(past) else past
    rough = rolling_order(scaled, span, edge="symmetric", statistics=("median",))["median"]
    smooth, _ = rolling_moments(rough, max(3, span // 2) | 1, edge="symmetric", least=1)
    blurred = np.abs(rough - smooth) > neighbour_noise(scaled)
    smooth[blurred] = rough[blurred]
    return smooth + rolling_order(scaled - smooth, span, edge="symmetric", statistics=("median",))["median"]


def neighbour_noise(scaled: Floats) -> float:
    """Standard deviation of what changes from row to row, by how far rows lie from the middle of their neighbours.

    No slope enters it, and noise that hangs together over many rows hardly does. NaN for fewer than 3 rows.
    """
    bend = scaled[1:-1] - (scaled[2:] + scaled[:-2]) / 2
    seen = np.abs(bend[np.isfinite(bend)])
    return MAD_UNIT * float(np.median(seen)) / 1.5**0.5 if len(seen) else float("nan")


def span_of(count: int, window: int) -> int:
    """Rows of the trend's window: an odd number, at most about a quarter of the series unless that is below 9."""
    return min(window, max(9, count // 4)) | 1


def local_bands(residual: Floats, method: Method, width: int, *, causal: bool = False) -> Bands:
    """Centre and spread of the residuals around each row, from windows of `width` rows (behind it when causal).

    `width` at or above the length gives one band for all rows. Where most residuals are exactly zero, the MAD and the
    quartiles say nothing, and the 90 % quantile of the distance from the centre stands in for them.
    """
    n = len(residual)
    hop = max(1, width // _HOPS)
    grid = np.arange(0, n, hop) if causal else np.arange(0, n + hop - 1, hop).clip(max=max(n - 1, 0))
    if n <= width and not causal:
        grid = grid[:1]
    found = np.empty((3, len(grid)))
    padded = np.concatenate([np.full(min(width, n), np.nan), residual]) if causal else residual
    view = sliding_window_view(padded, min(width, len(padded)))
    starts = grid if causal else np.clip(grid - width // 2, 0, max(n - width, 0))
    for first in range(0, len(grid), 2048):
        part = slice(first, first + 2048)
        found[:, part] = _summaries(view[starts[part]], method)
    rows = np.arange(n)
    if causal:  # the last estimate that was complete before the row
        centre, box, unit = found[:, rows // hop]
    else:
        box = np.interp(rows, grid, found[1]) if found[1].any() else np.zeros(1)
        centre, unit = np.interp(rows, grid, found[0]), np.interp(rows, grid, found[2])
    return Bands(centre, box, unit)


def _summaries(windows: Floats, method: Method) -> Floats:
    """Centre, box and unit of each window."""
    ordered = np.sort(windows, axis=1)
    count = ordered.shape[1] - np.isnan(ordered).sum(axis=1)
    if method == "zscore":
        return _moments(ordered, count)
    centre = sorted_quantile(ordered, count, 0.5)
    middle, box = centre, np.zeros(len(windows))
    if method == "iqr":
        low, high = (sorted_quantile(ordered, count, share) for share in (0.25, 0.75))
        centre, box, unit = (low + high) / 2, (high - low) / 2, high - low
    else:
        unit = MAD_UNIT * median_apart(ordered, count, centre)
    still = unit == 0
    if still.any():
        factor = 0.5 if method == "iqr" else 1.0
        apart = np.sort(np.abs(ordered[still] - middle[still, None]), axis=1)
        unit[still] = factor * sorted_quantile(apart, count[still], 0.9) / 1.6448536269514722
    return np.stack([centre, box, unit])


def median_apart(ordered: Floats, count: NDArray[np.int64], centre: Floats) -> Floats:
    """Median distance of the first `count` values of each sorted row from its centre."""
    if len(ordered) < _FEW or (count < 1).any() or not np.isfinite(ordered[:, 0] + _last(ordered, count)).all():
        return sorted_quantile(np.sort(np.abs(ordered - centre[:, None]), axis=1), count, 0.5)
    upper = _reach_of(ordered, count, centre, count // 2 + 1)
    if (count % 2 == 1).all():
        return upper
    lower = _reach_of(ordered, count, centre, (count - 1) // 2 + 1)
    found: Floats = np.where(count % 2 == 1, upper, lower * 0.5 + upper * 0.5)
    return found


def _last(ordered: Floats, count: NDArray[np.int64]) -> Floats:
    return ordered[np.arange(len(ordered)), count - 1]


def _reach_of(ordered: Floats, count: NDArray[np.int64], centre: Floats, taken: NDArray[np.int64]) -> Floats:
    """Distance within which each centre has `taken` of the `count` values of its sorted row.

    They stand next to each other, since distances grow to either side of the centre: where they begin is found by
    halving, in a tenth of the time that sorting the distances takes.
    """
    rows, final = np.arange(len(ordered)), ordered.shape[1] - 1
    low, high = np.zeros_like(count), count - taken
    while (open_ := low < high).any():
        first = (low + high) // 2
        right = centre - ordered[rows, first] > ordered[rows, np.minimum(first + taken, final)] - centre
        low, high = np.where(open_ & right, first + 1, low), np.where(open_ & ~right, first, high)
    reach: Floats = np.maximum(centre - ordered[rows, low], ordered[rows, low + taken - 1] - centre)
    return reach


def _moments(ordered: Floats, count: NDArray[np.int64]) -> Floats:
    filled = np.where(np.isnan(ordered), 0.0, ordered)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=1) / count
        apart = np.where(np.isnan(ordered), 0.0, ordered - mean[:, None])
        unit = np.sqrt((apart**2).sum(axis=1) / (count - 1))
    return np.stack([mean, np.zeros(len(mean)), unit])
