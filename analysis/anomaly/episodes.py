"""Flagged rows and level changes of all series made into episodes: what happened once is one episode."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.detection import Detection
from analysis.anomaly.levels import Rise
from analysis.anomaly.log_series import Series

__all__ = ["Episode", "episodes_of", "merged"]

#: Flagged rows up to this many rows apart belong to one episode; a spike is over once as many rows are within bounds.
GAP = 5


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """Something that happened to one loss between two rows; `others` are metrics that show it too.

    `factor` is the peak over what was expected (NaN where that is not positive), `recovery` the rows from the first
    until the value was back within its bounds, None when it never was.
    """

    series: Series
    shape: str  # spike, hump, jump, climb, drop
    first: int
    last: int
    peak: int
    value: float
    expected: float
    lower: float
    upper: float
    score: float
    rows: int
    recovery: int | None
    others: tuple[str, ...] = ()

    @property
    def factor(self) -> float:
        """The peak as a multiple of what was expected there; NaN where that is not positive."""
        return self.value / self.expected if self.expected > 0 else float("nan")

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step; rows from 0 where the log has no steps."""
        first, last = self.series.step_at(self.first), self.series.step_at(self.last)
        return (self.first if first is None else first), (self.last if last is None else last)


def episodes_of(series: Series, found: Detection, rises: list[Rise]) -> list[Episode]:
    """Upward spikes and level changes of one loss, in the order of rows; a spike within a rise is part of it."""
    spikes = [_spike(series, found, part) for part in _groups(found)]
    longer = [_set_out(_rise(series, rise), spikes) for rise in rises]
    kept = [s for s in spikes if not any(r.shape != "drop" and _within(s, r) for r in longer)]
    return sorted(kept + longer, key=lambda episode: episode.first)


def _set_out(rise: Episode, spikes: list[Episode]) -> Episode:
    """The rise, from the leap on that it begins with: the row of a leap is exact, that of a level is not.

    It is one if the rows before it, from where the level was thought to rise, were not up yet.
    """
    if rise.shape not in ("jump", "hump"):
        return rise
    leap = next((s for s in spikes if rise.first - GAP <= s.first <= rise.last and s.value >= rise.value), None)
    if leap is None:
        return rise
    between = rise.series.values[rise.first : leap.first]
    known = between[np.isfinite(between)]
    if len(known) and np.median(known) >= (rise.expected + rise.value) / 2:
        return rise
    return replace(
        rise,
        first=leap.first,
        peak=max(rise.peak, leap.first),
        rows=rise.last - leap.first + 1,
        recovery=None if rise.recovery is None else rise.last - leap.first,
    )


def _within(spike: Episode, rise: Episode) -> bool:
    """Whether a spike is a long rise's own beginning or middle, and not a leap of its own far above it."""
    return rise.first - GAP <= spike.first <= rise.last and not spike.value > 2 * rise.value


def _groups(found: Detection) -> list[NDArray[np.int64]]:
    up = np.flatnonzero(found.score > 0)
    if len(up) == 0:
        return []
    return np.split(up, np.flatnonzero(np.diff(found.rows[up]) > GAP) + 1)


def _spike(series: Series, found: Detection, part: NDArray[np.int64]) -> Episode:
    peak = part[np.argmax(found.score[part])]
    first, last = int(found.rows[part[0]]), int(found.rows[part[-1]])
    back = last + 1 < series.frame.height
    return Episode(
        series,
        "spike",
        first,
        last,
        int(found.rows[peak]),
        float(series.values[found.rows[peak]]),
        float(found.expected[peak]),
        float(found.lower[peak]),
        float(found.upper[peak]),
        float(found.score[peak]),
        len(part),
        last + 1 - first if back else None,
    )


def _rise(series: Series, rise: Rise) -> Episode:
    score = abs(rise.after - rise.before) / rise.noise if rise.noise > 0 else float("inf")
    if rise.before > 0 and rise.after > 0:
        score = min(score, abs(float(np.log(rise.after / rise.before))) / rise.noise) if rise.noise > 0 else score
    part = series.values[rise.first : rise.last + 1]
    usable = np.where(np.isfinite(part), part, -np.inf)
    back = rise.last - rise.first if rise.shape == "hump" else None
    return Episode(
        series,
        rise.shape,
        rise.first,
        rise.last,
        rise.first + int(np.argmax(usable)) if len(part) else rise.first,
        rise.after,
        rise.before,
        min(rise.before, rise.after),
        max(rise.before, rise.after),
        score,
        rise.last - rise.first + 1,
        back,
    )


def merged(episodes: list[Episode], main: set[str]) -> list[Episode]:
    """Episodes of one split that overlap in steps made into one: that of a main loss, else the farthest out.

    The other metrics, and other ranks of the same one, are named in `others`.
    """
    ranked = sorted(episodes, key=lambda i: (i.series.metric not in main, i.shape in ("drop",), -i.score))
    kept: list[Episode] = []
    for episode in ranked:
        place = next((k for k, other in enumerate(kept) if _same(episode, other)), None)
        if place is None:
            kept.append(episode)
        else:
            names = {*kept[place].others, _name(episode)} - {_name(kept[place])}
            kept[place] = replace(kept[place], others=tuple(sorted(names)))
    return sorted(kept, key=lambda i: i.steps)


def _same(one: Episode, other: Episode) -> bool:
    if one.series.split != other.series.split or (one.shape == "drop") != (other.shape == "drop"):
        return False
    if one.series is other.series:
        return False
    (a, b), (c, d) = one.steps, other.steps
    return a <= d + GAP and c <= b + GAP


def _name(episode: Episode) -> str:
    return episode.series.metric
