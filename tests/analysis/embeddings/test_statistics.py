"""Every statistic of embeddings equals the slow obvious version, or the reference library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import davies_bouldin_score, roc_curve, silhouette_samples, silhouette_score

from analysis.embeddings import pairs
from analysis.embeddings.bootstrap import eer_interval, separation_interval
from analysis.embeddings.closeness import closeness, davies_bouldin
from analysis.embeddings.clustering import cluster, purity
from analysis.embeddings.collapse import effective_rank
from analysis.embeddings.similarity import mean_similarities, mean_similarity, similarity, speaker_sums
from analysis.embeddings.vectors import Vectors, prepare
from analysis.embeddings.verification import verification

Make = Callable[..., tuple[NDArray[Any], NDArray[Any], set[int]]]


def pair_scores(v: Vectors) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """All cosines of labelled pairs, and whether they are of one speaker, from the whole matrix."""
    i, j = np.triu_indices(v.labelled, 1)
    return (v.unit[: v.labelled] @ v.unit[: v.labelled].T)[i, j].astype(float), v.codes[i] == v.codes[j]


def slow_eer(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Every distinct score tried as the threshold, and the straight line where the two errors cross."""
    points = [(np.mean(scores[~same] >= t), np.mean(scores[same] < t)) for t in [*np.unique(scores), np.inf]]
    for (far, frr), (next_far, next_frr) in itertools.pairwise(points):
        if far >= frr and next_far <= next_frr:
            gap, next_gap = far - frr, next_far - next_frr
            best = far if gap == next_gap else far + (next_far - far) * gap / (gap - next_gap)
    return float(best)


def roc(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[float, float]:
    """EER and normalised minimum cost at p = 0.01 from scikit-learn's curve."""
    far, hit, _ = roc_curve(same, scores, drop_intermediate=False)
    gap = far - (1 - hit)
    at = int(np.flatnonzero(gap <= 0)[-1])
    share = gap[at] / (gap[at] - gap[at + 1])
    return float(far[at] + share * (far[at + 1] - far[at])), float((0.01 * (1 - hit) + 0.99 * far).min() / 0.01)


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_means_and_spreads_equal_those_of_the_list_of_all_pairs(voices: Make, noise: float):
    X, labels, _ = voices(1, noise=noise)
    v = prepare(X, labels)
    scores, same = pair_scores(v)
    told = similarity(v)
    expected = (scores[same].mean(), scores[same].std(), scores[~same].mean(), scores[~same].std())
    assert (told.same_mean, told.same_std, told.different_mean, told.different_std) == pytest.approx(expected, abs=1e-6)
    assert mean_similarities(v) == pytest.approx((told.same_mean, told.different_mean), abs=1e-12)
    assert mean_similarity(v) == pytest.approx(scores.mean(), abs=1e-6)
    spread = math.sqrt((scores[same].var() + scores[~same].var()) / 2)
    assert told.d_prime == pytest.approx((scores[same].mean() - scores[~same].mean()) / spread, rel=1e-5)


@pytest.mark.parametrize("each", [1, 2, 7])
def test_silhouette_and_davies_bouldin_equal_scikit_learn_with_singletons_too(voices: Make, each: int):
    X, labels, _ = voices(2, each=each, speakers=40)
    X = np.concatenate([X, X[:10] + 0.1])
    labels = np.concatenate([labels, labels[:10]])
    v = prepare(X, labels)
    unit = v.unit.astype(float)
    near = closeness(v)
    assert near.silhouette == pytest.approx(silhouette_samples(unit, v.codes, metric="cosine"), abs=2e-6)
    assert near.silhouette.mean() == pytest.approx(silhouette_score(unit, v.codes, metric="cosine"), abs=1e-6)
    assert davies_bouldin(v) == pytest.approx(davies_bouldin_score(unit, v.codes), rel=1e-6)


def test_own_and_nearest_other_speaker_equal_the_slow_version(voices: Make):
    X, labels, _ = voices(3, speakers=6, each=5)
    v = prepare(X, labels)
    near, unit = closeness(v), v.unit.astype(float)
    for i in range(v.labelled):
        own = [j for j in range(v.labelled) if v.codes[j] == v.codes[i] and j != i]
        others = {s: np.mean(unit[v.codes == s] @ unit[i]) for s in range(6) if s != v.codes[i]}
        assert near.own[i] == pytest.approx(np.mean(unit[own] @ unit[i]))
        assert near.other[i] == pytest.approx(max(others.values()))
        assert others[int(near.nearest[i])] == max(others.values())
        centre = unit[own].sum(axis=0)
        assert near.own_centroid[i] == pytest.approx(unit[i] @ centre / np.linalg.norm(centre))


@pytest.mark.parametrize("noise", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("compiled", [False, True])
def test_eer_and_detection_cost_equal_scikit_learn_over_all_pairs(
    voices: Make, monkeypatch: pytest.MonkeyPatch, noise: float, compiled: bool
):
    if compiled:
        monkeypatch.setattr(pairs, "_SMALL", 0)
    X, labels, _ = voices(4, noise=noise)
    v = prepare(X, labels)
    scores, same = pair_scores(v)
    told = verification(v)
    assert (told.eer, told.min_dcf) == pytest.approx(roc(scores, same), abs=1e-6)
    assert abs(np.mean(scores[~same] >= told.threshold) - np.mean(scores[same] < told.threshold)) < 2e-3
    at = told.min_dcf_threshold - 1e-9
    cost = (0.01 * np.mean(scores[same] < at) + 0.99 * np.mean(scores[~same] >= at)) / 0.01
    assert cost == pytest.approx(told.min_dcf, abs=1e-3)


def test_blocks_and_guessed_cells_change_nothing(voices: Make, monkeypatch: pytest.MonkeyPatch):
    from analysis.embeddings import verification as module

    X, labels, _ = voices(5, noise=2.0, speakers=50, each=30)
    v = prepare(X, labels)
    expected = verification(v)
    monkeypatch.setattr(pairs, "_SMALL", 0)
    monkeypatch.setattr(pairs, "_ROWS", 177)
    monkeypatch.setattr(pairs, "_COLUMNS", 401)
    for first in (10**9, 100):  # without a guess, then with one
        monkeypatch.setattr(module, "_GUESS_FROM", first)
        told = verification(v)
        assert (told.eer, told.min_dcf) == pytest.approx((expected.eer, expected.min_dcf), abs=3e-6)
        assert told.counts is not None
        assert int(told.counts.same.sum()) == v.same_pairs and int(told.counts.different.sum()) == v.different_pairs


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_eer_with_many_ties_equals_the_slow_version(seed: int, speakers: int, spread: int):
    rng = np.random.default_rng(seed)
    angles = rng.integers(0, spread + 1, speakers * 4) * (math.pi / 4)
    v = prepare(np.column_stack([np.cos(angles), np.sin(angles)]), rng.integers(0, speakers, speakers * 4))
    if not v.same_pairs or not v.different_pairs:
        assert math.isnan(verification(v).eer)
        return
    scores, same = pair_scores(v)
    assert verification(v).eer == pytest.approx(slow_eer(np.round(scores, 5), same), abs=1e-9)


def test_a_collapsed_set_is_counted_to_the_last_digit_in_blocks(voices: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pairs, "_SMALL", 0)
    X, labels, _ = voices(6, noise=2.0)
    v = prepare(X * 0.003 + 1, labels)
    scores, same = pair_scores(v)
    assert scores.min() > 0.999
    assert verification(v).eer == pytest.approx(roc(scores, same)[0], abs=3e-3)


def test_the_interval_of_the_eer_equals_resampling_every_pair(voices: Make):
    X, labels, _ = voices(7, speakers=14, noise=2.5)
    v = prepare(X, labels)
    scores, same = pair_scores(v)
    i, j = np.triu_indices(v.labelled, 1)
    order = np.argsort(scores)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        w = rng.multinomial(14, np.full(14, 1 / 14)).astype(float)
        weight = np.where(same, w[v.codes[i]], w[v.codes[i]] * w[v.codes[j]])
        reject, accept = (np.cumsum((weight * kind)[order]) / (weight * kind).sum() for kind in (same, ~same))
        at = int(np.abs(1 - accept - reject).argmin())
        found.append((1 - accept[at] + reject[at]) / 2)
    counts = verification(v).counts
    assert counts is not None
    told = eer_interval(v, counts, replicates=400, seed=0)
    low, high = np.percentile(found, [2.5, 97.5])
    assert (told.low, told.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_compiled_and_plain_tallies_give_the_same_interval(voices: Make, monkeypatch: pytest.MonkeyPatch):
    from analysis.embeddings import bootstrap

    X, labels, _ = voices(8, noise=2.0)
    v = prepare(X, labels)
    counts = verification(v).counts
    assert counts is not None
    plain = eer_interval(v, counts, replicates=50, seed=3)
    monkeypatch.setattr(bootstrap, "_SMALL", 0)
    compiled = eer_interval(v, counts, replicates=50, seed=3)
    assert (plain.low, plain.high) == pytest.approx((compiled.low, compiled.high), abs=1e-6)


def test_intervals_hold_the_truth_about_as_often_as_they_say(voices: Make):
    """The truth is the mean over many worlds; 95 % intervals from 40 speakers must hold it in at least 80 %."""
    worlds = [prepare(*voices(100 + s, speakers=40, each=4, noise=2.0)[:2]) for s in range(40)]
    told = [verification(v) for v in worlds]
    truth = np.mean([t.eer for t in told])
    apart = np.mean([similarity(v).separation for v in worlds])
    held = held_apart = 0
    for v, t in zip(worlds, told, strict=True):
        assert t.counts is not None
        interval = eer_interval(v, t.counts, replicates=100, seed=0)
        held += interval.low <= truth <= interval.high
        interval = separation_interval(v, speaker_sums(v), replicates=100, seed=0)
        held_apart += interval.low <= apart <= interval.high
    assert held >= 32 and held_apart >= 32


def test_effective_rank_equals_the_entropy_of_the_singular_values(voices: Make):
    X, labels, _ = voices(9)
    v = prepare(X, labels)
    s = np.linalg.svd(v.unit - v.unit.mean(axis=0, dtype=float), compute_uv=False)
    p = s / s.sum()
    assert effective_rank(v) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-5)
    assert effective_rank(prepare(np.ones((20, 8)))) == 0.0 == effective_rank(prepare(np.ones((1, 8))))


def test_clusters_of_clear_speakers_agree_with_their_labels(voices: Make):
    X, labels, _ = voices(10, speakers=8, noise=0.3)
    told = cluster(prepare(X, labels), ("kmeans", "agglomerative", "hdbscan"), sample=5000, seed=0)
    assert told["method"].to_list() == ["kmeans", "agglomerative", "hdbscan"]
    assert (told["ari"] > 0.95).all() and (told["purity"] > 0.95).all() and (told["nmi"] > 0.95).all()


def test_clusters_of_a_large_set_are_made_of_whole_speakers(voices: Make):
    X, labels, _ = voices(11, speakers=30, each=20, noise=0.3)
    told = cluster(prepare(X, labels), ("agglomerative",), sample=100, seed=0)
    assert told.select("n", "speakers").row(0) == (100, 5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=60))
def test_purity_equals_counting_by_hand(rows: list[tuple[int, int]]):
    truth, found = (np.array(column) for column in zip(*rows, strict=True))
    best = sum(max(int(np.sum(truth[found == c] == t)) for t in range(5)) for c in set(found.tolist()))
    assert purity(truth, found) == best / len(rows)
