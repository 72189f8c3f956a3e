"""Peaks in the spectrum of a noisy series that red noise does not explain, with the chance of each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Peak", "clearest_peak", "detrended", "slow_peak"]

Floats = NDArray[np.float64]
#: Rows below which no rhythm can be told from noise, and cycles that make one.
FEWEST, CYCLES = 80, 10
#: Frequencies below this many cycles a series are taken for its trend.
_TRENDED = 3
#: What slower swings must hold of the variance, by their cycles from four to ten: what red noise of any persistence
#: holds in one of 2,000 series, and a margin (simulated, see the tests).
_HELD = np.array([0.85, 0.85, 0.83, 0.78, 0.68, 0.60, 0.52])
#: Frequencies that are averaged: a clock gives a line, a loop of feedback (momentum, an optimiser at the edge of
#: stability) a hump. Under the taper the averages are distributed as gamma of these shapes (simulated, see the tests).
_SHAPE = {1: 1, 3: 2, 9: 5, 31: 16, 101: 52}
#: Persistence of the red noise, and the share of white noise beside it, that are tried as a background.
_PERSISTENCE = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.87, 0.93, 0.97])
_WHITE = np.array([0.0, 0.05, 0.2, 0.5])
_BANDS = 40
#: Beyond so many robust standard deviations a row says no more than that it is far out: a spike is no rhythm.
_CLIP = 3.5


@dataclass(frozen=True, slots=True)
class Peak:
    """A frequency that stands out: its `period` in rows, `chance` that red noise shows one like it anywhere, `share`.

    `share` is the part of the variance of the detrended series that the peak and its overtones hold; `spread` is the
    standard deviation of that part; `width` the number of frequencies that were averaged.
    """

    period: float
    chance: float
    share: float
    spread: float
    width: int


def detrended(scaled: Floats) -> Floats:
    """A series less the mean of the quarter around each row (shorter towards the ends), far rows drawn in.

    >>> bool(np.abs(detrended(np.arange(100.0))).max() < 1e-9)
    True
    """
    n = len(scaled)
    row = np.arange(n)
    arm = np.minimum(np.minimum(row, n - 1 - row), max(n // 8, 2))
    total = np.concatenate([[0.0], np.cumsum(scaled - scaled[0])])
    rest = scaled - scaled[0] - (total[row + arm + 1] - total[row - arm]) / (2 * arm + 1)
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    found: Floats = np.clip(rest, -_CLIP * spread, _CLIP * spread) if spread > 0 else rest
    return found


def clearest_peak(rest: Floats) -> Peak | None:
    """The frequency of a detrended series that stands out most; None where it is short or has no spread.

    The periodogram (Hann taper, rows evenly spaced) is divided by a background: the spectrum of red noise of first
    order with white noise beside it that fits the medians of logarithmic bands best, and no less than the mean of the
    octaves below and above. What is left of one frequency is distributed exponentially, of the mean of several nearly
    as gamma. `chance` is corrected for the number of frequencies and widths (Bonferroni). Periods from 2 rows to a
    tenth of the series are looked at. The background follows M. Schulz and M. Mudelsee, "REDFIT", Computers &
    Geosciences 28 (2002), its robust fit M. E. Mann and J. M. Lees, Climatic Change 33 (1996).

    >>> noise = np.random.default_rng(0).normal(size=600)
    >>> swinging = clearest_peak(detrended(noise + 1.5 * np.sin(np.arange(600) / 4)))
    >>> round(swinging.period), swinging.chance < 1e-6, clearest_peak(detrended(noise)).chance > 0.01
    (25, True, True)
    """
    n = len(rest)
    if n < FEWEST or not np.ptp(rest) > 0:
        return None
    power = np.abs(np.fft.rfft((rest - rest.mean()) * np.hanning(n + 2)[1:-1]))[1:] ** 2
    frequency = np.arange(1, len(power) + 1) / n
    if not power.sum() > 0:
        return None
    power = np.maximum(power, 1e-12 * power.sum())
    red = _red_background(power, frequency)
    best: tuple[float, int, int] | None = None
    for width in (width for width in _SHAPE if width == 1 or 16 * width <= len(power)):
        smooth = _averaged(power, width)
        ground = np.maximum(red, _octaves(power, width))
        over = smooth / ground
        over[: CYCLES - 1] = 0.0
        place = int(np.argmax(over))
        chance = _beyond(float(over[place]) * _SHAPE[width], _SHAPE[width]) * len(power) * len(_SHAPE)
        if best is None or chance < best[0]:
            best = chance, place, width
    assert best is not None
    return _measured(power, rest, *best)


def slow_peak(rest: Floats) -> Peak | None:
    """Four to ten cycles that hold nearly all of what moves a detrended series; None where they hold too little.

    So low there are no octaves below to compare with. But red noise of any persistence, detrended alike, holds less
    than 85 % in three neighbouring frequencies about four cycles, and less than 52 % about ten, but for 1 series in
    1,000 (simulated, see the tests): that is the `chance`.
    """
    n = len(rest)
    if n < FEWEST or not np.ptp(rest) > 0:
        return None
    power = np.abs(np.fft.rfft((rest - rest.mean()) * np.hanning(n + 2)[1:-1]))[1:] ** 2
    if not power.sum() > 0:
        return None
    held = np.convolve(power, np.ones(3), "same")[3:CYCLES] / power.sum()
    place = int(np.argmax(held - _HELD))
    if held[place] < _HELD[place]:
        return None
    near = np.arange(place + 2, place + 5)
    cycles = float(power[near] @ (near + 1) / power[near].sum())
    share = float(held[place])
    return Peak(n / cycles, 0.001, share, float(np.std(rest)) * share**0.5, 1)


def _red_background(power: Floats, frequency: Floats) -> Floats:
    """Expected power of the red noise that fits the medians of bands best."""
    edges = (np.unique(np.geomspace(1, len(power) + 1, _BANDS).astype(np.int64)) - 1).tolist()
    # the lowest frequencies were taken away with the trend, and the median of few is no median
    bands = [(a, b) for a, b in itertools.pairwise(edges) if a >= CYCLES - 1 and b - a >= 3]
    if len(bands) < 4:
        return np.full(len(power), float(np.median(power)) / np.log(2))
    middle = np.array([np.log(np.median(power[a:b])) for a, b in bands]) - np.log(np.log(2))
    centre = np.array([frequency[a:b].mean() for a, b in bands])
    models = _models(centre)
    apart = middle[None, :] - np.log(models)
    level = np.median(apart, axis=1)
    chosen = int(np.argmin(np.abs(apart - level[:, None]).mean(axis=1)))
    found: Floats = np.exp(level[chosen]) * _models(frequency)[chosen]
    return found


def _models(frequency: Floats) -> Floats:
    """Spectra of unit variance, one a persistence and share of white noise."""
    rho = _PERSISTENCE[:, None]
    red = (1 - rho**2) / (1 + rho**2 - 2 * rho * np.cos(2 * np.pi * frequency)[None, :])
    mixed = (1 - _WHITE[:, None, None]) * red[None] + _WHITE[:, None, None]
    found: Floats = mixed.reshape(-1, len(frequency))
    return found


def _averaged(power: Floats, width: int) -> Floats:
    if width == 1:
        return power.copy()
    total = np.concatenate([[0.0], np.cumsum(power)])
    row = np.arange(len(power))
    low, high = np.maximum(row - width // 2, 0), np.minimum(row + width // 2 + 1, len(power))
    found: Floats = (total[high] - total[low]) / (high - low)
    return found


def _octaves(power: Floats, width: int) -> Floats:
    """The larger mean power of the half octave to two octaves below each frequency, and above it, itself left out.

    Red noise falls, so what lies below is higher; a moving average leaves lobes, each as wide as its neighbours. The
    very lowest frequencies were taken away with the trend and are no part of it.
    """
    total = np.concatenate([[0.0], np.cumsum(power)])
    row, arm = np.arange(len(power)), width // 2 + 2
    low, high = np.maximum((row + 1) * 4 // 10, _TRENDED), np.minimum((row + 1) * 9 // 5, len(power))
    left, right = np.maximum(row - arm + 1, low), np.minimum(row + arm, high)
    enough = 4
    below = np.where(left - low >= enough, (total[left] - total[low]) / np.maximum(left - low, 1), np.inf)
    above = np.where(high - right >= enough, (total[high] - total[right]) / np.maximum(high - right, 1), 0.0)
    found: Floats = np.maximum(below, above)
    return found


def _beyond(reach: float, shape: int) -> float:
    """Probability that a gamma variable of a whole shape and unit scale exceeds `reach` (Erlang's sum)."""
    if reach > 600:
        return 0.0
    term = total = 1.0
    for j in range(1, shape):
        term *= reach / j
        total += term
    return float(np.exp(-reach) * total)


def _measured(power: Floats, rest: Floats, chance: float, place: int, width: int) -> Peak:
    arm = width // 2 + 1
    inside = np.zeros(len(power), bool)
    for overtone in (1, 2, 3):
        middle = (place + 1) * overtone - 1
        inside[max(0, middle - arm) : middle + arm + 1] = True
    share = float(power[inside].sum() / power.sum())
    near = slice(max(0, place - arm), place + arm + 1)
    peak = float(power[near] @ (np.arange(len(power))[near] + 1) / power[near].sum())
    return Peak(len(rest) / peak, min(chance, 1.0), share, float(np.std(rest)) * share**0.5, width)
