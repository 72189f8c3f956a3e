"""Samples of rows for what grows too fast to see them all: seeded, and fair to speakers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.embeddings.vectors import Vectors

__all__ = ["some_of_each", "whole_speakers"]


def some_of_each(v: Vectors, size: int, seed: int) -> NDArray[np.int64]:
    """About `size` positions of `unit`, the same share of every speaker (at least one each), ascending.

    Speakers are drawn as well where there are more than `size`; rows without a label count as one speaker.
    """
    n = len(v.unit)
    if n <= size:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    groups = np.split(np.arange(n), v.starts[1:]) if v.speakers else [np.arange(n)]
    groups = [g for g in groups if len(g)]
    if len(groups) > size:
        groups = [groups[i] for i in np.sort(rng.choice(len(groups), size, replace=False))]
    parts = [np.sort(rng.choice(g, max(round(size * len(g) / n), 1), replace=False)) for g in groups]
    return np.concatenate(parts)


def whole_speakers(v: Vectors, size: int, seed: int) -> NDArray[np.int64]:
    """Positions of all labelled rows of speakers drawn at random until about `size` rows are reached, ascending."""
    if v.labelled <= size:
        return np.arange(v.labelled)
    order = np.random.default_rng(seed).permutation(v.speakers)
    upto = int(np.searchsorted(np.cumsum(v.counts[order]), size, side="right"))
    chosen = np.sort(order[: max(upto, 2)])
    return np.concatenate([np.arange(v.starts[s], v.starts[s + 1]) for s in chosen])
