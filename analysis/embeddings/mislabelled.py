"""Utterances that lie among another speaker's, at home there and strangers at their own: likely mislabelled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.embeddings.closeness import Closeness
from analysis.embeddings.vectors import Vectors

__all__ = ["MISLABELLED", "Suspects", "suspects"]

#: False alarms to expect in a whole set of clean, normal margins: the bar per utterance follows from their number.
_ALARMS_PER_SET = 0.01
#: Speakers with fewer utterances have no centre of their own.
_FEW = 8
#: Nearer to the other speaker by so many deviations: where speakers overlap, margins below zero are no rarity.
_NEARER = 2.0
#: As typical for the other speaker as all but the outermost of its own utterances.
_TYPICAL = 3.0

Floats = NDArray[np.float64]

#: Columns of the table of suspects.
MISLABELLED = pl.Schema(
    {
        "row": pl.Int64,
        "path": pl.String,
        "label": pl.String,
        "suggested": pl.String,
        "own_similarity": pl.Float64,
        "other_similarity": pl.Float64,
        "score": pl.Float64,
    }
)


@dataclass(frozen=True, eq=False)
class Suspects:
    """`frame` (`MISLABELLED`), worst first; `judged` utterances; `bar` on the score; `reason` where none was judged."""

    frame: pl.DataFrame
    judged: int
    bar: float
    reason: str | None = None


def suspects(v: Vectors, near: Closeness) -> Suspects:
    """Likely mislabelled utterances, with a bar that rises with their number, so that a clean set of any size has none.

    The margin of an utterance is its cosine to its own speaker's direction (without itself) less that to the nearest
    other. Its `score` is how many robust standard deviations (1.4826 x MAD, that of its speaker or of all, whichever is
    larger) the margin lies below its speaker's median. A suspect has a margin two deviations below zero, a score
    above the normal quantile of 0.01 / n, and is as near to the other speaker as that speaker's own utterances are
    (within three deviations of their median): a noisy utterance, far from everyone, is none, nor is one of two
    speakers that sound alike. Not judged where the typical utterance is no nearer to its own speaker than to another,
    or where there are fewer than two speakers with two utterances. A speaker's only utterance is never judged.

    >>> from analysis.embeddings.closeness import closeness
    >>> from analysis.embeddings.vectors import prepare
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(rng.normal(size=(5, 32)), 20, axis=0) + 0.5 * rng.normal(size=(100, 32))
    >>> v = prepare(X, ["b", *"a" * 19, *"b" * 20, *"c" * 20, *"d" * 20, *"e" * 20])
    >>> suspects(v, closeness(v)).frame.select("row", "label", "suggested").rows()
    [(0, 'b', 'a')]
    """
    judged = np.flatnonzero(np.isfinite(near.own_centroid) & np.isfinite(near.other_centroid))
    if v.speakers < 2 or (v.counts > 1).sum() < 2:
        return _none("needs two speakers with two utterances each")
    margin = near.own_centroid[judged] - near.other_centroid[judged]
    codes = v.codes[judged]
    overall, overall_spread = _centre(margin)[0], _within(margin, codes)
    if overall <= overall_spread:
        return _none(
            f"speakers are not apart: the typical utterance is nearer to its own speaker by {overall:.3f} only "
            f"(deviation {overall_spread:.3f}), which is too little to doubt a label"
        )
    score = _scores(margin, codes, v, overall, overall_spread)
    bar = NormalDist().inv_cdf(1 - _ALARMS_PER_SET / max(len(judged), 1))
    other = near.nearest_centroid[judged]
    home_median, home_spread = _homes(near.own_centroid[judged], codes, v.speakers)
    at_home = near.other_centroid[judged] >= home_median[other] - _TYPICAL * home_spread[other]
    found = np.flatnonzero((margin < -_NEARER * overall_spread) & (score > bar) & at_home)
    found = found[np.argsort(-score[found], kind="stable")]
    return Suspects(_frame(v, near, judged[found], score[found]), len(judged), bar)


def _none(reason: str) -> Suspects:
    return Suspects(MISLABELLED.to_frame(), 0, float("nan"), reason)


def _centre(values: Floats) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, max(1.4826 * float(np.median(np.abs(values - middle))), 1e-6)


def _within(margin: Floats, codes: NDArray[np.int64]) -> float:
    """Deviation of the margins around their speaker's median: speakers may differ in how apart they are."""
    rest = [values - np.median(values) for values, _ in _by_speaker(margin, codes) if len(values) >= _FEW]
    return _centre(np.concatenate(rest) if rest else margin)[1]


def _scores(margin: Floats, codes: NDArray[np.int64], v: Vectors, overall: float, overall_spread: float) -> Floats:
    """Deviations below the speaker's own median; below that of all for a speaker of few utterances."""
    score = (overall - margin) / overall_spread
    for values, at in _by_speaker(margin, codes):
        if len(values) >= _FEW:
            middle, spread = _centre(values)
            score[at] = (middle - values) / max(spread, overall_spread)
    return score


def _homes(own: Floats, codes: NDArray[np.int64], k: int) -> tuple[Floats, Floats]:
    """Median and deviation of each speaker's own similarities; those of all for a speaker of few utterances."""
    overall, overall_spread = _centre(own)
    median, spread = np.full(k, overall), np.full(k, overall_spread)
    for values, at in _by_speaker(own, codes):
        if len(values) >= _FEW:
            median[codes[at.start]], spread[codes[at.start]] = _centre(values)
    return median, np.maximum(spread, overall_spread)


def _by_speaker(values: Floats, codes: NDArray[np.int64]) -> list[tuple[Floats, slice]]:
    edges = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, [len(codes)]])
    return [(values[a:b], slice(int(a), int(b))) for a, b in itertools.pairwise(edges) if b > a]


def _frame(v: Vectors, near: Closeness, rows: NDArray[np.int64], score: Floats) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": v.row[rows],
            "path": pl.Series(v.paths[rows] if v.paths is not None else [None] * len(rows), dtype=pl.String),
            "label": pl.Series([v.names[s] for s in v.codes[rows]], dtype=pl.String),
            "suggested": pl.Series([v.names[s] for s in near.nearest_centroid[rows]], dtype=pl.String),
            "own_similarity": near.own_centroid[rows],
            "other_similarity": near.other_centroid[rows],
            "score": score,
        },
        schema=MISLABELLED,
    )
