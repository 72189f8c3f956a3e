"""What one resume did with the data: fed it again, went on, or replayed the branch that it left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.integrity.replay import CHANCE, LEAST_CORRELATION, LEAST_PAIRS, Match, best_match, correlation_at
from analysis.integrity.replay import fingerprint as fingerprint_of
from analysis.integrity.resumes import Resume

__all__ = ["Verdict", "judge"]

Floats = NDArray[np.float64]

#: Records that must be the same to the last bit before the dead branch counts as replayed.
_IDENTICAL = 10
#: Standard deviations beyond which one correlation, at a lag that is given, is no accident.
_SURE = 3.1
#: A correlation without a resume in between that is this part of the one across it says the same.
_ALIKE = 0.5
#: A lag may be several epochs of an order that never changes: so many parts of it are looked at, of so many records.
_PARTS, _SHORTEST = 64, 8


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The verdict on one resume (`name`, see `analysis.repeated_data.RepeatedData`) with the numbers behind it.

    `after` and `matched` are the fingerprints of the loss after the resume and of the stretch that matches it best.
    """

    resume: Resume
    name: str
    match: Match | None
    after: Floats
    matched: Floats
    dead_pairs: int
    dead_correlation: float
    identical: bool


def judge(resume: Resume, resumes: int = 1) -> Verdict:
    """The verdict on one of so many resumes: chance is shared among them.

    >>> nothing = np.empty(0)
    >>> judge(Resume(0, 1, 100, 1, nothing, nothing, np.empty(0, np.int64), nothing, None)).name
    'too short'
    """
    after, before = fingerprint_of(resume.after), fingerprint_of(resume.before)
    match = best_match(after, before, likely=_likely(resume), chance=CHANCE / max(resumes, 1)) if len(before) else None
    both = min(len(resume.after), len(resume.dead))
    dead_correlation, dead_pairs = correlation_at(after[:both], fingerprint_of(resume.dead)[:both])
    identical = _identical(resume.after[:both], resume.dead[:both])
    restored = not math.isnan(dead_correlation) and _sure(dead_correlation, dead_pairs)
    matched = np.empty(0)
    if match is not None:
        start = len(before) - match.lag
        matched = before[start : start + len(after)]
    name = _name(resume, match, after, before) if match is not None and match.found else ""
    if not name:
        name = "identical" if identical else "restored" if restored else "too short" if match is None else "new"
    return Verdict(resume, name, match, after, matched, dead_pairs, dead_correlation, identical)


def _likely(resume: Resume) -> list[int]:
    """Places at which data that is fed again begins: the first records, and the first of the epoch."""
    first = int(np.argmax(np.isfinite(resume.before)))
    likely = [0, 1, first, first + 1]
    if resume.epoch_records:
        likely.append(round(len(resume.before) - math.fmod(len(resume.before), resume.epoch_records)))
    return likely


def _name(resume: Resume, match: Match, after: Floats, before: Floats) -> str:
    """What a match beyond chance means: that data came again, or that it comes again every epoch anyway."""
    if resume.epoch_records and _whole_epochs(match.lag, resume.epoch_records):
        return "same order"
    looked = False
    for values, attempts in ((before, resume.attempts), (after, np.zeros(len(after), np.int64))):
        for part in range(1, _PARTS + 1):
            lag, odd = divmod(match.lag, part)
            if odd or lag < _SHORTEST:
                continue
            r, pairs = _at_lag(values, attempts, lag)
            if _sure(r, pairs) and r > _ALIKE * match.correlation:
                return "same order"
            looked |= part == 1 and pairs >= LEAST_PAIRS
    start = len(before) - match.lag
    return "repeated" if looked or start in _likely(resume) else "unclear"


def _at_lag(values: Floats, attempts: NDArray[np.int64], lag: int) -> tuple[float, int]:
    """Correlation of a series with itself at a lag, within one attempt, and the pairs it is over."""
    here, there = values[lag:], values[: max(len(values) - lag, 0)]
    one_attempt = attempts[lag : len(values)] == attempts[: len(there)]
    return correlation_at(np.where(one_attempt, here, np.nan), there)


def _whole_epochs(records: float, epoch: float) -> bool:
    """Whether so many records are whole epochs, to one record."""
    epochs = round(records / epoch)
    return epochs >= 1 and abs(records - epochs * epoch) <= 1.0


def _sure(r: float, pairs: int) -> bool:
    return (
        pairs >= LEAST_PAIRS and r > LEAST_CORRELATION and math.atanh(min(r, 0.999999)) * math.sqrt(pairs - 3) > _SURE
    )


def _identical(after: Floats, dead: Floats) -> bool:
    """Whether the first records of two branches are the same to the last bit, and tell something."""
    both = np.flatnonzero(np.isfinite(after) & np.isfinite(dead))[:_IDENTICAL]
    return len(both) == _IDENTICAL and bool((after[both] == dead[both]).all()) and bool(np.ptp(after[both]) > 0)
