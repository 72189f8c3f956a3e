"""Everything that is measured of one set of embeddings, as a row of the result and the tables beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from analysis.embeddings.bootstrap import Interval, eer_interval, separation_interval
from analysis.embeddings.closeness import Closeness, closeness, davies_bouldin
from analysis.embeddings.collapse import effective_rank, rank_floor
from analysis.embeddings.mislabelled import Suspects, suspects
from analysis.embeddings.pairs import ScoreCounts
from analysis.embeddings.similarity import mean_similarity, similarity, speaker_sums
from analysis.embeddings.source import EmbeddingSet
from analysis.embeddings.vectors import Vectors
from analysis.embeddings.verification import Verification, verification
from eventstream.errors import unknown_name

__all__ = ["FRAME", "SPEAKERS", "Measured", "Options", "histogram", "measure"]

_COUNTS = (
    *("given", "n", "rejected", "labelled", "speakers", "singletons", "dim", "same_pairs", "different_pairs"),
    "mislabelled",
)
_NUMBERS = (
    *("same_mean", "same_std", "different_mean", "different_std"),
    *("separation", "separation_low", "separation_high", "eer", "eer_low", "eer_high", "threshold"),
    *("min_dcf", "min_dcf_threshold", "d_prime", "silhouette", "davies_bouldin", "effective_rank", "mean_cosine"),
)

#: One row a step and split.
FRAME = pl.Schema(
    [
        ("step", pl.Int64()),
        ("split", pl.String()),
        *((name, pl.Int64()) for name in _COUNTS),
        *((name, pl.Float64()) for name in _NUMBERS),
    ]
)
#: One row a speaker.
SPEAKERS = pl.Schema(
    {
        "speaker": pl.String,
        "n": pl.Int64,
        "own_similarity": pl.Float64,
        "nearest": pl.String,
        "nearest_similarity": pl.Float64,
        "silhouette": pl.Float64,
        "error": pl.Float64,
    }
)
HISTOGRAM = pl.Schema(
    {
        "low": pl.Float64,
        "high": pl.Float64,
        "same": pl.Int64,
        "different": pl.Int64,
        "same_density": pl.Float64,
        "different_density": pl.Float64,
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """Prior of a target, draws of the bootstrap, seed, rows of a map, and the map to show."""

    p_target: float = 0.01
    bootstrap: int = 200
    seed: int = 0
    sample: int = 2000
    map: Literal["pca", "umap", "tsne"] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.p_target < 1:
            raise ValueError(f"p_target={self.p_target!r} is no prior probability; give one between 0 and 1")
        if self.bootstrap < 0:
            raise ValueError(f"bootstrap={self.bootstrap} draws; give 0 for no interval, or some hundred")
        if self.sample < 10:
            raise ValueError(f"sample={self.sample} rows make no map; give at least 10")
        if self.map not in (None, "pca", "umap", "tsne"):
            raise ValueError(unknown_name("map", str(self.map), ("pca", "umap", "tsne")))


@dataclass(frozen=True, eq=False)
class Measured:
    """One set measured: its `row` of the frame and its `place` there, its vectors and tables."""

    row: dict[str, Any]
    place: int
    vectors: Vectors
    verification: Verification
    speakers: pl.DataFrame
    suspects: Suspects | None
    rank_floor: float

    def without_vectors(self) -> Measured:
        """The same, its memory given back."""
        none = np.zeros(0, np.int64)
        return replace(self, vectors=self.vectors.take(none), verification=replace(self.verification, counts=None))


def measure(one: EmbeddingSet, place: int, options: Options) -> Measured:
    """All statistics of a set; those of labels are null where same or different pairs are missing."""
    v = one.vectors
    row: dict[str, Any] = dict.fromkeys(FRAME)
    row.update(step=one.step, split=one.split, given=v.given + one.misfit, n=len(v.unit), dim=v.unit.shape[1])
    row.update(rejected=v.rejected + one.misfit, labelled=v.labelled, speakers=v.speakers, mislabelled=0)
    row.update(singletons=int((v.counts == 1).sum()), same_pairs=v.same_pairs, different_pairs=v.different_pairs)
    row.update(effective_rank=effective_rank(v), mean_cosine=_known(mean_similarity(v)))
    sums = speaker_sums(v)
    told = similarity(v, sums)
    row.update(same_mean=_known(told.same_mean), same_std=_known(told.same_std))
    row.update(different_mean=_known(told.different_mean), different_std=_known(told.different_std))
    checked = verification(v, p_target=options.p_target)
    if checked.counts is None:
        return Measured(row, place, v, checked, SPEAKERS.to_frame(), None, rank_floor(v))
    near = closeness(v, sums)
    found = suspects(v, near)
    draws = {"replicates": options.bootstrap, "seed": options.seed}
    apart, error = separation_interval(v, sums, **draws), eer_interval(v, checked.counts, **draws)
    row.update(separation=told.separation, **_interval("separation", apart), d_prime=_known(told.d_prime))
    row.update(eer=checked.eer, **_interval("eer", error), threshold=checked.threshold, min_dcf=checked.min_dcf)
    row.update(min_dcf_threshold=checked.min_dcf_threshold, silhouette=float(near.silhouette.mean()))
    row.update(davies_bouldin=davies_bouldin(v, sums), mislabelled=found.frame.height)
    return Measured(row, place, v, checked, _speakers(v, near), found, rank_floor(v))


def histogram(counts: ScoreCounts | None, bins: int) -> pl.DataFrame:
    """Scores in `bins` of equal width over their range (`HISTOGRAM`); a coarse cell (1.2e-4) counts at its middle."""
    if counts is None:
        return HISTOGRAM.to_frame()
    low, high = float(counts.low[0]), float(counts.high[-1])
    edges = np.linspace(low, high, bins + 1)
    middle = (counts.low + counts.high) / 2
    cell = np.clip(((middle - low) / (high - low) * bins).astype(np.int64), 0, bins - 1)
    same, different = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    np.add.at(same, cell, counts.same)
    np.add.at(different, cell, counts.different)
    width = (high - low) / bins
    return pl.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "same": same,
            "different": different,
            "same_density": same / (same.sum() * width),
            "different_density": different / (different.sum() * width),
        },
        schema=HISTOGRAM,
    )


def _speakers(v: Vectors, near: Closeness) -> pl.DataFrame:
    rows = pl.DataFrame(
        {
            "code": v.codes,
            "own": near.own,
            "nearest": near.nearest,
            "other": near.other,
            "silhouette": near.silhouette,
            "wrong": np.where(np.isfinite(near.own), near.other > near.own, np.nan),
        },
        nan_to_null=True,
    )
    table = rows.group_by("code", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n"),
        pl.col("own").mean().alias("own_similarity"),
        pl.col("nearest").mode().min().alias("nearest"),
        pl.col("other").mean().alias("nearest_similarity"),
        pl.col("silhouette").mean(),
        pl.col("wrong").mean().alias("error"),
    )
    names = list(v.names)
    return table.select(
        pl.Series("speaker", [names[c] for c in table["code"]], dtype=pl.String),
        *("n", "own_similarity"),
        pl.Series("nearest", [names[c] for c in table["nearest"]], dtype=pl.String),
        *("nearest_similarity", "silhouette", "error"),
    )


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    return {f"{name}_low": _known(interval.low), f"{name}_high": _known(interval.high)}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
