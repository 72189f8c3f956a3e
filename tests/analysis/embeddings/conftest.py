"""Synthetic speakers with a known truth: a centre each, noise around it, and planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def voices() -> Callable[..., tuple[NDArray[Any], NDArray[Any], set[int]]]:
    """The maker of synthetic speakers, `make_voices`."""
    return make_voices


def make_voices(
    seed: int, *, speakers: int = 30, each: int = 20, dim: int = 64, noise: float = 1.0, swapped: float = 0.0
) -> tuple[NDArray[Any], NDArray[Any], set[int]]:
    """Vectors, labels, and the rows whose label was swapped for a wrong one; noise 1 gives a same-cosine of 0.5."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(speakers, dim))
    truth = np.repeat(np.arange(speakers), each)
    vectors = centres[truth] + noise * rng.normal(size=(len(truth), dim))
    labels = truth.copy()
    wrong = rng.choice(len(truth), round(swapped * len(truth)), replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, speakers, len(wrong))) % speakers
    return vectors, labels, set(wrong.tolist())
