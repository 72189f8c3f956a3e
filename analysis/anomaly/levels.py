"""Where the level of a loss goes wrong way: it climbs and stays, jumps and stays, or climbs and comes back late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.level_leap import level_leap
from analysis.anomaly.residuals import Scale, neighbour_noise
from analysis.anomaly.rolling import rolling_order

__all__ = ["Levels", "Rise", "level_changes"]

Floats = NDArray[np.float64]
#: Levels that are looked at: longer series are first reduced to the medians of blocks.
_LEVELS = 4096
_LEAST_ROWS = 30
#: Rows that stand for the beginning of a loss that leaps away from it at once.
_FIRST, _AT_ONCE = 1, 5
#: Rows that say where a loss began, and the share of a climb that it may give back on the way, as one over this.
_BEGUN, _TURNS = 2, 10.0
#: Least rise worth a word, as a factor of the level before: a jump that stays, a climb, one that came back, a drop.
STAYING, CLIMBING, PASSING, DROPPING = 1.2, 1.3, 1.5, 1.2


@dataclass(frozen=True, slots=True)
class Rise:
    """A change of level: rows where it begins and ends, levels before and after (in the metric's unit), its shape."""

    shape: Literal["climb", "jump", "hump", "drop"]
    first: int
    last: int
    before: float
    after: float
    noise: float
    window: int


@dataclass(frozen=True, slots=True)
class Levels:
    """Changes of level, and how far the last level lies above the best one (`risen`, a factor; NaN if not judged)."""

    changes: list[Rise]
    risen: float = float("nan")


def level_changes(values: Floats, scale: Scale, *, staying: float = STAYING, climbing: float | None = None) -> Levels:
    """At most one rise (climbing or at once) that lasts to the end, or else one hump, and at most one sudden drop.

    The level is a running median of 4 to 50 rows or block medians; its own noise is measured on itself, so slow waves
    raise the bar. Nothing is compared with a single last point or a single best one: a level must rise from the best
    level by more than `4 + sqrt(2 ln(independent levels))` of its noise (the second part is how far the least of so
    many levels lies below the middle by chance) and by a factor: of `staying` at once, of `climbing` (by default 1.08
    times `staying`) little by little, of 1.25 times `staying` where it comes back. A loss that leaps at once, within
    its first rows, to twice its beginning and never comes back has no level before it: its very first rows stand for
    that. A level that moves all the time, smoothly, is no noise: a loss that ends above its first rows, up a last climb
    of a third of the log that gives back a tenth of itself at most, has diverged too. And a leap between rows that is
    kept is one however far the level had fallen before (`level_leap`). Series under 30 rows have no changes.
    """
    scaled, block = _blocks(scale.forward(values))
    if len(scaled) < _LEAST_ROWS:
        return Levels([])
    window = int(np.clip(len(scaled) // 12, 4, 50))
    level = rolling_order(scaled, window, edge="causal", least=window, statistics=("median",))["median"][window - 1 :]
    noise = _noise(scaled, level, window)
    bar = noise * (4.0 + np.sqrt(2.0 * np.log(len(scaled) / window)))
    span = max(float(np.quantile(scaled, 0.95) - np.quantile(scaled, 0.05)), float(level[0] - level.min()))
    climbing = staying * CLIMBING / STAYING if climbing is None else climbing
    found = _lasting(scaled, level, window, max(bar, _least(scale, min(staying, climbing), span)))
    leapt = found is not None and found[0] == "jump"  # what went up at once is no climb, however low it is
    if found is not None and not found[4] - found[3] >= _least(scale, staying if leapt else climbing, span):
        found = None
    if found is None and not leapt and scale.name == "log":
        found = _from_start(scaled, level, window, bar) or _worse_than_begun(
            scaled, level, window, float(np.log(climbing))
        )
    if found is None and (leap := level_leap(scaled, _least(scale, staying, span))) is not None:
        found = "jump", leap[0], len(scaled) - 1, leap[1], leap[2]
    if found is None:
        found = _passing(level, window, max(bar, _least(scale, staying * PASSING / STAYING, span)))
    rises = [found] if found is not None else []
    drop = _drop(scaled, level, window, max(1.5 * bar, _least(scale, max(1.0, staying * DROPPING / STAYING), span)))
    if drop is not None:
        rises.append(drop)
    unit = scale.backward(np.array([[r[3], r[4]] for r in rises]).reshape(-1, 2))
    told = [
        Rise(shape, first * block, min(last * block, len(values) - 1), float(low), float(high), noise, window * block)
        for (shape, first, last, _, _), (low, high) in zip(rises, unit, strict=True)
    ]
    risen = float(np.exp(min(level[-1] - level.min(), 700.0))) if scale.name == "log" else float("nan")
    return Levels(told, risen)


_Found = tuple[Literal["climb", "jump", "hump", "drop"], int, int, float, float]


def _blocks(scaled: Floats) -> tuple[Floats, int]:
    """Finite values, or medians of blocks of them where there are many; how many rows make one."""
    seen = np.where(np.isfinite(scaled), scaled, np.nan)
    holes = np.isnan(seen)
    if holes.all():
        return seen[:0], 1
    if holes.any():
        seen = np.interp(np.arange(len(seen)), np.flatnonzero(~holes), seen[~holes])
    block = -(-len(seen) // _LEVELS)
    if block == 1:
        return seen, 1
    whole = len(seen) // block * block
    medians: Floats = np.median(seen[:whole].reshape(-1, block), axis=1)
    return medians, block


def _noise(scaled: Floats, level: Floats, window: int) -> float:
    """Standard deviation of a level by chance: of white noise, or of what levels a window apart really differ by."""
    apart = level[window:] - level[:-window]
    wander = 1.4826 * float(np.median(np.abs(apart - np.median(apart)))) / 2**0.5
    return float(max(wander, 1.2533 * neighbour_noise(scaled) / window**0.5))


def _least(scale: Scale, factor: float, span: float) -> float:
    """Least change on the scale; where it is not logarithmic the factor applies to what training moved the series."""
    return float(np.log(factor)) if scale.name == "log" else (factor - 1.0) * span


def _lasting(scaled: Floats, level: Floats, window: int, bar: float) -> _Found | None:
    best = int(np.argmin(level))
    rise = float(level[-1] - level[best])
    if not rise > bar:
        return None
    half = int(np.flatnonzero(level <= level[best] + 0.5 * rise)[-1]) + window - 1
    jump, height = _steepest(scaled, max(1, half - window), min(len(scaled) - 1, half + 2), max(2, window // 2))
    climbs_on = float(level[-1] - np.median(scaled[jump : jump + window])) > 0.3 * rise
    if height >= 0.6 * rise and not climbs_on:
        return "jump", jump, len(scaled) - 1, float(level[best]), float(level[-1])
    seen = min(0.1 * rise, 3.0 * 1.2533 * neighbour_noise(scaled[: half + 1]) / window**0.5)
    onset = int(np.flatnonzero(level <= level[best] + seen)[-1]) + window // 2
    return "climb", onset, len(scaled) - 1, float(level[best]), float(level[-1])


def _from_start(scaled: Floats, level: Floats, window: int, bar: float) -> _Found | None:
    """A rise out of the very first rows, before there is a level: all later levels lie at twice them or more."""
    first = float(np.max(scaled[:_FIRST]))
    if not (level.min() - first > max(2.0 * bar, float(np.log(2.0))) and level[-1] - first > float(np.log(2.0))):
        return None
    if scaled[_FIRST : _FIRST + _AT_ONCE].max() < level[-1]:
        return None  # it crept up: a mean that began at 0, as some loggers keep it
    onset = int(np.flatnonzero(scaled > first + 0.1 * (level[-1] - first))[0])
    return "climb", max(onset - 1, 0), len(scaled) - 1, first, float(level[-1])


def _worse_than_begun(scaled: Floats, level: Floats, window: int, least: float) -> _Found | None:
    """A climb to above where the loss began, that goes on from the best level to the end and hardly ever turns back.

    Its own turns are the measure of its noise, since the levels before it may have moved as far, and as smoothly.
    """
    best = int(np.argmin(level))
    way = level[best:]
    rise = float(way[-1] - way[0])
    chance = (4.0 + np.sqrt(2.0 * np.log(len(scaled) / window))) * 1.2533 * neighbour_noise(scaled) / window**0.5
    begun = float(np.max(scaled[:_BEGUN]))
    if best < window or len(way) < max(4 * window, len(level) // 3):
        return None  # from the first row on it is a mean that began at 0, or a climb that `_lasting` sees
    if not rise > max(chance, least) or way[-1] - begun < least:
        return None
    back = float(np.max(np.maximum.accumulate(way) - way))
    if back > rise / _TURNS:
        return None
    onset = best + int(np.flatnonzero(way <= way[0] + 0.1 * rise)[-1]) + window // 2
    return "climb", onset, len(scaled) - 1, float(way[0]), float(way[-1])


def _steepest(scaled: Floats, first: int, last: int, arm: int) -> tuple[int, float]:
    """Row between `first` and `last` at which the medians of `arm` rows on either side differ most, and by how much."""
    rows = range(first, last + 1)
    heights = [float(np.median(scaled[r : r + arm]) - np.median(scaled[max(0, r - arm) : r])) for r in rows]
    best = int(np.argmax(heights))
    return first + best, heights[best]


def _passing(level: Floats, window: int, bar: float) -> _Found | None:
    least = np.minimum.accumulate(level)
    above = level - least
    peak = int(np.argmax(above))
    if not above[peak] > bar:
        return None
    start = int(np.flatnonzero(level[: peak + 1] <= least[peak])[-1])
    back = np.flatnonzero(level[peak:] <= least[peak] + 0.25 * above[peak])
    if len(back) == 0:
        return None
    first = start + window // 2
    return "hump", first, max(first, peak + int(back[0])), float(least[peak]), float(level[peak])


def _drop(scaled: Floats, level: Floats, window: int, bar: float) -> _Found | None:
    """A fall within three rows, larger than what the level fell by in the window before and falls in that after."""
    if len(level) < 3 * window:
        return None
    fall = level[:-window] - level[window:]
    row = int(np.argmax(fall))
    if not fall[row] > bar:
        return None
    place, height = _steepest(-scaled, max(1, row), min(len(scaled) - 1, row + 2 * window), 3)
    before = fall[row - window] if row >= window else np.inf
    after = fall[row + window] if row + window < len(fall) else 0.0
    if height < 0.6 * fall[row] or max(before, after) > 0.4 * fall[row]:
        return None
    return "drop", place, place, float(level[row]), float(level[row + window])
