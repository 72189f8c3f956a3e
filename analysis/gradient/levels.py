"""Levels of series that vary by orders of magnitude: running medians of logarithms, rises, and the loss beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROWS", "LossLevels", "Rise", "decades", "first_lasting", "highest_rise", "levels_of", "printed_unit"]

#: Rows whose median is a level: four of seven have to agree, so that three wild batches in a row move nothing.
ROWS = 7
#: Rows that are looked at together, so that they stay in the processor's cache.
_CHUNK = 1 << 14

_Floats = NDArray[np.float64]
Trend = Literal["fell", "held", "rose", "unknown"]


def decades(values: _Floats) -> _Floats:
    """Decimal logarithms of norms: 0 is minus infinity; NaN counts as infinite, as of a norm that overflowed.

    >>> decades(np.array([100.0, 0.0, np.nan]))
    array([  2., -inf,  inf])
    """
    known = np.where(np.isnan(values), np.inf, np.abs(values))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10(known), dtype=np.float64)


def levels_of(logs: _Floats, rows: int = ROWS) -> _Floats:
    """Median of each `rows` (odd) neighbours, ends included: one value less than `rows` fewer than there are rows."""
    if len(logs) < rows:
        return np.empty(0)
    if rows == ROWS:
        parts = [_of_seven(logs[start : start + _CHUNK + ROWS - 1]) for start in range(0, len(logs) - ROWS + 1, _CHUNK)]
        return np.concatenate(parts)
    windows = np.lib.stride_tricks.sliding_window_view(logs, rows)
    middle = rows // 2
    parts = [
        np.partition(windows[start : start + _CHUNK], middle, axis=1)[:, middle]
        for start in range(0, len(windows), _CHUNK)
    ]
    return np.concatenate(parts)


#: Neighbours that are put in order, one pair after the other: then the fourth of seven is their median (N. Devillard,
#: "Fast median search", 1998, opt_med7). Whole rows are compared at a time, in a tenth of what windows take.
_NETWORK = (
    *((0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6)),
    *((2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)),
)


def _of_seven(logs: _Floats) -> _Floats:
    rows = [logs[start : len(logs) - ROWS + 1 + start] for start in range(ROWS)]
    for one, other in _NETWORK:
        rows[one], rows[other] = np.minimum(rows[one], rows[other]), np.maximum(rows[one], rows[other])
    return rows[ROWS // 2]


@dataclass(frozen=True, slots=True)
class Rise:
    """From a level in the past to one that is higher: the rows of its valley, of the last that was low still, of the
    first that is up, and the middle of its highest level.

    `low` and `high` are decimal logarithms of the levels, `top` that of the largest row from the valley on; `lasts`
    says that the last rows are up still, `ends` that nothing finite comes after them.
    """

    valley: int
    left: int
    up: int
    peak: int
    low: float
    high: float
    top: float
    lasts: bool
    ends: bool


def highest_rise(logs: _Floats, *, least: float, above_start: float) -> Rise | None:
    """The largest rise of the level: by `least` decades above an earlier one, and `above_start` above the first rows.

    Rows that are not finite (0, skipped steps) are left out, but where the last three are infinite or NaN, the last
    finite row tells whether the norm had grown before. Of a noisy norm a rise is asked to be half a decade above what
    its levels reach by chance in a log of that length. Else the last three rows count as a level too, where all are up.
    """
    rows = np.flatnonzero(np.isfinite(logs))
    known = logs[rows]
    ends = bool(len(logs) >= 3 and np.all(logs[-3:] == np.inf))
    if len(known) < (2 if ends else 4):
        return None
    least = max(least, 0.5 + _noise_range(known))
    start = float(known[:3].min())
    levels = levels_of(known)
    tail, tail_row = (float(known[-1]), len(known) - 1) if ends else (float(known[-3:].min()), len(known) - 3)
    tops, firsts = np.append(levels, tail), np.append(np.arange(len(levels)), tail_row)
    # The valley of a level ends before its first row.
    past = np.minimum.accumulate(np.concatenate([[start], levels]))
    before = past[np.clip(firsts - ROWS + 1, 0, len(past) - 1)]
    risen = (tops - before >= least) & (tops - start >= above_start)
    if not risen.any():
        return None
    best = int(np.argmax(np.where(risen, tops - before, -np.inf)))
    low, first = float(before[best]), int(firsts[best])
    earlier = np.flatnonzero(levels[: max(first - ROWS + 1, 0)] <= low)
    valley = int(earlier[-1]) + ROWS // 2 if len(earlier) else 0
    window = known[valley : first + ROWS]
    up = valley + int(np.argmax(window >= low + least))
    low_still = np.flatnonzero(known[valley:up] <= low + least / 3)
    left = valley + int(low_still[-1]) if len(low_still) else valley
    peak = min(first + ROWS // 2, len(known) - 1)
    lasts = bool(ends or np.median(known[-3:]) >= low + least)
    top = float(known[valley:].max())
    valley, left, up, peak = (int(rows[row]) for row in (valley, left, up, peak))
    return Rise(valley, left, up, peak, low, float(tops[best]), top, lasts, ends)


def _noise_range(known: _Floats) -> float:
    """Decades between the highest and the lowest level that noise alone gives, as many rows as there are.

    The largest of n normal numbers lies near the square root of 2 log n of their deviations from the middle. Second
    differences leave steady growth out. Of fewer than 30 rows neither the noise is known nor its range large.
    """
    if len(known) < 30:
        return 0.0
    spread = float(np.median(np.abs(np.diff(known, n=2)))) / 0.6745 / np.sqrt(6)
    return float(2 * np.sqrt(2 * np.log(max(len(known), 2))) * 1.2533 * spread / np.sqrt(ROWS))


def first_lasting(holds: NDArray[np.bool_]) -> int | None:
    """The first row from which on something holds to the end; None where it does not at the end.

    >>> first_lasting(np.array([True, False, True, True])), first_lasting(np.array([True, False]))
    (2, None)
    """
    if len(holds) == 0 or not holds[-1]:
        return None
    broken = np.flatnonzero(~holds)
    return int(broken[-1]) + 1 if len(broken) else 0


def printed_unit(values: _Floats) -> float:
    """The unit in the last decimal that a log prints: 0.001 of numbers with three; 0 where there are more than six.

    >>> printed_unit(np.array([0.012, 1.5])), printed_unit(np.array([1 / 3]))
    (0.001, 0.0)
    """
    finite = values[np.isfinite(values)][:10_000]
    for digits in range(7):
        scaled = finite * 10.0**digits
        if np.all(np.abs(scaled - np.round(scaled)) <= 1e-9 * np.maximum(np.abs(scaled), 1.0)):
            return float(10.0**-digits)
    return 0.0


class LossLevels:
    """The loss beside another series: its level around a step, and whether it fell between two.

    Levels are medians of 7 rows. What counts as a change is 5 % up and 2 % down, and four standard errors of such
    medians, by the differences of neighbouring rows.
    """

    def __init__(self, steps: _Floats, values: _Floats) -> None:
        order = slice(None) if np.all(steps[1:] >= steps[:-1]) else np.argsort(steps, kind="stable")
        self._steps, self._values = steps[order], values[order]
        moves = np.diff(values[np.isfinite(values)])
        #: Of one row, by the differences of neighbours; 1.2533 is what a median is less exact than a mean.
        self._spread = 1.2533 * float(np.median(np.abs(moves))) / 0.6745 / np.sqrt(2) if len(moves) else 0.0

    def __len__(self) -> int:
        return len(self._values)

    def at(self, step: float) -> float:
        """The level around a step; infinite where most rows there are not finite, NaN without any row."""
        middle = int(np.searchsorted(self._steps, step, side="left"))
        start = max(0, min(middle - ROWS // 2, len(self._values) - ROWS))
        return _level(self._values[start : start + ROWS])

    def before(self, step: float) -> tuple[float, int]:
        """The level of the last rows up to a step, and how many these are: at the start of a log there are few."""
        end = int(np.searchsorted(self._steps, step, side="right"))
        rows = self._values[max(0, end - ROWS) : end]
        return _level(rows), len(rows)

    @property
    def first(self) -> float:
        """The level of the first rows."""
        return self.at(-np.inf)

    @property
    def last(self) -> float:
        """The level of the last rows."""
        return self.at(np.inf)

    def fell_by(self, share: float, *, until: float = np.inf) -> bool:
        """Whether it fell by a share of where it began, and by four standard errors, up to a step.

        Held against the first rows is the last quarter of the rows up to there.
        """
        rows = self._values[: int(np.searchsorted(self._steps, until, side="right"))]
        late = rows[-max(ROWS, len(rows) // 4) :]
        noise = 4 * self._spread * np.sqrt(1 / ROWS + 1 / max(len(late), 1))
        return bool(_level(late) < self.first - max(share * abs(self.first), noise))

    def trend(self, before: float, after: float, rows: int = ROWS) -> Trend:
        """What the loss did from one level to another, the earlier being the median of `rows` rows."""
        if np.isnan(before) or np.isnan(after) or (np.isinf(before) and np.isinf(after)):
            return "unknown"
        noise = 4 * self._spread * np.sqrt(1 / max(rows, 1) + 1 / ROWS)
        if after > before + max(0.05 * abs(before), noise):
            return "rose"
        return "fell" if after < before - max(0.02 * abs(before), noise) else "held"


def _level(rows: _Floats) -> float:
    return float(np.median(np.where(np.isfinite(rows), rows, np.inf))) if len(rows) else float("nan")
