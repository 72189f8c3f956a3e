"""Equal error rate and detection cost over all pairs: exact, with two passes at most in common cases."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.pairs import ScoreCounts, cells_of, count_pairs
from analysis.embeddings.vectors import Vectors

__all__ = ["Verification", "equal_error", "minimum_cost", "verification"]

#: From so many rows on, a sample tells beforehand which cells will be needed, which saves the second pass.
_GUESS_FROM = 20_000
_GUESS_ROWS, _GUESS_MARGIN = 8_000, 0.004
#: Cells refined in one pass at most: their counters must stay in the cache.
_MOST = 512

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Verification:
    """A pair is accepted where its cosine is at least `threshold`. NaN where a sort of pairs is missing.

    `eer` as in `equal_error`, `min_dcf` as in `minimum_cost`; `counts` are the scores behind both.
    """

    eer: float
    threshold: float
    min_dcf: float
    min_dcf_threshold: float
    counts: ScoreCounts | None


def verification(v: Vectors, *, p_target: float = 0.01) -> Verification:
    """EER and minimum detection cost over every pair of labelled rows (float32 scores, held to 2^-23).

    Scores are counted in cells; the cells in which the crossing or the minimum may lie are then counted score by
    score, until none is left that could change the result: the same as from a sorted list of all pairs.

    >>> from analysis.embeddings.vectors import prepare
    >>> r = verification(prepare([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], list("aabb")))
    >>> r.eer, r.min_dcf, round(r.threshold, 2)
    (0.0, 0.0, 0.6)
    """
    if not v.same_pairs or not v.different_pairs:
        return Verification(math.nan, math.nan, math.nan, math.nan, None)
    return _solve(v, p_target, _guess(v, p_target))


def _solve(v: Vectors, p_target: float, refined: NDArray[np.int64]) -> Verification:
    """Count, and refine what is open, until nothing is: the cells known to be needed come in `refined`."""
    while True:
        counts = count_pairs(v, refined)
        eer, threshold, wanted = equal_error(counts)
        cost, cost_threshold, also = minimum_cost(counts, p_target)
        missing = np.concatenate([wanted, also[:_MOST]])
        if not len(missing):
            return Verification(eer, threshold, cost, cost_threshold, counts)
        refined = np.union1d(refined, cells_of(counts.low[missing]))


def equal_error(counts: ScoreCounts) -> tuple[float, float, NDArray[np.int64]]:
    """The EER, its threshold, and the cells that must be refined before both are exact.

    Operating points are the distinct scores t: false acceptance is the share of different pairs with a score >= t,
    false rejection that of same pairs with a score < t. The EER is where both are equal on the straight line between
    neighbouring points, as on the ROC polyline. A whole range of thresholds may do: then its middle is given.
    """
    reject, accept = _operating_points(counts)
    gap = accept - reject
    gap[np.abs(gap) < 1e-13] = 0.0
    i = int(np.flatnonzero(gap >= 0)[-1])
    if gap[i] == 0:
        around = np.array([i - 1, i])
        threshold = (counts.low[i - 1] + counts.low[i]) / 2
        return float(accept[i]), float(threshold), around[~counts.exact[around]]
    share = gap[i] / (gap[i] - gap[i + 1])
    eer = accept[i] + share * (accept[i + 1] - accept[i])
    return float(eer), float(counts.low[i]), np.array([i] if not counts.exact[i] else [], np.int64)


def minimum_cost(counts: ScoreCounts, p_target: float) -> tuple[float, float, NDArray[np.int64]]:
    """The minimum detection cost, its threshold, and the cells that could still hold a smaller one, best first.

    Cost at a threshold: p x false rejection + (1 - p) x false acceptance (both errors cost 1), divided by
    min(p, 1 - p), the cost of deciding without looking (NIST SRE 2016 evaluation plan, section 3.1); so 1 is useless.
    """
    reject, accept = _operating_points(counts)
    scale = min(p_target, 1 - p_target)
    cost = (p_target * reject + (1 - p_target) * accept) / scale
    best = int(cost.argmin())
    # inside a cell no point rejects less than its lower edge, or accepts less than its upper one
    bound = (p_target * reject[:-1] + (1 - p_target) * accept[1:]) / scale
    open_cells = np.flatnonzero(~counts.exact & (bound < cost[best] - 1e-12))
    threshold = counts.low[best] if best < len(counts.low) else counts.high[-1]
    return float(cost[best]), float(threshold), open_cells[np.argsort(bound[open_cells], kind="stable")]


def _operating_points(counts: ScoreCounts) -> tuple[Floats, Floats]:
    """False rejection and false acceptance with the threshold at each cell's lower edge, and above all."""
    same, different = np.cumsum(counts.same), np.cumsum(counts.different)
    reject = np.concatenate([[0], same]) / same[-1]
    accept = 1 - np.concatenate([[0], different]) / different[-1]
    return reject, accept


def _guess(v: Vectors, p_target: float) -> NDArray[np.int64]:
    """Cells around the thresholds of a sample with a few rows of every speaker; none for small sets."""
    if v.labelled < _GUESS_FROM:
        return np.zeros(0, np.int64)
    repeated = np.flatnonzero(v.counts > 1)
    chosen = repeated[:: max(len(repeated) * 8 // _GUESS_ROWS, 1)]
    each = max(min(_GUESS_ROWS // len(chosen), 64), 2)
    rows = np.concatenate([np.arange(v.starts[s], min(v.starts[s] + each, v.starts[s + 1])) for s in chosen])
    sample = v.take(rows)
    if not sample.different_pairs:
        return np.zeros(0, np.int64)
    told = _solve(sample, p_target, np.zeros(0, np.int64))
    around = np.array([told.threshold, told.min_dcf_threshold])
    low, high = cells_of(around - _GUESS_MARGIN), cells_of(around + _GUESS_MARGIN)
    return np.concatenate([np.arange(a, b + 1) for a, b in zip(low, high, strict=True)])
