"""The path of a run through weight space, against scikit-learn and planted geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from analysis.weights import common
from analysis.weights.weight_path import SCHEMA, PathResult, weight_path
from parsers.checkpoints.checkpoint import Checkpoint
from tests.analysis.weights.checkpoint_files import opened


def saves(folder: Path, states: Sequence[dict[str, torch.Tensor]]) -> list[Checkpoint]:
    return [opened(folder, state, name=f"step{i * 100}", step=i * 100) for i, state in enumerate(states)]


def walk(count: int, seed: int = 0, *, bend: float = 0.0) -> list[dict[str, torch.Tensor]]:
    """Saves of a small model that goes on in one direction, with noise, and turns by `bend`."""
    made = torch.Generator().manual_seed(seed)
    first, along, aside = (torch.randn(30, 20, generator=made) for _ in range(3))
    return [
        {
            "layer.weight": first + 0.1 * i * along + bend * i**2 * aside + 0.05 * torch.randn(30, 20, generator=made),
            "layer.bias": torch.full((20,), 0.01 * i),
        }
        for i in range(count)
    ]


def flat(states: Sequence[dict[str, torch.Tensor]]) -> np.ndarray:
    return np.stack([np.concatenate([s[k].double().numpy().ravel() for k in sorted(s)]) for s in states])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(3, 12), bend=st.sampled_from([0.0, 0.02]))
def test_coordinates_are_those_of_a_principal_component_analysis(seed, count, bend, tmp_path_factory):
    states = walk(count, seed, bend=bend)
    frame = weight_path(saves(tmp_path_factory.mktemp("walk"), states)).frame
    theirs = PCA(2, svd_solver="full").fit(flat(states))
    points = theirs.transform(flat(states))
    points *= np.where(points[-1] < 0, -1, 1)
    np.testing.assert_allclose(frame.select("pc1", "pc2").to_numpy(), points, atol=1e-6 * np.abs(points).max())
    assert frame["pc1_share"][0] == pytest.approx(theirs.explained_variance_ratio_[0], rel=1e-9)
    assert frame["pc2_share"][0] == pytest.approx(theirs.explained_variance_ratio_[1], rel=1e-6)


def test_distances_lengths_and_angles_are_those_of_the_weights(tmp_path):
    states = walk(6, 3, bend=0.02)
    X = flat(states)
    frame = weight_path(saves(tmp_path, states)).frame
    steps = np.linalg.norm(np.diff(X, axis=0), axis=1)
    np.testing.assert_allclose(frame["norm"], np.linalg.norm(X, axis=1), rtol=1e-12)
    np.testing.assert_allclose(frame["from_first"], np.linalg.norm(X - X[0], axis=1), rtol=1e-9)
    np.testing.assert_allclose(frame["update"].to_list()[1:], steps, rtol=1e-9)
    np.testing.assert_allclose(frame["length"], [0, *np.cumsum(steps)], rtol=1e-9)
    d = np.diff(X, axis=0)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(d[1:], d[:-1], strict=True)]
    assert frame["cosine"].to_list()[:2] == [None, None] and frame["update"][0] is None
    np.testing.assert_allclose(frame["cosine"].to_list()[2:], cosines, rtol=1e-7)


def test_small_updates_of_large_weights_keep_their_direction(tmp_path):
    first = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double() * 1e3
    along = torch.randn(40, 40, generator=torch.Generator().manual_seed(1)).double() * 1e-4
    frame = weight_path(saves(tmp_path, [{"w": first + i * along} for i in range(4)])).frame
    assert frame["cosine"].to_list()[2:] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert frame["pc1_share"][0] == pytest.approx(1, abs=1e-6)


def test_updates_of_a_run_that_comes_to_rest_far_from_its_start_are_exact(tmp_path):
    """Each update is a fifth of the one before, in a direction of its own: the last are 1e-9 of the whole way."""
    made, states = np.random.default_rng(0), [np.zeros(500)]
    for i in range(14):
        states.append(states[-1] + made.standard_normal(500) * 0.2**i)
    frame = weight_path(saves(tmp_path, [{"w": torch.from_numpy(one).reshape(20, 25)} for one in states])).frame
    moved = np.diff(np.stack(states), axis=0)
    lengths = np.linalg.norm(moved, axis=1)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(moved[1:], moved[:-1], strict=True)]
    assert lengths[-1] < 1e-8 * frame["from_first"][-1]
    np.testing.assert_allclose(frame["update"].to_list()[1:], lengths, rtol=1e-12)
    np.testing.assert_allclose(frame["cosine"].to_list()[2:], cosines, atol=1e-9)


def test_a_run_that_goes_back_and_forth_has_cosines_below_zero(tmp_path):
    w = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    frame = weight_path(saves(tmp_path, [{"w": w * (1 + 0.1 * (i % 2))} for i in range(5)])).frame
    assert max(frame["cosine"].to_list()[2:]) < -0.99


def test_blocks_change_nothing(tmp_path, monkeypatch):
    checkpoints = saves(tmp_path, walk(4))
    whole = weight_path(checkpoints).frame
    monkeypatch.setattr(common, "_BLOCK", 64)
    np.testing.assert_allclose(weight_path(checkpoints).frame["from_first"], whole["from_first"], rtol=1e-12)


def test_only_what_all_saves_have_with_one_shape_is_compared_and_the_rest_is_named(tmp_path):
    w = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    one = {"w": w, "late.w": w.clone(), "grows": w[:2].clone(), "ids": torch.ones(3).long()}
    two = {"w": w + 1, "grows": w + 1, "ids": torch.ones(3).long()}
    for state in (one, two):
        state |= {"bn.running_mean": torch.ones(4), "optimizer.state.0.exp_avg": torch.ones(4)}
    result = weight_path(saves(tmp_path, [one, two]))
    assert result.parameters == 1 and result.elements == 16
    assert dict(result.left_out) == {
        "late.w": "in 1 of 2 saves",
        "grows": "its shape changes from (2, 4) to (4, 4)",
        "ids": "int64: no real numbers",
        "bn.running_mean": "a running statistic, no parameter",
    }
    assert result.frame["from_first"].to_list() == pytest.approx([0, 4])


def test_saves_in_another_type_are_compared_by_their_numbers(tmp_path):
    w = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    result = weight_path(saves(tmp_path, [{"w": w}, {"w": w.float()}, {"w": w.double() * 2}]))
    assert result.frame["from_first"].to_list() == pytest.approx([0, 0, float(w.double().norm())])


@pytest.mark.parametrize("broken", [0, 2])
def test_a_save_of_nan_has_no_place_and_leaves_the_others_theirs(tmp_path, broken):
    states = walk(5)
    sound = weight_path(saves(tmp_path, [s for i, s in enumerate(states) if i != broken])).frame
    states[broken] = {key: torch.full_like(value, math.nan) for key, value in states[broken].items()}
    frame = weight_path(saves(tmp_path, states)).frame
    row = frame.row(broken, named=True)
    assert all(row[name] is None for name in SCHEMA if name not in ("save", "step"))
    kept = frame.filter(pl.int_range(pl.len()) != broken)
    np.testing.assert_allclose(kept["pc1"], sound["pc1"], rtol=1e-9)
    np.testing.assert_allclose(kept["length"], sound["length"], rtol=1e-9)


@pytest.mark.parametrize(
    "states",
    [[], [{"w": torch.ones(4)}], [{"w": torch.ones(4)}] * 3, [{"w": torch.full((4,), math.nan)}] * 2, [{}, {}]],
    ids=["no save", "one save", "equal saves", "all NaN", "no weights"],
)
def test_too_little_gives_the_same_columns_and_draws(tmp_path, states):
    result = weight_path(saves(tmp_path, states))
    assert result.frame.schema == pl.Schema(SCHEMA) and result.frame.height == len(states)
    assert result.frame["pc1_share"].null_count() == len(states)
    assert result.plot().get_title(loc="left") and result.status == "healthy"


def test_names_and_steps_may_be_given_and_must_fit(tmp_path):
    checkpoints = saves(tmp_path, walk(3))
    assert weight_path(checkpoints).frame["save"].to_list() == [f"step{i}.safetensors" for i in (0, 100, 200)]
    assert weight_path(checkpoints).frame["step"].to_list() == [0, 100, 200]
    frame = weight_path(checkpoints, names=["a", "b", "c"], steps=[1, None, 3]).frame
    assert frame["save"].to_list() == ["a", "b", "c"] and frame["step"].to_list() == [1, None, 3]
    with pytest.raises(ValueError, match="steps has 2 entries for 3 checkpoints"):
        weight_path(checkpoints, steps=[1, 2])


def test_the_figure_draws_the_path_and_says_its_length(tmp_path):
    result = weight_path(saves(tmp_path, walk(5)))
    assert isinstance(result, PathResult)
    ax = result.plot()
    np.testing.assert_allclose(ax.lines[0].get_xdata(), result.frame["pc1"])
    assert ax.get_title(loc="left").startswith("5 saves: a path of") and "% of the variance" in ax.get_xlabel()
    assert [text.get_text() for text in ax.texts] == ["step 0", "step 400"]
    assert not result.plot(labels=False).texts
    with pytest.raises(TypeError, match="not colour"):
        result.plot(colour="red")


def test_progress_is_told_for_each_parameter(tmp_path):
    told: list[tuple[int, int, str]] = []
    weight_path(saves(tmp_path, walk(2)), progress=lambda *args: told.append(args))
    assert [entry[:2] for entry in told] == [(1, 2), (2, 2)]
