"""Spectra of weight matrices, against WeightWatcher itself, NumPy's decomposition, and planted truth."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from analysis.weights import matrices, singular
from analysis.weights.matrices import unfold
from analysis.weights.singular import eigenvalues, largest_singular_values
from analysis.weights.spectra import SCHEMA, band_of, spectra
from parsers.checkpoints.tensors import Tensor
from tests.analysis.weights.checkpoint_files import heavy_tailed, opened


def made(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Our rows and WeightWatcher's for one model: layers of several shapes and spectra, and kernels."""
    tensors = {
        "square.weight": heavy_tailed(96, 96, 1) + 0.02 * torch.randn(96, 96, generator=made()),
        "tall.weight": heavy_tailed(200, 64, 2, exponent=0.9),
        "wide.weight": heavy_tailed(48, 160, 3, exponent=0.25),
        "random.weight": torch.randn(128, 96, generator=made(4)) / 10,
        "lognormal.weight": torch.randn(80, 80, generator=made(5)).exp() / 8,
        "low_rank.weight": heavy_tailed(120, 90, 6, rank=40),
        "few.weight": torch.randn(64, 12, generator=made(7)),
        "conv.weight": torch.randn(32, 16, 3, 3, generator=made(8)) * 0.1,
        "even_conv.weight": torch.randn(16, 24, 2, 2, generator=made(9)) * 0.1,
        "faint.weight": torch.randn(64, 64, generator=made(10)) * 5e-4,
        "half.weight": heavy_tailed(100, 100, 11).to(torch.bfloat16),
    }
    with opened(tmp_path_factory.mktemp("watched"), tensors) as checkpoint:
        ours = spectra(checkpoint).sort("parameter")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "warnoptions", ["x"])  # else importing it switches warnings off for the whole process
        patch.setattr(logging, "raiseExceptions", False)
        import weightwatcher

        theirs = weightwatcher.WeightWatcher(model=dict(tensors), log_level=logging.CRITICAL).analyze()
    names = [f"{name}.weight" for name in theirs["name"]]
    return ours, pl.DataFrame({"parameter": names, **theirs.drop(columns="name").to_dict("list")}).sort("parameter")


def test_every_layer_that_weightwatcher_judges_is_judged(watched):
    ours, theirs = watched
    assert ours["parameter"].to_list() == theirs["parameter"].to_list() and ours.height == 11


def test_exponents_and_where_the_tail_begins_are_those_of_weightwatcher(watched):
    ours, theirs = watched
    kernel = ours["matrices"].to_numpy() > 1
    np.testing.assert_allclose(ours["alpha"], theirs["alpha"], atol=1e-3)
    np.testing.assert_allclose(ours["x_min"] * np.where(kernel, 0.5, 1), theirs["xmin"], rtol=1e-4)
    np.testing.assert_allclose(ours["ks_distance"], theirs["D"], atol=1e-4)
    np.testing.assert_allclose(ours["alpha_error"], theirs["sigma"], atol=1e-3)
    assert ours["tail"].to_list() == theirs["num_pl_spikes"].to_list()


def test_norms_ranks_and_bands_are_those_of_weightwatcher(watched):
    ours, theirs = watched
    scale = np.where(ours["matrices"].to_numpy() > 1, 0.5, 1)
    np.testing.assert_allclose(ours["alpha_weighted"], theirs["alpha_weighted"], atol=2e-3)
    np.testing.assert_allclose(ours["spectral_norm"].to_numpy() ** 2 * scale, theirs["spectral_norm"], rtol=1e-5)
    np.testing.assert_allclose(ours["frobenius_norm"].to_numpy() ** 2 * scale, theirs["norm"], rtol=1e-5)
    np.testing.assert_allclose(ours["stable_rank"], theirs["stable_rank"], rtol=1e-5)
    # what it leaves unnamed lies between its two thresholds
    assert [band or "good" for band in theirs["warning"]] == ours["band"].to_list()


def test_singular_values_are_those_of_a_decomposition(tmp_path):
    tensors = {
        "tall": torch.randn(300, 40, generator=made()),
        "wide": torch.randn(30, 500, generator=made(1), dtype=torch.float64),
        "conv": torch.randn(8, 12, 3, generator=made(2)),
    }
    with opened(tmp_path, tensors) as checkpoint:
        rows = {row["name"]: row for row in spectra(checkpoint, top=5).iter_rows(named=True)}
    assert set(rows) == set(tensors)
    for name, value in tensors.items():
        parts = [value.numpy()] if value.ndim == 2 else [value.numpy()[:, :, tap] for tap in range(3)]
        full = np.sort(np.concatenate([np.linalg.svd(p.astype(np.float64), compute_uv=False) for p in parts]))[::-1]
        share = full / full.sum()
        np.testing.assert_allclose(rows[name]["singular_values"], full[:5], rtol=1e-9)
        assert rows[name]["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)
        assert rows[name]["rank"] == len(full) and rows[name]["exact"]


@pytest.mark.parametrize("shape", [(70, 50), (50, 70), (60, 60)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_routines_for_large_matrices_give_the_same_values(tmp_path, monkeypatch, shape, dtype):
    stored = torch.randn(*shape, generator=made()).to(dtype)
    with opened(tmp_path, {"w": stored, "nan": torch.full(shape, math.nan).to(dtype)}) as checkpoint:
        small = spectra(checkpoint, top=60)
        monkeypatch.setattr(singular, "_SMALL", 8)
        monkeypatch.setattr(matrices, "_BLOCK", 700)  # several blocks
        large = spectra(checkpoint, top=60)
    values = [frame.filter(pl.col("name") == "w")["singular_values"][0].to_numpy() for frame in (small, large)]
    within = 1e-8 * values[0][0]  # what the Gram matrix promises
    np.testing.assert_allclose(*values, atol=within)
    np.testing.assert_allclose(values[0], np.linalg.svd(stored.double().numpy(), compute_uv=False), atol=within)
    assert large.filter(pl.col("name") == "nan")["reason"].to_list() == ["NaN or infinite values"]


def test_experts_that_are_stacked_count_as_one_matrix_each(tmp_path):
    experts = torch.randn(4, 20, 30, generator=made())
    with opened(tmp_path, {"mlp.experts.up": experts, "mlp.conv": experts.clone()}) as checkpoint:
        rows = spectra(checkpoint).select("rows", "columns", "matrices").rows()
    assert rows == [(4, 20, 30), (20, 30, 4)]


def test_matrices_of_low_rank_have_that_rank_and_no_tail_of_rounding(tmp_path):
    with opened(tmp_path, {"w": heavy_tailed(100, 80, 0, rank=20).double()}) as checkpoint:
        row = spectra(checkpoint).row(0, named=True)
    assert row["rank"] >= 20 and row["tail"] <= 20
    assert 10 < row["effective_rank"] <= 20.01


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(20, 30), "zeros only"),
        (torch.full((20, 30), math.nan), "NaN or infinite values"),
        (torch.full((20, 30), math.inf), "NaN or infinite values"),
        (torch.cat([torch.ones(19, 30), torch.full((1, 30), math.nan)]), "NaN or infinite values"),
        (torch.ones(1, 30), "1 singular values; 8 are needed"),
        (torch.ones(20, 30), "1 singular values whose square is above 1e-05; 8 are needed"),
        (torch.randn(7, 7, generator=made()), "7 singular values; 8 are needed"),
        (torch.eye(30), "all singular values are equal"),
        (torch.zeros(0, 30), "no elements"),
        (torch.ones(20, 30, dtype=torch.complex64), "complex numbers"),
        (torch.randn(20, 30, generator=made()) * 1e-6, "0 singular values whose square is above 1e-05; 8 are needed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_there_is_no_exponent_the_row_says_why(tmp_path, tensor, reason):
    with opened(tmp_path, {"w": tensor}) as checkpoint:
        frame = spectra(checkpoint)
    row = frame.row(0, named=True)
    assert row["alpha"] is None and row["band"] is None and row["reason"] == reason
    assert frame.schema == pl.Schema(SCHEMA)


def test_a_matrix_of_nan_has_no_norms(tmp_path):
    with opened(tmp_path, {"w": torch.full((20, 30), math.nan)}) as checkpoint:
        row = spectra(checkpoint).row(0, named=True)
    assert row["spectral_norm"] is None and row["frobenius_norm"] is None and row["singular_values"] is None


def test_what_is_no_matrix_has_no_row_and_an_empty_checkpoint_the_same_columns(tmp_path):
    others = {"bias": torch.ones(8), "mask": torch.ones(9, 9, dtype=torch.bool), "ids": torch.ones(9, 9).long()}
    with opened(tmp_path, others) as checkpoint:
        assert spectra(checkpoint).schema == pl.Schema(SCHEMA) and spectra(checkpoint).height == 0


def test_only_the_roles_asked_for_are_judged(tmp_path):
    tensors = {"w": torch.randn(9, 9), "optimizer.state.0.exp_avg": torch.randn(9, 9)}
    with opened(tmp_path, tensors) as checkpoint:
        assert spectra(checkpoint)["parameter"].to_list() == ["w"]
        assert spectra(checkpoint, roles=("optimizer",))["role"].to_list() == ["optimizer"]
        with pytest.raises(ValueError, match="unknown role 'weight'; did you mean 'weights'"):
            spectra(checkpoint, roles=("weight",))  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["least", "top", "exact_up_to"])
def test_limits_must_be_positive(tmp_path, option):
    with opened(tmp_path, {"w": torch.ones(9, 9)}) as checkpoint, pytest.raises(ValueError, match=f"{option} is 0"):
        spectra(checkpoint, **{option: 0})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_small_floats_are_judged_by_the_numbers_they_stand_for(tmp_path, dtype):
    stored = (heavy_tailed(60, 50, 3)).to(dtype)
    with opened(tmp_path, {"small": stored, "wide": stored.double()}) as checkpoint:
        small, wide = spectra(checkpoint).rows(named=True)
    assert small["alpha"] == pytest.approx(wide["alpha"], rel=1e-9)
    assert small["singular_values"] == pytest.approx(wide["singular_values"], rel=1e-9)


def test_large_matrices_get_their_largest_values_with_a_bound_that_holds(tmp_path):
    tensors = {
        "gap": heavy_tailed(150, 120, 1, exponent=0.8),
        "no_gap": torch.randn(150, 120, generator=made(2)),
        "wide": heavy_tailed(120, 170, 4).to(torch.bfloat16),
    }
    with opened(tmp_path, tensors) as checkpoint:
        exact = spectra(checkpoint, top=6).rows(named=True)
        probed = spectra(checkpoint, top=6, exact_up_to=60).rows(named=True)
    for true, found in zip(exact, probed, strict=True):
        assert not found["exact"] and "only the largest" in found["reason"] and found["alpha"] is None
        gaps = np.abs(np.array(found["singular_values"]) - true["singular_values"])
        assert gaps.max() <= found["error"] + 1e-9 * true["spectral_norm"]
        assert found["error"] <= 0.02 * true["spectral_norm"]
        assert found["frobenius_norm"] == pytest.approx(true["frobenius_norm"], rel=1e-9)
        assert found["stable_rank"] == pytest.approx(true["stable_rank"], rel=1e-3)


def of_spectrum(rows: int, columns: int, values: np.ndarray, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    left, right = (np.linalg.qr(drawn.standard_normal((side, len(values))))[0] for side in (rows, columns))
    return ((left * values) @ right.T).astype(np.float32)


@pytest.mark.parametrize(
    "kind",
    {
        "all equal": lambda i: np.ones(len(i)),
        "steep": lambda i: np.exp(-i),
        "power": lambda i: (i + 1.0) ** -1.5,
        "three of them": lambda i: np.where(i < 3, 3.0 - i, 0.0),
        "a crowd at the top": lambda i: np.where(i < 20, 1 - 1e-6 * i, 0.5 * np.exp(-i / 50)),
        "tiny and flat": lambda i: 1e-30 * (i + 1.0) ** -0.1,
        "huge": lambda i: 1e25 * (i + 1.0) ** -0.5,
    }.items(),
    ids=lambda kind: kind[0],
)
def test_near_each_value_found_by_probes_lies_a_true_one_as_near_as_is_stated(kind):
    """30 shapes a kind, from a single row on: of matrices so small the basis ends complete; all values are found."""
    shapes = np.random.default_rng(7)
    for seed in range(30):
        rows, columns = shapes.integers(1, 260, 2).tolist()
        W = of_spectrum(rows, columns, kind[1](np.arange(min(rows, columns))), seed)
        true = np.linalg.svd(W.astype(np.float64), compute_uv=False)
        found = largest_singular_values(W, Tensor("w", "float32", W.shape, None), 10)
        rounding = 1e-7 * true[0]  # of the matrix itself
        assert (np.abs(found.values[:, None] - true).min(1) <= found.error + rounding).all()
        np.testing.assert_allclose(found.values, true[:10], atol=1e-3 * true[0])
        assert found.error <= 1e-3 * true[0] + rounding
        squares = eigenvalues(W, Tensor("w", "float32", W.shape, None))
        within = (sum(W.shape) + 8) * 4.5e-16 * true[0] ** 2  # what the sums and the routine round
        np.testing.assert_allclose(squares, true**2, rtol=0, atol=within)


@pytest.mark.parametrize("rank", [0, 1, 25])
def test_random_probes_find_the_values_of_matrices_of_low_rank(rank):
    W = heavy_tailed(200, 180, 0, rank=rank).double().numpy() if rank else np.zeros((200, 180))
    found = largest_singular_values(W, Tensor("w", "float64", W.shape, None), 12)
    np.testing.assert_allclose(found.values, np.linalg.svd(W, compute_uv=False)[:12], atol=max(found.error, 1e-9))
    assert found.error <= 1e-3 * max(found.values[0], 1e-9)


def test_random_probes_are_the_same_every_time():
    W = np.random.default_rng(0).standard_normal((90, 80))
    tensor = Tensor("w", "float64", W.shape, None)
    one, other = (largest_singular_values(W, tensor, 5) for _ in range(2))
    assert one.values.tolist() == other.values.tolist()


def test_random_probes_of_nan_are_nan():
    found = largest_singular_values(np.full((9, 9), np.nan), Tensor("w", "float64", (9, 9), None), 3)
    assert np.isnan(found.values).all() and math.isnan(found.error)


def test_progress_is_told_for_each_matrix(tmp_path):
    told: list[tuple[int, int, str]] = []
    with opened(tmp_path, {"a": torch.ones(9, 9), "b": torch.ones(9, 9), "c": torch.ones(9)}) as checkpoint:
        spectra(checkpoint, progress=lambda *args: told.append(args))
    assert sorted(told) == [(1, 2, "a"), (2, 2, "b")]


def test_without_threadpoolctl_the_numbers_are_the_same(tmp_path, monkeypatch):
    with opened(tmp_path, {"a": heavy_tailed(40, 30, 0), "b": heavy_tailed(30, 50, 1)}) as checkpoint:
        limited = spectra(checkpoint)
        monkeypatch.setitem(sys.modules, "threadpoolctl", None)
        assert spectra(checkpoint).equals(limited)


def test_the_limit_of_cores_ends_with_the_call(tmp_path):
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(2), opened(tmp_path, {"a": torch.ones(9, 9), "b": torch.ones(9, 9)}) as checkpoint:
        before = [pool["num_threads"] for pool in threadpool_info()]
        spectra(checkpoint)
        assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_a_bias_or_a_flag_unfolds_to_nothing():
    assert unfold(Tensor("bias", "float32", (9,), None)) is None
    assert unfold(Tensor("mask", "bool", (9, 9), None)) is None


def test_bands_take_their_limits_as_weightwatcher_does():
    assert [band_of(alpha) for alpha in (1.99, 2.0, 6.0, 6.01)] == ["over-trained", "good", "good", "under-trained"]


def test_a_file_that_shrank_since_is_an_error_that_names_it(tmp_path: Path):
    from eventstream.errors import InputError

    with opened(tmp_path, {"w": torch.ones(64, 64)}) as checkpoint:
        (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
        with pytest.raises(InputError, match="tensor 'w' of"):
            spectra(checkpoint)
