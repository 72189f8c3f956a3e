"""Regular swings of a loss: how far apart, how large, from where to where, and whether they are a sawtooth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.settling.spectrum import FEWEST, Peak, clearest_peak, detrended, slow_peak
from analysis.settling.swing_onset import swing_onset

__all__ = ["Swing", "clearest_swing"]

Floats = NDArray[np.float64]
#: What makes swings of a peak: by chance less than once in 10,000 healthy series, and a quarter of what moves the loss.
_CHANCE, _SHARE = 1e-4, 0.25
#: Longer series are looked at in so many pieces of so many rows, and once more in block means of all their rows.
_WHOLE, _PIECE, _PIECES = 4096, 2048, 8
#: Periods of two windows that differ by less than this are the same swings.
_SAME = 0.15
#: Cycles that are laid over one another to see their shape, and the parts of the way that a sawtooth takes at once,
#: and at most on its way back (a square wave leaps both ways).
_FOLDED, _AT_ONCE, _BACK = 12, 0.6, 0.45
#: Height of the first overtone at least, as a share of the tone.
_OVERTONE = 0.25


@dataclass(frozen=True, slots=True)
class Swing:
    """Swings every `period` rows between `first` and `last`: trough to crest in logarithms, and what they explain.

    `sawtooth` says that each cycle begins with a leap, as where something starts anew (an epoch, a cycle of the
    learning rate), and None that a cycle has too few rows to tell.
    """

    period: float
    height: float
    share: float
    chance: float
    cycles: float
    first: int
    last: int
    sawtooth: bool | None


@dataclass(frozen=True, slots=True)
class _Window:
    first: int
    last: int
    block: int


def clearest_swing(scaled: Floats) -> Swing | None:
    """The largest regular swings of a loss (logarithms, no holes), or None where nothing is regular.

    Looked at are the whole series and its halves (two thirds of a short one); of a series beyond 4,096 rows eight
    pieces of 2,048, and means of blocks for slower swings, so that the time taken does not grow with the length beyond
    reading it once. Fewer than 80 rows, or four cycles, show no rhythm; four to ten must hold most of what moves the
    loss. `first` is where they set in, to the row unless the log is long and the swings are slow.

    >>> row = np.arange(1500)
    >>> noise = np.exp(0.03 * np.random.default_rng(0).normal(size=1500))
    >>> loss = np.exp(-row / 900) * (1 + 0.15 * np.sin(row / 5)) * noise
    >>> found = clearest_swing(np.log(loss))
    >>> round(found.period, 1), round(found.height, 1), found.sawtooth
    (31.4, 0.3, False)
    """
    windows = _windows(len(scaled))
    found: list[tuple[Swing, Floats, _Window]] = []
    for window in windows:
        part = _cut(scaled, window)
        rest = detrended(part)
        peak = clearest_peak(rest)
        if peak is None or peak.chance * len(windows) >= _CHANCE or peak.share <= _SHARE:
            peak = slow_peak(rest)
        if peak is not None:
            found.append((_swing(peak, window, len(rest)), rest, window))
    if not found:
        return None
    best, rest, window = max(found, key=lambda one: (one[0].height, one[0].cycles))
    same = [one for one, _, part in found if abs(one.period / best.period - 1) < _SAME and part != windows[0]] or [best]
    shape = _is_sawtooth(rest, best.period / window.block)
    first, last = min(s.first for s in same), max(s.last for s in same)
    if window.block == 1:  # a coarse look at a long log cannot tell the row
        first = swing_onset(scaled, best.period, last) or first
    return replace(best, first=first, last=last, sawtooth=shape)


def _windows(n: int) -> list[_Window]:
    if n < FEWEST:
        return []
    if n <= _WHOLE:
        part = n // 2 if n >= 4 * FEWEST else max(FEWEST, 2 * n // 3)  # swings may set in late in a short log
        parts = [_Window(0, part, 1), _Window(n - part, n, 1)] if n >= 5 * FEWEST // 4 else []
        return [_Window(0, n, 1), *parts]
    starts = np.linspace(0, n - _PIECE, _PIECES).round().astype(int)
    return [_Window(0, n, -(-n // _WHOLE)), *(_Window(int(s), int(s) + _PIECE, 1) for s in starts)]


def _cut(scaled: Floats, window: _Window) -> Floats:
    part = scaled[window.first : window.last]
    if window.block == 1:
        return part
    whole = len(part) // window.block * window.block
    found: Floats = part[:whole].reshape(-1, window.block).mean(axis=1)
    return found


def _swing(peak: Peak, window: _Window, rows: int) -> Swing:
    # a sine of deviation s goes from -s * sqrt(2) to s * sqrt(2)
    height = 2.0 * 2.0**0.5 * peak.spread
    cycles = rows / peak.period
    return Swing(
        peak.period * window.block, height, peak.share, peak.chance, cycles, window.first, window.last - 1, None
    )


def _is_sawtooth(rest: Floats, period: float) -> bool | None:
    """Whether a cycle leaps one way at once and comes back little by little; None where it has less than eight rows."""
    if period < 8:
        return None
    rows = min(len(rest), round(_FOLDED * period))
    bins = int(np.clip(period // 1, 8, 16))
    place = ((np.arange(rows) % period) / period * bins).astype(int).clip(max=bins - 1)
    shape = np.array([rest[:rows][place == b].mean() for b in range(bins)])
    steps = np.diff(np.append(shape, shape[0]))
    leap = int(np.argmax(np.abs(steps)))
    way = float(np.ptp(shape))
    back = float(np.max(-np.sign(steps[leap]) * steps))
    return bool(abs(steps[leap]) > _AT_ONCE * way and back < _BACK * way and _has_edge(rest[:rows], period))


def _has_edge(rest: Floats, period: float) -> bool:
    """Whether a wave has the overtone of a leap: half as high as its tone in a sawtooth, nothing in a sine.

    The parts of a cycle are means of few rows each, and two of them may lie far apart by chance.
    """
    turn = 2.0 * np.pi * np.arange(len(rest)) / period
    columns = np.stack([np.ones(len(rest)), *(part(k * turn) for k in (1, 2) for part in (np.sin, np.cos))], axis=1)
    found = np.linalg.lstsq(columns, rest, rcond=None)[0]
    return bool(np.hypot(found[3], found[4]) > _OVERTONE * np.hypot(found[1], found[2]))
