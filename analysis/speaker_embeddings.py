"""Are speakers told apart? Similarity, verification errors, clusters, collapse and wrong labels of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from numpy.typing import ArrayLike

from analysis.embeddings.clustering import METHODS, cluster
from analysis.embeddings.judge import KINDS, Thresholds, judge
from analysis.embeddings.maps import MAPS, embedding_map
from analysis.embeddings.measures import FRAME, SPEAKERS, Measured, Options, histogram, measure
from analysis.embeddings.mislabelled import MISLABELLED
from analysis.embeddings.source import EmbeddingSet, Unread, from_array, from_file, from_run
from analysis.embeddings.vectors import Labels
from analysis.findings import NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SpeakerEmbeddings", "speaker_embeddings"]

MapKind = Literal["pca", "umap", "tsne"]


@dataclass(frozen=True, eq=False, repr=False)
class SpeakerEmbeddings(Result):
    """Embeddings judged, one row of `frame` a step and split; the last step is looked at closely.

    Columns of `frame`: step, split; `given` rows, of which `n` usable and `rejected` not (NaN, infinite, of length
    zero, of another number of dimensions); `labelled` rows, `speakers`, `singletons` (speakers with one utterance:
    they count as different from others and have no same pair), `dim`; same_pairs, different_pairs; same_mean, same_std,
    different_mean, different_std (cosine over all pairs); `separation` (same_mean - different_mean) with its 95 %
    interval; `eer` (a share) with its 95 % interval and its `threshold`; `min_dcf` and its threshold; d_prime;
    silhouette (cosine); davies_bouldin (Euclidean, on unit vectors); effective_rank; mean_cosine (all pairs);
    `mislabelled` (count). Null where it is not defined.

    `speakers` has a row a speaker: speaker, n, `own_similarity` (mean cosine to the other utterances of the speaker),
    `nearest` and `nearest_similarity` (the speaker to which its utterances are nearest on average), silhouette, and
    `error`, the share of its utterances that are nearer to another speaker. `mislabelled` has a row a suspect: row,
    path, label, suggested, own_similarity, other_similarity, score (deviations below the speaker's median margin).
    `unread` names the files that could not be read, with the reason.
    """

    speakers: pl.DataFrame = field(default_factory=SPEAKERS.to_frame, kw_only=True)
    mislabelled: pl.DataFrame = field(default_factory=MISLABELLED.to_frame, kw_only=True)
    unread: tuple[Unread, ...] = field(default=(), kw_only=True)
    options: Options = field(default_factory=Options, kw_only=True)
    last: Measured | None = field(default=None, kw_only=True)
    maps: dict[str, pl.DataFrame] = field(default_factory=dict, kw_only=True)

    def similarities(self, bins: int = 100) -> pl.DataFrame:
        """Histogram of the cosine at the last step: low, high, same, different (pairs), and the two as densities.

        `bins` of equal width over the range that occurs; empty where there are no same or no different pairs.
        """
        if bins < 1:
            raise ValueError(f"bins={bins}; give at least 1")
        return histogram(None if self.last is None else self.last.verification.counts, bins)

    def clustering(self, methods: Sequence[str] = METHODS, *, sample: int = 5000) -> pl.DataFrame:
        """Clusters of the last step against its speakers: method, n, speakers, clusters, noise, ari, nmi, purity.

        `methods` out of kmeans, agglomerative, hdbscan (needs scikit-learn). Above `sample` rows whole speakers are
        drawn, seeded. Empty where there are fewer than two speakers.
        """
        if self.last is None:
            from analysis.embeddings.clustering import CLUSTERING

            return CLUSTERING.to_frame()
        return cluster(self.last.vectors, methods, sample=sample, seed=self.options.seed)

    def map(self, kind: MapKind = "pca", *, sample: int | None = None) -> pl.DataFrame:
        """Points of the last step in two dimensions: x, y, label, path, row.

        Of about `sample` rows (default: `sample` of the call), the same share of every speaker, seeded: UMAP and t-SNE
        (which need the extra `embeddings`) grow fastest of all that is done here. Computed once for each kind.
        """
        if kind not in MAPS:
            raise ValueError(unknown_name("map", kind, MAPS))
        if self.last is None:
            from analysis.embeddings.maps import MAP

            return MAP.to_frame()
        size = self.options.sample if sample is None else sample
        key = f"{kind} {size}"
        if key not in self.maps:
            self.maps[key] = embedding_map(self.last.vectors, kind, sample=size, seed=self.options.seed)
        return self.maps[key]

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: Literal["similarities", "map", "steps"] = "similarities",
        map: MapKind | None = None,
        **options: Any,
    ) -> Axes:
        """Similarity histograms with the threshold of equal error (default), a `map`, or the course over `steps`.

        `map` is pca unless the call or this says otherwise; `options` go to `similarities` or `map`.
        """
        from analysis.embeddings import drawing

        if kind not in ("similarities", "map", "steps"):
            raise ValueError(unknown_name("plot", kind, ("similarities", "map", "steps")))
        if self.last is None:
            reason = self.not_applicable[0].reason if self.not_applicable else "no embeddings"
            return drawing.draw_nothing(ax, f"no embeddings to show: {reason}"[:100].replace("$", r"\$"))
        row = self.frame.row(self.last.place, named=True)
        if kind == "steps":
            return drawing.draw_steps(ax, self.frame)
        table = self.similarities(**options) if kind == "similarities" else SPEAKERS.to_frame()
        if kind == "map" or not table.height:
            shown: MapKind = map or self.options.map or "pca"
            points = self.map(shown, **(options if kind == "map" else {}))
            return drawing.draw_map(ax, points, shown, row)
        return drawing.draw_similarities(ax, table, row)


def speaker_embeddings(
    source: Run | ArrayLike | str | Path,
    labels: Labels | None = None,
    *,
    same: float = 0.7,
    different: float = 0.3,
    good: float = 0.4,
    excellent: float = 0.6,
    p_target: float = 0.01,
    map: MapKind | None = None,
    sample: int = 2000,
    bootstrap: int = 200,
    seed: int = 0,
    limits: Limits = DEFAULT_LIMITS,
) -> SpeakerEmbeddings:
    """How well embeddings tell speakers (or any labels) apart, over the steps of a run or in one set.

    `source` is a `Run` (its `embeddings` events, every step), an array (utterances, dimensions) with `labels`, or a
    Parquet file with the columns vector, label, path. All pairs count, exactly: see `analysis.embeddings.verification`
    for the EER and the detection cost (`p_target` 0.01, as NIST SRE and VoxCeleb have it; normalised, so that 1 is
    useless), `analysis.embeddings.mislabelled` for wrong labels. Intervals come from `bootstrap` draws of speakers (0:
    none). A map is made at once if `map` names one, else when asked for.

    Findings speak of the last step (of each of its splits): embedding-collapse, low-separation (a warning unless the
    separation is above `good`; a missed `same` or `different` alone is an info) and mislabelled-sample. What an early
    checkpoint looks like is in `frame`, and no reason to alarm. `limits` may set others than these for single kinds; of
    low-separation they move `same`, `different` and `good` together.

    Edge cases: rows with NaN, infinities or no length are left out and counted; rows without a label count for collapse
    only; duplicates are utterances like others. Raises `ValueError` for parameters out of range or labels that do not
    fit, `InputError` for a file that cannot be read.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> voices = rng.normal(size=(10, 64))
    >>> utterances = np.repeat(voices, 20, axis=0) + 0.4 * rng.normal(size=(200, 64))
    >>> result = speaker_embeddings(utterances, np.repeat(range(10), 20))
    >>> result.status, result.frame["eer"].item(), result.frame["separation"].item() > 0.6
    ('healthy', 0.0, True)
    """
    gauge = Gauge(limits)
    thresholds = Thresholds(same, different, good, excellent).moved(limits)
    options = Options(p_target=p_target, bootstrap=bootstrap, seed=seed, sample=sample, map=map)
    name, sets = _sets(source, labels)
    measured: list[Measured] = []
    unread: list[Unread] = []
    for one in sets:
        if isinstance(one, Unread):
            unread.append(one)
            continue
        # only the last step is looked at closely later: the vectors of the others need not stay in memory
        measured = [m.without_vectors() if m.row["step"] != one.step else m for m in measured]
        measured.append(measure(one, len(measured), options))
    result = _judged(name, measured, tuple(unread), options, thresholds, gauge)
    if map is not None:
        result.map(map)
    return result


def _sets(source: Run | ArrayLike | str | Path, labels: Labels | None) -> tuple[str, Iterator[EmbeddingSet | Unread]]:
    if isinstance(source, Run):
        if labels is not None:
            raise ValueError("labels are given, but a run's embeddings bring their own; pass an array or a file")
        return source.name, from_run(source)
    if isinstance(source, str | Path):
        return Path(source).stem, from_file(source, labels)
    return "embeddings", from_array(source, labels)


def _judged(
    name: str,
    measured: list[Measured],
    unread: tuple[Unread, ...],
    options: Options,
    thresholds: Thresholds,
    gauge: Gauge,
) -> SpeakerEmbeddings:
    frame = pl.DataFrame([m.row for m in measured], schema=FRAME, orient="row")
    if not measured:
        reason = "the run has no embeddings"
        if unread:
            reason = (
                f"none of {len(unread)} files of embeddings could be read; first {unread[0].file}: {unread[0].reason}"
            )
        skipped = tuple(NotApplicable(kind, reason) for kind in KINDS)
        return SpeakerEmbeddings(name, frame, not_applicable=skipped, unread=unread, options=options)
    last = [m for m in measured if m.row["step"] == measured[-1].row["step"]]
    verdicts = [judge(name, m.row, m.rank_floor, m.suspects, thresholds, gauge) for m in last]
    findings = tuple(f for found, _ in verdicts for f in found)
    told = {f.kind for f in findings}
    skipped_by_kind = {n.kind: n for _, skipped in verdicts for n in skipped if n.kind not in told}
    # a kind that one split allows to judge has been judged
    judged = {k for _, skipped in verdicts for k in set(KINDS) - {n.kind for n in skipped}}
    chosen = last[-1]
    return SpeakerEmbeddings(
        name,
        frame,
        findings=findings,
        not_applicable=tuple(n for kind, n in skipped_by_kind.items() if kind not in judged),
        measures=gauge.measures,
        speakers=chosen.speakers,
        mislabelled=chosen.suspects.frame if chosen.suspects else MISLABELLED.to_frame(),
        unread=unread,
        options=options,
        last=chosen,
    )
