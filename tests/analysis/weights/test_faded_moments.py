"""Moments without a gradient fade by beta1 at every step: how many rows have, for how long, whatever else is odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.weights.faded_moments import Faded, faded_rows
from analysis.weights.saved import Saved
from analysis.weights.statistics import STATISTICS
from tests.analysis.weights.raw_files import checkpoint_of

Moment = NDArray[np.float32]


def judged(folder: Path, m: Moment, v: Moment, beta: float | None = None) -> Faded | None:
    """What is found of two moments in a save whose optimizer states its first decay, or does not."""
    checkpoint = checkpoint_of(folder, {"m": ("float32", m), "v": ("float32", v)}, role="optimizer")
    if beta is not None:
        checkpoint = checkpoint.but(values={"optimizer.param_groups.0.betas.0": beta})
    with checkpoint:
        return faded_rows(Saved("x", checkpoint, STATISTICS.to_frame()), *checkpoint.tensors)


def adam(idle: int, betas: tuple[float, float], seed: int, shape: tuple[int, ...] = (16, 6)) -> tuple[Moment, Moment]:
    """The moments that torch's Adam keeps where the first half of the rows has had no gradient for so many steps."""
    made = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.zeros(shape))
    optimizer = torch.optim.Adam([weight], betas=betas)
    for step in range(20 + idle):
        weight.grad = torch.randn(shape, generator=made)
        if step >= 20:
            weight.grad[: shape[0] // 2] = 0
        optimizer.step()
    state = optimizer.state[weight]
    return state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()


@settings(max_examples=12, deadline=None)
@given(idle=st.integers(100, 600), beta=st.sampled_from([0.8, 0.9]), seed=st.integers(0, 2**16))
def test_rows_are_counted_from_200_steps_without_a_gradient_on(
    idle: int, beta: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = judged(tmp_path_factory.mktemp("m"), *adam(idle, (beta, 0.999), seed), beta=beta)
    if idle < 190:
        assert found is None
    elif idle > 230:
        assert found is not None and found.rows.tolist() == [True] * 8 + [False] * 8
        assert 200 <= found.steps <= idle + 1


def test_kernels_of_convolutions_have_rows_too_and_a_beta_that_is_not_stated_is_the_usual_one(tmp_path: Path) -> None:
    found = judged(tmp_path, *adam(300, (0.9, 0.999), 0, shape=(16, 4, 3, 3)))
    assert found is not None and found.rows.sum() == 8 and found.steps >= 250


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_moments_that_are_not_finite_are_no_faded_rows(value: float, tmp_path: Path) -> None:
    m, v = adam(300, (0.9, 0.999), 0)
    m[0, 0] = v[1, 1] = value
    found = judged(tmp_path, m, v)
    assert found is not None and not found.rows[0] and found.rows[2:8].all()


@pytest.mark.parametrize(
    ("m", "v"),
    [
        (np.zeros((8, 4)), np.zeros((8, 4))),  # all rows: nothing of single units
        (np.ones((8, 4)), np.ones((8,))),  # moments of other shapes, as factored ones have
        (np.ones((8,)), np.ones((8,))),
        (np.zeros((0, 4)), np.zeros((0, 4))),
        (np.full((8, 4), 1e-20), np.ones((8, 4))),  # the whole model idles
    ],
)
def test_what_says_nothing_of_single_units_is_not_judged(m: Moment, v: Moment, tmp_path: Path) -> None:
    assert judged(tmp_path, m.astype(np.float32), v.astype(np.float32)) is None


def test_wide_rows_are_read_to_their_end(tmp_path: Path) -> None:
    m, v = adam(300, (0.9, 0.999), 0, shape=(16, 300))
    m[3, 299] = 0.1
    found = judged(tmp_path, m, v)
    assert found is not None and found.rows.tolist() == [n < 8 and n != 3 for n in range(16)]
