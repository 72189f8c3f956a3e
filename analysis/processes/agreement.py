"""Whether processes agree on a number: the same on all of them, or each its own around a common course."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.usage.slowdown import levels_of, long_run_spread

__all__ = ["FEWEST", "LEVEL", "Agreement", "Parting", "agreement_of", "level_apart", "own_level"]

Floats = NDArray[np.float64]
#: Fewest common steps at which numbers are compared, and at which each its own numbers are.
FEWEST, _FEWEST_LOCAL = 10, 30
#: Relative difference that rounding makes: a float32 keeps 1e-7, sums of many in another order some more.
_ROUNDING = 1e-5
#: Rows that agree before processes come apart: so many at least, and this share of them.
_BEFORE, _SHARE = 5, 0.8
#: Chance that numbers which agree so often by their print alone disagree to the end.
_CHANCE = 1e-6
#: Share of the rows in which the same majority agrees, and of those after a parting that disagree: a learning rate that
#: ends at zero is zero on all.
_MAJORITY, _LASTING = 0.9, 0.8
#: Numbers that each process has of its own leave the others by a fifth (on the logarithm) and by six standard errors,
#: and by four times what the others differ among themselves; noise counts when three times theirs.
LEVEL, _ERRORS, _OTHERS, _NOISE = float(np.log(1.2)), 6.0, 4.0, 3.0
_FEWEST_NOISE = 100


@dataclass(frozen=True, slots=True)
class Parting:
    """Processes (`columns`) that left the others at row `first`; all of them where nobody can say who.

    `how`: `apart` (numbers that were the same), `level` and `noise` (of numbers that each has of its own) or
    `non-finite`. `difference` is relative: 0.2 is a fifth more; for `noise` it is the ratio, for `non-finite` the
    number of rows.
    """

    how: Literal["apart", "level", "noise", "non-finite"]
    columns: tuple[int, ...]
    first: int
    rows: int
    difference: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a number is over processes: `shared` (the same on all), `own`, or `unknown` for too few rows; partings."""

    nature: Literal["shared", "own", "unknown"]
    partings: tuple[Parting, ...]


@np.errstate(all="ignore")  # numbers near the largest float overflow in sums, and are far apart all the same
def agreement_of(
    values: Floats, *, infinite_is_fine: bool = False, judge_own: bool = True, level: float = LEVEL
) -> Agreement:
    """What `values` (one row a common step, one column a process) are, and who left the others.

    A number is shared where rows agree to rounding (1e-5): then any lasting difference is a parting, of the minority
    where more than half still agree. It is shared too where more than half agree and the same few never do. What agrees
    by its print alone (two digits) is told by how often it does. Groups of equal size that agree among themselves
    (tensor parallel) are no parting. Else each process has its own: only one whose level or noise leaves the others'
    beyond chance is told (a level by `level`, on the logarithm), and with `judge_own` false (shards have no common
    level) none.
    Rows in which a minority is NaN or infinite (NaN alone with `infinite_is_fine`) are told apart from both.

    >>> own = 2.0 + np.random.default_rng(0).normal(0, 0.1, (50, 4))
    >>> agreement_of(own).nature, agreement_of(np.repeat(own[:, :1], 4, axis=1)).nature
    ('own', 'shared')
    """
    missing = np.isnan(values) if infinite_is_fine else ~np.isfinite(values)
    lost = list(_lost(missing))
    rows = np.flatnonzero(np.asarray(np.isfinite(values).all(axis=1)))
    if len(rows) < FEWEST or values.shape[1] < 2:
        return Agreement("unknown", tuple(lost))
    whole = values[rows]
    close = _close(whole)
    shared, parting = _shared(close)
    if shared:
        found = [] if parting is None else [_measured(parting, whole, rows)]
        return Agreement("shared", (*found, *lost))
    return Agreement("own", (*(_own(whole, rows, level) if judge_own else ()), *lost))


def _lost(missing: NDArray[np.bool_]) -> Iterator[Parting]:
    """Rows in which fewer than half, or one of two, have no number."""
    count = missing.sum(axis=1)
    half = missing.shape[1] / 2 if missing.shape[1] > 2 else 1.5  # of two, one is a minority
    some = np.flatnonzero(np.asarray((count > 0) & (count < half)))
    if len(some):
        columns = tuple(int(c) for c in np.flatnonzero(missing[some].any(axis=0)))
        yield Parting("non-finite", columns, int(some[0]), len(some), float(len(some)))


def _close(values: Floats) -> NDArray[np.bool_]:
    """Which values equal that of most processes (of the first of two) to rounding."""
    middle = np.median(values, axis=1) if values.shape[1] > 2 else values[:, 0]
    found: NDArray[np.bool_] = np.abs(values - middle[:, None]) <= _ROUNDING * np.abs(middle)[:, None]
    return found


def _shared(close: NDArray[np.bool_]) -> tuple[bool, Parting | None]:
    """Whether the rows show a shared number, and the parting that lasts to the end."""
    agree: NDArray[np.bool_] = np.asarray(close.all(axis=1))
    balance = np.concatenate([[0], np.cumsum(np.where(agree, -1, 1))])
    before = int(balance.argmin())  # the split that leaves fewest disagreements before it and agreements after it
    after = len(agree) - before
    if before >= _BEFORE and agree[:before].mean() >= _SHARE:
        if after and _lasts(agree[:before], agree[before:]):
            return True, Parting("apart", _minority(close[before:]), before, after, 0.0)
        return True, None
    if close.shape[1] > 2 and (close.sum(axis=1) * 2 > close.shape[1]).mean() >= _MAJORITY:
        odd = tuple(int(c) for c in np.flatnonzero(close.mean(axis=0) <= 1 - _MAJORITY))
        if odd:
            return True, Parting("apart", odd, 0, len(close), 0.0)
    return bool(agree.mean() >= _SHARE), None


def _lasts(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Whether nearly all rows after a split disagree, beyond chance (Chernoff's bound on as many disagreements)."""
    usual = 1 - (before.sum() + 0.5) / (len(before) + 1)
    share = 1 - float(after.mean())
    if share < _LASTING or share <= usual:
        return False
    same = 0.0 if share == 1.0 else (1 - share) * np.log((1 - share) / (1 - usual))
    return bool(-len(after) * (share * np.log(share / usual) + same) < np.log(_CHANCE))


def _minority(close: NDArray[np.bool_]) -> tuple[int, ...]:
    """The columns that differ from more than half; all where there is no such majority."""
    count = close.shape[1]
    if count > 2 and (close.sum(axis=1) * 2 > count).mean() >= _MAJORITY:
        return tuple(int(c) for c in np.flatnonzero(close.mean(axis=0) < 0.5))
    return tuple(range(count))


def _measured(parting: Parting, values: Floats, rows: NDArray[np.int64]) -> Parting:
    """The parting at its row of the whole table, with the median of the largest relative difference in each row."""
    after = values[parting.first :]
    middle = np.abs(np.median(after, axis=1))
    spread = np.abs(after - np.median(after, axis=1)[:, None]).max(axis=1)
    spread = np.ptp(after, axis=1) if values.shape[1] == 2 else spread
    away = float(np.median(spread / np.maximum(middle, 1e-300)))
    return Parting(parting.how, parting.columns, int(rows[parting.first]), parting.rows, away)


def _own(values: Floats, rows: NDArray[np.int64], level: float) -> Iterator[Parting]:
    if len(values) < _FEWEST_LOCAL:
        return
    scaled = _scaled(values)
    apart = level_apart(scaled, level)
    if apart is not None:
        columns, first, away = apart
        yield Parting("level", columns, int(rows[first]), len(rows) - first, float(np.expm1(away)))
    if len(values) >= _FEWEST_NOISE and values.shape[1] > 2:
        noise = np.median(np.abs(np.diff(scaled, axis=0)), axis=0)
        worst = int(noise.argmax())
        usual = float(np.median(np.delete(noise, worst)))
        if usual > 0 and noise[worst] >= _NOISE * usual:
            yield Parting("noise", (worst,), int(rows[0]), len(rows), float(noise[worst] / usual))


def own_level(values: Floats) -> float:
    """How far the level of one column lies off the others' over the later half, as a relative difference; 0 where that
    is within chance, or too little is known.

    >>> noise = np.random.default_rng(0).normal(10, 0.1, (200, 4))
    >>> noise[:, 1] *= 1.1
    >>> round(own_level(noise), 2)
    0.1
    """
    whole = values[np.asarray(np.isfinite(values).all(axis=1))]
    if len(whole) < _FEWEST_LOCAL or values.shape[1] < 2:
        return 0.0
    found = level_apart(_scaled(whole)[len(whole) // 2 :], 1e-12)
    return 0.0 if found is None else float(np.expm1(abs(found[2])))


def _scaled(values: Floats) -> Floats:
    """Logarithms of positive numbers; of others shares of their usual size."""
    if (values > 0).all():
        return np.log(values)
    return values / max(float(np.median(np.abs(values))), 1e-300)


def level_apart(scaled: Floats, level: float = LEVEL) -> tuple[tuple[int, ...], int, float] | None:
    """The column whose level leaves the others' by `level` to the end (both of two), the row where, and by how much; or
    None.

    >>> noise = np.random.default_rng(0).normal(0, 0.05, (200, 4))
    >>> noise[120:, 2] += 0.5
    >>> columns, first, away = level_apart(noise)
    >>> columns, first, round(away, 1)
    ((2,), 120, 0.5)
    """
    count = scaled.shape[1]
    if count == 2:
        found = _leaves(scaled[:, 1] - scaled[:, 0], level)
        return None if found is None else ((0, 1), *found)
    tail = scaled[len(scaled) // 2 :]
    worst = int(np.abs(np.median(tail - np.median(tail, axis=1)[:, None], axis=0)).argmax())
    others = np.delete(scaled, worst, axis=1)
    usual = np.median(others, axis=1)
    found = _leaves(scaled[:, worst] - usual, level)
    if found is None:
        return None
    first, away = found
    among = np.abs(np.median(others[first:] - usual[first:, None], axis=0)).max()
    return ((worst,), first, away) if abs(away) >= _OTHERS * float(among) else None


def _leaves(apart: Floats, level: float) -> tuple[int, float] | None:
    """The row from which a difference lies `level` off zero, on one side and to the end, and its median from there."""
    parts = levels_of(apart)
    medians = np.array([np.median(apart[start:stop]) for start, stop in parts])
    off = np.abs(medians) >= level
    near = np.flatnonzero(~off | (np.sign(medians) != np.sign(medians[-1])))
    place = int(near[-1]) + 1 if len(near) else 0
    if place == len(parts):
        return None
    first = parts[place][0]
    away = float(np.median(apart[first:]))
    error = max(long_run_spread(apart), 1e-12) / np.sqrt(len(apart) - first)
    return (first, away) if abs(away) >= max(level, _ERRORS * error) else None
