"""Rows of one series that its neighbours do not allow: scores, bounds and the threshold behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.calibration import lone_leap, normal_threshold, tail_threshold
from analysis.anomaly.confirmation import confirmed
from analysis.anomaly.residuals import (
    QUARTILE,
    SPREAD_WINDOWS,
    Bands,
    Method,
    Scale,
    choose_scale,
    local_bands,
    trend,
)
from analysis.anomaly.rolling import rolling_moments, rolling_order

__all__ = ["Detection", "Settings", "detect"]

Floats = NDArray[np.float64]
#: Fewer finite values than this are not judged: neither spread nor tail can be known from them.
FEWEST = 12
#: The smallest deviation worth a word: a tenth of the expected value on the log scale, three printed digits on any.
LEAST_FACTOR, LEAST_SUSTAINED, LEAST_DIGITS = 1.1, 1.2, 3.0
#: So many times more often than a leap of a loss may a value be flagged by chance that is told as information.
INFORMED = 2.5
#: Numbers of neighbours whose mean is tested besides the single row: long, low spikes hide in the noise of each row.
SUSTAINED, _MANY = (5, 20), 20


@dataclass(frozen=True, slots=True)
class Settings:
    """How to look for outlying rows, checked when made; see `analysis.anomalies.anomalies` for the meaning."""

    method: Method = "mad"
    scope: Literal["rolling", "global"] = "rolling"
    on: Literal["residual", "raw"] = "residual"
    window: int = 101
    causal: bool = False
    threshold: float | None = None
    false_alarms: float = 0.01

    def __post_init__(self) -> None:
        allowed = {"method": ("mad", "zscore", "iqr"), "scope": ("rolling", "global"), "on": ("residual", "raw")}
        for name, known in allowed.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 5:
            raise ValueError(f"window must be a whole number of at least 5 rows, not {self.window!r}")
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise ValueError(f"threshold must be a positive number, not {self.threshold!r}")
        if not 0 < self.false_alarms < 1:
            raise ValueError(f"false_alarms must lie between 0 and 1 (expected per run), not {self.false_alarms!r}")


@dataclass(frozen=True, slots=True)
class Detection:
    """Rows of one series outside their bounds, in the series' own unit; `scale` None says it could not be judged."""

    rows: NDArray[np.int64]
    expected: Floats
    lower: Floats
    upper: Floats
    score: Floats
    threshold: float = float("nan")
    scale: Scale | None = None
    count: int = 0
    #: The largest multiple of what was expected that any row reached; NaN off the logarithmic scale.
    reached: float = float("nan")


def detect(
    values: Floats,
    settings: Settings,
    *,
    chance: float = 0.01,
    multiplicative: bool = False,
    loss: bool = False,
    least_factor: float = LEAST_FACTOR,
) -> Detection:
    """The outlying rows of one series, in the order logged.

    `chance` is this series' share of the false-alarm budget, of which leaps of a loss are; what lies outside in another
    way is information, and may be wrong 2.5 times as often. `multiplicative` puts a positive series on the log scale
    when residuals are judged; `loss` also tests the means of neighbouring rows, upward, and takes a leap to twice the
    expected value for one where nothing else in the series comes near it. `least_factor` is the least multiple of what
    is expected that is told on the log scale. A constant series has none; a
    constant series with a lone leap has one; a series with fewer than 12 finite values is not judged.
    """
    nothing = np.empty(0)
    finite = int(np.isfinite(values).sum())
    none = Detection(np.empty(0, np.int64), nothing, nothing, nothing, nothing, count=finite)
    if finite < FEWEST:
        return none
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        raw = settings.on == "raw"
        scale = Scale("raw") if raw else choose_scale(values, multiplicative=multiplicative)
        scaled = scale.forward(values)
        level = trend(scaled, settings.window, causal=settings.causal) if settings.on == "residual" else None
        residual = scaled if level is None else scaled - level
        bands = _bands(residual, settings)
        if level is not None:
            bands = _widened(bands, scaled, settings)
        return _judge(values, scaled, level, residual, bands, scale, settings, chance, loss, least_factor)


def _bands(residual: Floats, settings: Settings) -> Bands:
    n = len(residual)
    if settings.scope == "global":
        return local_bands(residual, settings.method, n)
    if settings.on == "residual":
        width = max(SPREAD_WINDOWS * settings.window, 20)
        return local_bands(residual, settings.method, width, causal=settings.causal)
    edge: Literal["causal", "centred"] = "causal" if settings.causal else "centred"
    zero = np.zeros(1)
    if settings.method == "zscore":
        mean, std = rolling_moments(residual, settings.window, edge=edge)
        return Bands(mean, zero, std)
    if settings.method == "mad":
        found = rolling_order(residual, settings.window, edge=edge, statistics=("median", "mad"))
        found["mad"] *= 1.482602218505602
        return Bands(found["median"], zero, found["mad"])
    found = rolling_order(residual, settings.window, edge=edge, statistics=("q25", "q75"))
    low, high = found["q25"], found["q75"]
    return Bands((low + high) / 2, (high - low) / 2, high - low)


def _widened(bands: Bands, scaled: Floats, settings: Settings) -> Bands:
    """Bands at least as wide as the noise between neighbours.

    Where a curve falls faster than its noise moves it, the running median goes through the points themselves and
    leaves nothing to measure; how far a row lies from the middle of its neighbours does not suffer from a slope.
    """
    bend = np.full(len(scaled), np.nan)
    if settings.causal:
        bend[2:] = scaled[2:] - 2 * scaled[1:-1] + scaled[:-2]
    else:
        bend[1:-1] = scaled[1:-1] - (scaled[2:] + scaled[:-2]) / 2
    other = _bands(bend, settings)
    factor = np.sqrt(6.0) if settings.causal else np.sqrt(1.5)
    return Bands(bands.centre, bands.box, np.fmax(bands.unit, other.unit / factor))


def _judge(
    values: Floats,
    scaled: Floats,
    level: Floats | None,
    residual: Floats,
    bands: Bands,
    scale: Scale,
    settings: Settings,
    chance: float,
    loss: bool,
    least_factor: float,
) -> Detection:
    """Scores against thresholds, and the flagged rows with their bounds."""
    apart = residual - bands.centre
    unit = np.maximum(bands.unit, _least_unit(scaled, level))
    score = apart / unit if not bands.box.any() else np.sign(apart) * np.maximum(np.abs(apart) - bands.box, 0.0) / unit
    if settings.threshold is not None:
        up = down = settings.threshold
        least = 0.0
    else:
        normal = _as_normal(score, settings.method)
        up = _of_method(
            tail_threshold(normal, chance / 2 if loss else chance * INFORMED / 2, lone=not loss), settings.method
        )
        down = _of_method(tail_threshold(-normal, chance * INFORMED / 4, lone=True), settings.method)
        least = float(np.log(least_factor)) if scale.name == "log" else 0.0
        if loss and scale.name == "log" and settings.method == "mad":
            up = min(up, lone_leap(score, apart))
    allowance = _Allowance(bands, unit, least, scale, values)
    flagged = allowance.beyond(apart, score, up, down)
    lone = flagged.copy()
    high = np.full(len(values), up) if settings.threshold is None and loss else None
    if high is not None and settings.on == "residual" and not settings.causal:
        sustained = _sustained(_as_normal(score, settings.method), chance / 8, high, settings.method)
        allowed = np.maximum(bands.box + high * unit, np.log(LEAST_SUSTAINED) if scale.name == "log" else 0.0)
        flagged |= sustained & (apart > allowed)
    else:
        high = None
    if level is not None and settings.threshold is None:
        flagged = confirmed(flagged, lone, scaled, apart, settings.window, settings.causal)
    rows = np.flatnonzero(flagged)
    centre = _at(bands.centre, rows) + (0.0 if level is None else level[rows])
    reach_up = allowance.reach(rows, up if high is None else high[rows])
    reach_down = allowance.reach(rows, down)
    return Detection(
        rows,
        scale.backward(centre),
        scale.backward(centre - reach_down),
        scale.backward(centre + reach_up),
        score[rows],
        up,
        scale,
        int(np.isfinite(values).sum()),
        float(np.exp(np.nanmax(apart))) if scale.name == "log" and level is not None else float("nan"),
    )


@dataclass(frozen=True, slots=True)
class _Allowance:
    """How far from its centre a row may lie: the threshold times its unit, and never less than what is worth a word."""

    bands: Bands
    unit: Floats
    least: float
    scale: Scale
    values: Floats

    def reach(self, rows: NDArray[np.int64] | slice, threshold: float | Floats) -> Floats:
        box, unit = _at(self.bands.box, rows), _at(self.unit, rows)
        return np.maximum(box + threshold * unit, self.least)

    def beyond(self, apart: Floats, score: Floats, up: float, down: float) -> NDArray[np.bool_]:
        found = (score > up) | (score < -down)
        if self.least > 0:
            found &= np.abs(apart) > self.least
        if self.scale.step > 0:
            found &= self._more_than_rounding(apart)
        return found

    def _more_than_rounding(self, apart: Floats) -> NDArray[np.bool_]:
        if self.scale.step == 0:
            return np.ones(len(apart), bool)
        if self.scale.name == "raw":
            return np.abs(apart) > LEAST_DIGITS * self.scale.step
        shifted = self.values + self.scale.shift
        return np.abs(shifted - shifted * np.exp(-apart)) > LEAST_DIGITS * self.scale.step


def _least_unit(scaled: Floats, level: Floats | None) -> float:
    """A spread below which differences are arithmetic: a flat series with one leap has a leap, not a division by 0."""
    some = (scaled if level is None else level)[:: max(1, len(scaled) // 4096)]
    some = np.abs(some[np.isfinite(some)])
    return float(max(1e-9 * some.max(), 1e-300)) if len(some) else 1e-300


def _at(values: Floats, rows: NDArray[np.int64] | slice) -> Floats:
    """Rows of an array that may be one number for all rows."""
    return values if len(values) == 1 else values[rows]


def _as_normal(score: Floats, method: Method) -> Floats:
    """Scores in standard deviations of a normal noise; those of fences count interquartile ranges from a quartile."""
    return score if method != "iqr" else np.sign(score) * QUARTILE + score * 2 * QUARTILE


def _of_method(normal: float, method: Method) -> float:
    return normal if method != "iqr" else max(0.0, (normal - QUARTILE) / (2 * QUARTILE))


def _sustained(normal: Floats, chance: float, high: Floats, method: Method) -> NDArray[np.bool_]:
    """Rows within runs of neighbours whose mean is too high; lowers `high` there to the bound of that mean.

    Scores are clipped before the mean, so that one leap does not smear; the spread of the means is measured on
    themselves, so that noise that hangs together from row to row raises the bound by as much as it should.
    """
    calm = np.clip(np.where(np.isfinite(normal), normal, 0.0), -3.0, 3.0)
    total = np.concatenate([[0.0], np.cumsum(calm)])
    found = np.zeros(len(normal), bool)
    for k in SUSTAINED:
        if len(normal) < 15 * k:
            continue
        mean = (total[k:] - total[:-k]) / k
        spread = max(1.482602218505602 * float(np.median(np.abs(mean - np.median(mean)))), 1.0 / np.sqrt(k))
        # few rows keep some of the tail of single rows; many are normal, and too few to fit a tail to
        share = mean / spread
        tail = tail_threshold(share, chance) if k < _MANY else normal_threshold(chance, len(normal) // k)
        bound = spread * tail
        starts = np.flatnonzero(mean > bound)
        if len(starts):
            covered = np.zeros(len(normal) + 1)
            np.add.at(covered, starts, 1)
            np.add.at(covered, starts + k, -1)
            inside = np.cumsum(covered[:-1]) > 0
            high[inside] = np.minimum(high[inside], _of_method(bound, method))
            found |= inside
    return found
