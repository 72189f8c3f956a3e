"""Where a loss stops to improve: never began, stopped in the middle of its fall, or levelled off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from analysis.settling.blocks import Blocks, Line, bend_noise, blocks_of, line_of

__all__ = ["Flat", "Stop", "late_start", "levelled_off", "never_improved", "sudden_stop"]

Floats = NDArray[np.float64]
#: Rows below which no shape is looked for.
FEWEST, FEWEST_STOPPED = 30, 90
#: Standard errors by which a number must lie beyond what it is compared with: one-sided 95 %, and beyond doubt among
#: the few hundred windows that are tried.
_LIKELY, _SURE = 1.645, 6.0
#: Blocks on either side of a stop: the fall before it is measured twice over as many.
_ARMS = (3, 4, 6, 8, 10)
#: Of the improvement that was due: at least so much must be missing, and what came is at most so much of it.
_CAME = 0.25
#: A fall that is so many times faster than it was before gathers pace.
_FASTER = 1.25
#: Places that are looked at more closely, the clearest first.
_TRIED = 8
#: Widths of a bend that ceases at once, and of one that takes its time, as parts of half the fall; where they may lie;
#: by how many variances of the noise the first must fit better; and points at which they are compared at most.
_BENDS, _PLACES, _CLEARLY, _FINE = (
    ((0.01, 0.03, 0.06), (0.12, 0.2, 0.3, 0.5, 0.8)),
    np.linspace(-0.3, 0.3, 9),
    12.0,
    150,
)
#: Variance that it may leave, as a multiple of that between neighbours: more, and it is no such bend at all.
_FITS = 3.0
#: The least share of the run that a stop must last, and the part of it where levelling off begins to be worth a word.
LASTING, LEVEL_SHARE = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class Flat:
    """Whether a series improved at all: the improvement seen, and the largest that its noise leaves possible.

    Both are shares of the level (0.02: two per cent). `improved` says that some part of it lies clearly below its
    beginning, or its beginning clearly above the rest.
    """

    improvement: float
    at_most: float
    improved: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """A fall that breaks off at `row`: what was due in the `rows` after it by its own pace, and what came (shares)."""

    row: int
    rows: int
    due: float
    came: float
    score: float


def never_improved(scaled: Floats, levels: Blocks | None = None) -> Flat | None:
    """How far a loss (logarithms as logged, without holes) came down from its very first rows; None where it is short.

    Compared are the means of the first 1, 2, 4, ... rows (up to a quarter) and all later levels (means of an eighth)
    with the rest, so that neither a fall within the first rows nor one at the very end is missed. Of a series that
    nowhere differs by more than its noise, the end of a line through all of it bounds what it may have improved
    by: the one-sided 95 % limit. `levels` are its block means where they are known already, here and below.

    >>> steady = 2.3 + 0.01 * np.random.default_rng(0).normal(size=400)
    >>> flat, falling = never_improved(np.log(steady)), never_improved(np.log(steady - np.linspace(0, 0.5, 400)))
    >>> (flat.improved, round(flat.at_most, 3)), falling.improved
    ((False, 0.002), True)
    """
    n = len(scaled)
    if n < FEWEST:
        return None
    levels = blocks_of(scaled) if levels is None else levels
    line = line_of(levels.mean, levels.error)
    fall, doubt = -line.slope * (len(levels) - 1), line.error * (len(levels) - 1)
    at_most = 1.0 - float(np.exp(-max(fall, 0.0) - _LIKELY * doubt))
    noise = levels.error * levels.rows**0.5
    lower = _first_rows_above(scaled, noise) or _some_level_below(levels)
    return Flat(1.0 - float(np.exp(-fall)), at_most, bool(lower or (fall > 3.0 * doubt and fall > 0.005)))


def _first_rows_above(scaled: Floats, noise: float) -> bool:
    usual = float(np.median(scaled[len(scaled) // 4 :]))
    width = 1
    while width <= max(1, len(scaled) // 4):
        above = float(np.mean(scaled[:width])) - usual
        if above > 0.02 and above > 3.0 * noise * (1.0 / width + 1.0 / len(scaled)) ** 0.5:
            return True
        width *= 2
    return False


def _some_level_below(levels: Blocks) -> bool:
    width = max(1, len(levels) // 8)
    total = np.concatenate([[0.0], np.cumsum(levels.mean)])
    running = (total[width:] - total[:-width]) / width
    fall = float(running[0] - running.min())
    return fall > 0.01 and fall > 4.5 * levels.error * (2.0 / width) ** 0.5


def sudden_stop(scaled: Floats, levels: Blocks | None = None) -> Stop | None:
    """Where a steady fall breaks off for good, as no sum of decaying parts could; None where it does not.

    A loss that levels off is a sum of parts that each decay towards a floor (exponentials, power laws, mixtures of
    them). Of every such curve, three drops in a row over equal stretches satisfy `d3 >= d2 * d2 / d1`: drops over equal
    stretches are moments of a positive measure, which are convex on the log scale (Hausdorff 1921; Feller, An
    Introduction to Probability Theory II, ch. VII.3). So two drops bound the third from below, whatever the curve. A
    stop is a place before which the drops are steady, and after which, to the end of the log and for a fifth of it at
    least, the level stands: a quarter of that bound or less has come, and the rest is beyond five standard errors.

    >>> t = np.arange(600.0)
    >>> stopped = np.log(np.where(t < 300, 3.0 - 0.006 * t, 1.2) + 0.01 * np.random.default_rng(0).normal(size=600))
    >>> found = sudden_stop(stopped)
    >>> abs(found.row - 300) <= 15, sudden_stop(np.log(0.5 + 2 * np.exp(-t / 100))) is None
    (True, True)
    """
    if len(scaled) < FEWEST_STOPPED:
        return None
    levels = blocks_of(scaled) if levels is None else levels
    raw = np.exp(levels.mean - levels.mean[-1])
    tried: list[tuple[Stop, int, int]] = []
    for arm in _ARMS:
        last = len(raw) - max(arm, round(LASTING * len(raw)))
        found = [(_stop_at(raw, levels, arm, place), arm, place) for place in range(2 * arm, last + 1)]
        tried += [(stop, arm, place) for stop, arm, place in found if stop is not None]
    for stop, arm, place in sorted(tried, key=lambda one: -one[0].score)[:_TRIED]:
        if not _is_step(raw[place - 2 * arm : place + arm], 2 * arm) and _is_sharp(scaled, levels, stop):
            return stop
    return None


def _stop_at(raw: Floats, levels: Blocks, arm: int, place: int) -> Stop | None:
    error = levels.error * float(raw[place - 1])
    before, late = line_of(raw[place - 2 * arm : place - arm], error), line_of(raw[place - arm : place], error)
    if not (-late.slope > 3.0 * late.error and before.slope < 0):
        return None
    if late.slope < _FASTER * before.slope - 3.0 * np.hypot(late.error, _FASTER * before.error):
        return None  # it still gathers pace: the beginning of a new drop, whose end nothing bounds
    due, doubt = _due(before, late)
    after, near = line_of(raw[place:], error), line_of(raw[place : place + arm], error)
    score = (due + near.slope) / max(float(np.hypot(doubt, near.error)), 1e-300)
    came = max(-near.slope, -after.slope, 0.0)
    ahead = due * arm / float(raw[place])
    if score < _SURE or came > _CAME * due or ahead < 0.01:
        return None
    stand = float(np.ptp([raw[place : place + arm].mean(), raw[-arm:].mean()]))
    if stand > _CAME * due * (len(raw) - place) and stand > 4.0 * error * (2.0 / arm) ** 0.5:
        return None
    row = round(levels.rows * _meeting(raw, arm, place))
    return Stop(row, round(arm * levels.rows), ahead, came * arm / float(raw[place]), float(score))


def _due(before: Line, late: Line) -> tuple[float, float]:
    """The least pace that may follow two paces, and its standard error."""
    ratio = min(1.0, late.slope / before.slope)
    if ratio == 1.0:  # it fell faster than before: the slower of both is what it kept up all along
        return -before.slope, before.error
    doubt = float(np.hypot(2.0 * ratio * late.error, ratio**2 * before.error))
    return -late.slope * ratio, doubt


def _meeting(raw: Floats, arm: int, place: int) -> float:
    """Where the line of the fall meets the level after it, in blocks: finer than the blocks themselves."""
    first = place - arm - 1
    fall, rest = raw[first : place - 1], float(raw[place + 1 : place + arm + 1].mean())
    slope = line_of(fall, 0.0).slope
    if slope >= 0:
        return float(place)
    met = first + 0.5 + (arm - 1) / 2 + (rest - float(fall.mean())) / slope
    return float(np.clip(met, place - 2, place + 2))


def _is_step(levels: Floats, fall: int) -> bool:
    """Whether what looks like a fall over the first `fall` levels, and then none, is a slower one with a step in it.

    A parabola up to some level and a constant after it are fitted for every place of the break, the level of the break
    itself left out (a step may lie within it). Where the best of them leaps down by more than an eighth of the whole
    drop, a step explains the drop (a learning rate that was decayed).
    """
    best, leap = np.inf, 0.0
    for place in range(5, len(levels) - 2):
        front, rest = levels[:place], levels[place + 1 :]
        fitted = _parabola(place) @ front
        end = float(rest.mean())
        off = front - fitted[:-1]
        square = float(off @ off + (rest - end) @ (rest - end))
        if square < best:
            best, leap = square, float(fitted[-1]) - end
    drop = float(levels[: max(1, fall // 6)].mean() - levels[fall:].mean())
    return leap > 0.125 * drop


def _is_sharp(scaled: Floats, levels: Blocks, stop: Stop) -> bool:
    """Whether the bend at a stop takes a small part of the time that the fall before it took, beyond doubt.

    Updates that cease, cease at once; a loss that has learned something new (a sigmoid, often at the end of a warmup)
    bends over as long as it fell. A bend of width w is `w log(1 + exp((b - t) / w))`, with its square for the curve of
    the fall: the best of the narrow ones must fit the rows about the stop better than the best of the wide ones.
    """
    first, last = max(0, stop.row - 2 * stop.rows), min(len(scaled), stop.row + stop.rows)
    joined = -(-(last - first) // _FINE)
    whole = (last - first) // joined * joined
    near = np.exp(scaled[first : first + whole] - scaled[stop.row]).reshape(-1, joined).mean(axis=1)
    time = (first + joined * (np.arange(len(near)) + 0.5) - stop.row) / stop.rows
    narrow, wide = (min(_rests(time, near, widths), key=_square) for widths in _BENDS)
    # noise that hangs together tells bends apart worse: the variance of means of four rows says by how much
    fours = narrow[: len(narrow) // 4 * 4].reshape(-1, 4).mean(axis=1)
    noise = max(_square(narrow) / len(narrow), 4.0 * _square(fours) / len(fours))
    fits = _square(narrow) / len(narrow) < _FITS * bend_noise(near) ** 2
    return fits and _square(wide) - _square(narrow) > _CLEARLY * noise


def _rests(time: Floats, near: Floats, widths: tuple[float, ...]) -> list[Floats]:
    return [_rest(time, near, width, float(at)) for width in widths for at in _PLACES]


def _rest(time: Floats, near: Floats, width: float, place: float) -> Floats:
    """What a bend of a width at a place leaves of levels, its height, slope and curve fitted."""
    bent = width * np.logaddexp(0.0, (place - time) / width)
    known = np.stack([np.ones(len(time)), bent, bent**2], axis=1)
    found = np.linalg.lstsq(known, near, rcond=None)[0]
    return np.asarray(near - known @ found, dtype=np.float64)


def _square(rest: Floats) -> float:
    return float(rest @ rest)


@lru_cache(maxsize=64)
def _parabola(count: int) -> Floats:
    """The matrix that makes of `count` levels the parabola through them, and its value at the place that follows."""
    place = np.arange(count + 1) / count
    powers = np.vander(place, 3)
    found: Floats = powers @ np.linalg.pinv(powers[:-1])
    return found


def levelled_off(scaled: Floats, least: float = 0.01, levels: Blocks | None = None) -> tuple[int, float, float] | None:
    """First row after which a loss improves by less than `least` in all, what it did improve by, and its doubt.

    None where it improved by less than 5 % before, where less than half of the run lies after that row, or where the
    noise hides a difference of `least`.

    >>> row, rest, _ = levelled_off(np.log(0.5 + 2 * np.exp(-np.arange(600.0) / 30)))
    >>> row, round(rest, 3)
    (175, 0.006)
    """
    if len(scaled) < 2 * FEWEST:
        return None
    levels = blocks_of(scaled) if levels is None else levels
    width = max(1, len(levels) // 12)
    end = float(levels.mean[-2 * width :].mean())
    doubt = levels.error * (1.5 / width) ** 0.5
    above = levels.mean - end
    beyond = np.flatnonzero(above > least + 2.0 * levels.error)
    first = int(beyond[-1]) + 1 if len(beyond) else 0
    if 2.0 * doubt > least or first == 0 or len(levels) - first < LEVEL_SHARE * len(levels):
        return None
    if float(levels.mean[:first].max()) - end < 0.05:
        return None
    rest = float(levels.mean[first : first + width].mean()) - end
    return levels.row(first), 1.0 - float(np.exp(-rest)), 2.0 * doubt


def late_start(scaled: Floats, levels: Blocks | None = None) -> int | None:
    """The row at which a loss that stood still from its beginning sets out to fall; None where it is no such loss.

    It stands still for a fifth of the run at least, within its noise and 3 %, and falls by a tenth or more after it.

    >>> t = np.arange(500.0)
    >>> noise = 0.01 * np.random.default_rng(0).normal(size=500)
    >>> abs(late_start(np.log(np.where(t < 200, 2.3, 2.3 * np.exp((200 - t) / 150))) + noise) - 200) <= 20
    True
    """
    if len(scaled) < FEWEST_STOPPED:
        return None
    levels = blocks_of(scaled) if levels is None else levels
    least = round(LASTING * len(levels))
    start = float(levels.mean[:least].mean())
    below = levels.mean < start - 0.03 - 2.0 * levels.error
    standing = np.flatnonzero(~below)
    first = int(standing[-1]) + 1
    if first < least or first == len(levels) or start - float(levels.mean[-least:].mean()) < 0.1:
        return None
    stretch = never_improved(scaled[: levels.row(first - 1)])
    return levels.row(first) if stretch is not None and not stretch.improved and stretch.at_most <= 0.03 else None
