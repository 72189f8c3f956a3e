"""Confidence intervals by drawing speakers, not utterances: utterances of one speaker are not independent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.pairs import ScoreCounts
from analysis.embeddings.vectors import Vectors

__all__ = ["Interval", "eer_interval", "separation_interval"]

#: Thresholds at which the errors of a replicate are known; between them the EER is interpolated.
_CELLS = 512
#: Rows that enter the interval of the EER, spread evenly over the speakers; beyond, it only becomes a little wider.
_ROWS = 20_000
_SMALL = 1500
_FEWEST = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval (percentiles of the replicates); NaN where there are fewer than three speakers to draw."""

    low: float
    high: float


_UNKNOWN = Interval(math.nan, math.nan)


def separation_interval(v: Vectors, sums: Floats, *, replicates: int, seed: int) -> Interval:
    """95 % interval of `same_mean - different_mean` when as many speakers are drawn with replacement.

    Exact for every replicate in O(k d): the pairs of one speaker drawn twice are not counted as different.
    """
    if not replicates or v.speakers < _FEWEST or not v.same_pairs:
        return _UNKNOWN
    counts = v.counts.astype(np.float64)
    squares = np.einsum("ij,ij->i", sums, sums)
    drawn = _draws(v.speakers, replicates, seed)
    found = np.full(replicates, np.nan)
    for r, w in enumerate(drawn):
        same_pairs = w @ (counts * (counts - 1))
        mixed = w @ sums
        different_pairs = (w @ counts) ** 2 - (w**2) @ counts**2
        if same_pairs > 0 and different_pairs > 0:
            same = (w @ (squares - counts)) / same_pairs
            found[r] = same - (mixed @ mixed - (w**2) @ squares) / different_pairs
    return _percentiles(found)


def eer_interval(v: Vectors, counts: ScoreCounts, *, replicates: int, seed: int) -> Interval:
    """95 % interval of the EER over draws of speakers.

    A pair of speakers (a, b) weighs w_a w_b in a replicate, which is taken as w_a + w_b - 1 (the first-order term of
    Hoeffding's decomposition, as in Arcones and Gine 1992, Ann. Stat. 20), so that each speaker's own tally of scores
    suffices, whatever the number of pairs. The EER of a replicate is interpolated on 512 thresholds over the range
    in which both sorts of pairs occur. Above 20,000 rows, that many are taken, evenly over the speakers.
    """
    if not replicates or v.speakers < _FEWEST:
        return _UNKNOWN
    low = float(counts.low[np.flatnonzero(counts.same)[0]])
    high = float(counts.high[np.flatnonzero(counts.different)[-1]])
    if low >= high:
        return Interval(0.0, 0.0)
    part = _thin(v, seed)
    same, different = _by_speaker(part, low, high)
    drawn = _draws(part.speakers, replicates, seed)
    reject = np.cumsum(drawn @ same, axis=1)
    # w_a + w_b - 1 over all pairs: what the drawn speakers have, less half of everything (each pair stands twice)
    linear = np.maximum(drawn @ different - different.sum(axis=0) / 2, 0.0)
    accept = np.cumsum(linear[:, ::-1], axis=1)[:, ::-1]
    return _percentiles(np.array([_crossing(r, a) for r, a in zip(reject, accept, strict=True)]))


def _draws(k: int, replicates: int, seed: int) -> Floats:
    """How often each of k speakers is drawn, one row a replicate."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(k, np.full(k, 1 / k), size=replicates).astype(np.float64)


def _percentiles(found: Floats) -> Interval:
    usable = found[np.isfinite(found)]
    if len(usable) < max(len(found) // 2, 1):
        return _UNKNOWN
    low, high = np.percentile(usable, [2.5, 97.5])
    return Interval(float(low), float(high))


def _crossing(reject: Floats, accept: Floats) -> float:
    """EER on cells: `reject` is cumulated up to and with each cell, `accept` from each cell on."""
    if reject[-1] <= 0 or accept[0] <= 0:
        return math.nan
    frr = np.concatenate([[0.0], reject / reject[-1]])
    far = np.concatenate([accept / accept[0], [0.0]])
    gap = far - frr
    i = int(np.flatnonzero(gap >= 0)[-1])
    share = gap[i] / (gap[i] - gap[i + 1])
    return float(far[i] + share * (far[i + 1] - far[i]))


def _thin(v: Vectors, seed: int) -> Vectors:
    if v.labelled <= _ROWS:
        return v.take(np.arange(v.labelled))
    rng = np.random.default_rng(seed)
    each = max(_ROWS // v.speakers, 2)
    rows = [
        np.sort(rng.choice(int(b - a), min(each, int(b - a)), replace=False)) + a
        for a, b in zip(v.starts[:-1], v.starts[1:], strict=True)
    ]
    if v.speakers * each > 2 * _ROWS:
        rows = [rows[s] for s in np.sort(rng.choice(v.speakers, _ROWS // 2, replace=False))]
    return v.take(np.concatenate(rows))


def _by_speaker(v: Vectors, low: float, high: float) -> tuple[Floats, Floats]:
    """Each speaker's scores in cells between `low` and `high`; what lies outside counts in the first or last cell."""
    same = np.zeros((v.speakers, _CELLS), np.int64)
    different = np.zeros_like(same)
    base, per_unit = np.float32(low), np.float32(_CELLS / (high - low))
    rows = max(16_000_000 // max(v.labelled, 1), 1)
    for top in range(0, v.labelled, rows):
        scores = v.unit[top : top + rows] @ v.unit.T
        if v.labelled > _SMALL:
            from analysis.embeddings.pair_kernels import count_by_speaker

            count_by_speaker(scores, top, v.codes, v.starts, base, per_unit, same, different)
        else:
            _tally(v, scores, top, base, per_unit, same, different)
    return same.astype(np.float64), different.astype(np.float64)


def _tally(
    v: Vectors,
    scores: NDArray[np.float32],
    top: int,
    base: np.float32,
    per_unit: np.float32,
    same: NDArray[np.int64],
    different: NDArray[np.int64],
) -> None:
    cells = np.clip((scores - base) * per_unit, 0, _CELLS - 1).astype(np.int64)
    speaker = v.codes[top : top + len(scores)]
    alike = speaker[:, None] == v.codes[None, :]
    cells += speaker[:, None] * _CELLS
    row = np.arange(len(scores))
    others = alike.copy()
    others[row, top + row] = False
    same += np.bincount(cells[others], minlength=same.size).reshape(same.shape)
    different += np.bincount(cells[~alike], minlength=same.size).reshape(same.shape)
