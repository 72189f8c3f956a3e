"""Embeddings against scikit-learn and the plain n x n way: means, silhouette, EER; then whole sets up to 200,000."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.closeness import closeness
from analysis.embeddings.similarity import mean_similarities
from analysis.embeddings.vectors import Vectors, prepare
from analysis.embeddings.verification import verification
from analysis.speaker_embeddings import speaker_embeddings
from benchmarks.measure import Row, peak_rss_mb, time_call

DIM = 192


def voices(n: int, speakers: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Utterances around the centre of their speaker, with an EER of about 8 %."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(speakers, DIM)).astype(np.float32)
    labels = rng.integers(0, speakers, n)
    return centres[labels] + 2 * rng.normal(size=(n, DIM)).astype(np.float32), labels


def naive_means(X: NDArray[np.float32], codes: NDArray[np.int64]) -> tuple[float, float]:
    """The usual way: the whole matrix, and a mask of the same size."""
    scores = X @ X.T
    same = codes[:, None] == codes[None, :]
    upper = np.triu(np.ones_like(same), 1)
    return float(scores[same & upper].mean()), float(scores[~same & upper].mean())


def sklearn_eer(X: NDArray[np.float32], codes: NDArray[np.int64]) -> float:
    """The usual way: a sorted list of all pairs."""
    from sklearn.metrics import roc_curve

    i, j = np.triu_indices(len(X), 1)
    far, hit, _ = roc_curve(codes[i] == codes[j], (X @ X.T)[i, j])
    at = int(np.flatnonzero(far - (1 - hit) >= 0)[0])
    return float((far[at] + 1 - hit[at]) / 2)


def rows(quick: bool) -> list[Row]:
    from sklearn.metrics import silhouette_score

    n, speakers = (2000, 60) if quick else (10_000, 300)
    X, labels = voices(n, speakers)
    v = prepare(X, labels)
    codes, size = v.codes, f"{n:,} x {DIM}, {speakers} speakers"
    verification(v)  # compiled before the clock runs
    plain = v.unit.astype(np.float64)
    ours, theirs = _both(lambda: mean_similarities(v), lambda: naive_means(v.unit, codes))
    table = [Row.faster(f"mean similarities, {size}", ours, "numpy, n x n", theirs, 100)]
    ours, theirs = _both(lambda: closeness(v), lambda: silhouette_score(plain, codes, metric="cosine"))
    table.append(Row.faster(f"exact cosine silhouette, {size}", ours, "scikit-learn", theirs, 50))
    ours, theirs = _both(lambda: verification(v), lambda: sklearn_eer(v.unit, codes))
    off = abs(verification(v).eer - sklearn_eer(v.unit, codes))
    note = f"differ by {off:.1e}; ours has the minDCF as well"
    table.append(Row.faster(f"EER over all pairs, {size}", ours, "roc_curve on all pairs", theirs, 15, note=note))
    ours, theirs = (_fresh(what, n, speakers)[1] for what in ("eer", "roc_curve"))
    note = f"fresh process, interpreter and data included; roc_curve: {theirs:.0f} MB"
    table.append(Row.at_most(f"EER over all pairs, {size}: peak memory", ours, "limit", 500, 1, unit="MB", note=note))
    for n, speakers in ((5000, 200),) if quick else ((50_000, 1500), (200_000, 5000)):
        table += _whole(n, speakers)
    return table


def _both(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
    """Theirs takes up to 20 s and gigabytes: once is enough; ours around it."""
    first = time_call(ours)
    other = time_call(theirs, repeats=1)
    return min(first, time_call(ours)), other


def _whole(n: int, speakers: int) -> list[Row]:
    """The whole analysis but the map in a fresh process: seconds and peak memory."""
    seconds, peak = _fresh("whole", n, speakers)
    size = f"{n:,} x {DIM}, {speakers:,} speakers"
    return [
        Row.at_most(f"everything but the map, {size}", seconds, "limit", 240.0, 1.0, note="compilation included"),
        Row.at_most(f"everything but the map, {size}: peak memory", peak, "limit", 2000.0, 1.0, unit="MB"),
    ]


def _fresh(what: str, n: int, speakers: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.embeddings", what, str(n), str(speakers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def _alone(what: str, n: int, speakers: int) -> tuple[float, float]:
    X, labels = voices(n, speakers)
    start = time.perf_counter()
    if what == "whole":
        speaker_embeddings(X, labels)
    else:
        v: Vectors = prepare(X, labels)
        verification(v) if what == "eer" else sklearn_eer(v.unit, v.codes)
    return time.perf_counter() - start, peak_rss_mb()


if __name__ == "__main__":
    print(*_alone(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
