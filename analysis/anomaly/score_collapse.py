"""Scores that fall back: an accuracy, a BLEU, a reward or an error rate that loses what training had gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.log_series import Series
from analysis.anomaly.residuals import neighbour_noise
from analysis.findings import Finding, Severity
from analysis.limits import Gauge

__all__ = ["DIRECTIONS", "Collapse", "collapse_findings", "collapse_of"]

Floats = NDArray[np.float64]
#: Roles whose direction is known: 1 where more is better, -1 where less is.
DIRECTIONS = {"accuracy": 1.0, "reward": 1.0, "error_rate": -1.0}
#: Rows that a score needs at least, parts of the series that make a level, and the share of them that must stay down.
_FEWEST, _PARTS, _STAYS = 16, 8, 0.9
#: Of what was gained: lost at least, and lost so far that the score is back where it began.
_HALF, _BACK = 0.5, 0.8
#: Of the best level, that must have been gained: a score that hardly rose has nothing to lose, and overfits at most.
_WORTH = 0.3
_TRY = (
    "take the checkpoint before the first step named",
    "look at the loss and the gradient norm just before it",
    "lower the learning rate from there on",
)


@dataclass(frozen=True, slots=True)
class Collapse:
    """A score that rose from `start` to `best` and fell to `end` from `row` on; `lost` is the share of its gain."""

    row: int
    start: float
    best: float
    end: float
    lost: float
    score: float
    at_once: bool


def collapse_of(values: Floats) -> Collapse | None:
    """The loss of half or more of what a score (more is better, no holes) had gained, for good; None where it kept it.

    Levels are means of eighths of the series. Beginning and end are the first and the last (of the last, no more than
    a tenth of the rows may come back above the middle), the best is any between. Gain and loss must each be
    beyond six standard errors of such a mean, by noise from row to row and by how means of neighbouring rows differ.

    >>> row = np.arange(200)
    >>> noise = 0.01 * np.random.default_rng(0).normal(size=200)
    >>> found = collapse_of(noise + np.where(row < 120, 0.9 - 0.8 * np.exp(-row / 20), 0.1))
    >>> found.row, round(found.best, 1), round(found.end, 1), found.at_once
    (120, 0.9, 0.1, True)
    """
    n = len(values)
    if n < _FEWEST or not np.ptp(values) > 0:
        return None
    width = n // _PARTS
    total = np.concatenate([[0.0], np.cumsum(values - values[0])])
    levels = (total[width:] - total[:-width]) / width + values[0]
    top = int(np.argmax(levels))
    start, best, end = float(min(levels[0], values[: max(1, width // 4)].mean())), float(levels[top]), float(levels[-1])
    gained, lost = best - start, best - end
    error = _error(values, width)
    if gained < _WORTH * abs(best) or lost < _HALF * gained or min(gained, lost) < 6.0 * error * 2.0**0.5:
        return None
    middle = best - lost / 2
    if np.mean(values[-width:] < middle) < _STAYS:
        return None
    row = _onset(values, top + width // 2, middle)
    before, after = values[max(0, row - 5) : row], values[row : row + 5]
    at_once = bool(np.median(before) - np.median(after) > 0.6 * lost)
    return Collapse(row, start, best, end, lost / gained, lost / error if error > 0 else float("inf"), at_once)


def _error(values: Floats, width: int) -> float:
    """Standard error of a mean of `width` rows: of white noise, or by what means of some rows differ if more."""
    noise = neighbour_noise(values)
    white = noise / width**0.5 if np.isfinite(noise) else 0.0
    short = max(2, width // 4)
    means = values[: len(values) // short * short].reshape(-1, short).mean(axis=1)
    wander = neighbour_noise(means) if len(means) >= 5 else 0.0
    parts = values[: len(values) // width * width].reshape(-1, width)
    # accuracies of small batches take a few values: most neighbours are equal, and tell of no noise
    coarse = float(parts.std(axis=1).max()) / width**0.5 if noise == 0 else 0.0
    return float(max(white, coarse, wander * (short / width) ** 0.5 if np.isfinite(wander) else 0.0))


def _onset(values: Floats, top: int, middle: float) -> int:
    """Row at which the score goes below the middle for good: the split that leaves fewest rows on the wrong side."""
    high = values[top:] >= middle
    wrong = np.cumsum(np.append(0, ~high)) + (high.sum() - np.cumsum(np.append(0, high)))
    return top + int(np.argmin(wrong[:-1]))


def collapse_findings(series: Sequence[Series], gauge: Gauge) -> list[Finding]:
    """A finding for each score of known direction that lost half of its gain for good; ranks and splits apart."""
    found = []
    for one in series:
        if one.role not in DIRECTIONS or one.rank != min(s.rank for s in series if s.metric == one.metric):
            continue
        way = DIRECTIONS[one.role]
        row = np.flatnonzero(np.isfinite(one.values))
        with np.errstate(over="ignore", invalid="ignore"):
            collapse = collapse_of(way * one.values[row])
        told = None if collapse is None else _finding(one, int(row[collapse.row]), collapse, way, gauge)
        found += [told] if told is not None else []
    return found


def _finding(series: Series, row: int, collapse: Collapse, way: float, gauge: Gauge) -> Finding | None:
    kind = "level-shift" if collapse.at_once else "divergence"
    step, last = series.step_at(row), series.step_at(series.frame.height - 1)
    name = f"{series.split} {series.metric}".strip()
    best, end = way * collapse.best, way * collapse.end
    fell = "fell" if way > 0 else "rose"
    times = max(best, end) / min(best, end) if min(best, end) > 0 else float("inf")
    if not gauge.reaches(kind, times, series.metric):
        return None
    return Finding(
        kind,
        _severity(series, collapse),
        "",
        f"{name} {fell} from {best:.4g} to {end:.4g} {'at' if collapse.at_once else 'from'} step "
        f"{row if step is None else step:,}{'' if collapse.at_once else ' on'} and stays there: "
        f"{100 * min(collapse.lost, 1.0):.0f} % of what it had gained since {way * collapse.start:.4g} is lost",
        metric=series.metric,
        first_step=row if step is None else step,
        last_step=series.frame.height - 1 if last is None else last,
        evidence={
            "split": series.split,
            "rank": series.rank,
            "value": end,
            "expected": best,
            "start": way * collapse.start,
            "share_lost": collapse.lost,
            "score": collapse.score,
            "times": times,
            "limit": gauge.limits.of(kind, series.metric),
            "n": series.frame.height,
        },
        causes=("the model came apart there: compare with the loss and the gradient norm at that step",),
        suggestions=_TRY,
    )


def _severity(series: Series, collapse: Collapse) -> Severity:
    """Rewards of a policy go up and down by themselves, so that the whole of a gain must be lost for a warning."""
    if series.role == "reward":
        return "warning" if collapse.lost >= _BACK else "info"
    return "critical" if collapse.lost >= _BACK else "warning"
