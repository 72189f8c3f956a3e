from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kurtosis

from analysis.weights import statistics as module
from analysis.weights.exponent_window import WINDOWS
from analysis.weights.moments import ZERO_BIN
from analysis.weights.statistics import STATISTICS, histogram_edges, statistics
from analysis.weights.values import smallest_normal
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Piece, Storage, Tensor
from tests.analysis.weights.checkpoint_files import opened
from tests.analysis.weights.raw_files import checkpoint_of

Way = Callable[[Checkpoint], pl.DataFrame]


@pytest.fixture(params=["numpy", "compiled"])
def judged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """`statistics` by each of its two ways, whatever the size of the checkpoint."""
    monkeypatch.setattr(module, "LARGE", 0 if request.param == "compiled" else 1 << 60)
    if request.param == "compiled":
        monkeypatch.setattr(module, "_BATCH", 64)
    yield statistics


def assert_agrees(row: dict[str, Any], values: NDArray[np.float64], dtype: str) -> None:
    """A row against NumPy and SciPy in double precision."""
    x = values[np.isfinite(values)]
    assert row["nan"] == np.isnan(values).sum()
    assert row["inf"] == np.isinf(values).sum()
    assert row["subnormals"] == ((x != 0) & (np.abs(x) < smallest_normal(dtype))).sum()
    assert row["zeros"] == pytest.approx((values == 0).mean(), rel=1e-15)
    if not len(x):
        assert all(row[key] is None for key in ("mean", "std", "norm", "minimum", "maximum", "kurtosis"))
        return
    size = np.abs(x).max() or 1.0
    # sums of a few numbers may be in single precision: see `statistics`
    close = 5e-8 if WINDOWS and module.LARGE == 0 and dtype in ("float32", "bfloat16") else 1e-12
    assert row["mean"] == pytest.approx(x.mean(), rel=1e-9, abs=1e-14 * size + close * x.std())
    assert row["std"] == pytest.approx(x.std(), rel=max(close, 1e-9), abs=1e-14 * size)
    assert row["norm"] == pytest.approx(np.linalg.norm(x), rel=close)
    assert (row["minimum"], row["maximum"]) == (x.min(), x.max())
    if np.ptp(x) == 0:
        assert row["kurtosis"] is None and row["std"] == 0
    else:
        room = max(4 * close, 1e-9)
        assert row["kurtosis"] == pytest.approx(kurtosis(x, axis=None), rel=room, abs=3 * room)
    assert row["histogram"] == histogram(x)


def histogram(x: NDArray[np.float64]) -> list[int]:
    edges = histogram_edges()
    positive = np.histogram(x[x > 0], edges[ZERO_BIN + 1 :])[0]
    negative = np.histogram(-x[x < 0], edges[ZERO_BIN + 1 :])[0]
    return [*negative[::-1].tolist(), int((x == 0).sum()), *positive.tolist()]


def test_every_float_type_agrees_with_numpy_and_scipy(judged: Way, tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(3)
    tensors = {}
    for name in ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        drawn = torch.randn(301, 257, generator=made, dtype=torch.float64) * 0.3
        drawn[:, 5] *= 1e-7  # among them subnormal numbers of the short types
        tensors[name] = drawn.to(getattr(torch, name))
    with opened(tmp_path, tensors) as checkpoint:
        frame = judged(checkpoint)
    for row in frame.iter_rows(named=True):
        assert_agrees(row, tensors[row["name"]].double().numpy(), row["name"])


def test_integers_and_truths_agree_with_numpy_and_scipy(judged: Way, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    arrays = {
        name: (name, rng.integers(-100 if name[0] == "i" else 0, 100, (71, 83)).astype(name))
        for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
    }
    arrays["bool"] = ("bool", rng.integers(0, 2, (300, 30)).astype("u1"))
    with checkpoint_of(tmp_path, arrays) as checkpoint:
        frame = judged(checkpoint)
    for row in frame.iter_rows(named=True):
        assert_agrees(row, arrays[row["name"]][1].astype(np.float64), row["name"])


def test_a_complex_tensor_has_the_norm_of_its_vector(judged: Way, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(90, 70)) + 1j * rng.normal(size=(90, 70))
    values[:, 3] = 0
    values[7] = 0
    parts = np.stack([values.real, values.imag], -1)
    arrays = {"c8": ("complex64", values), "c16": ("complex128", values), "c4": ("complex32", parts)}
    with checkpoint_of(tmp_path, arrays) as checkpoint:
        frame = judged(checkpoint)
    assert frame["elements"].to_list() == [6300] * 3
    assert frame["dead_rows"].to_list() == frame["dead_columns"].to_list() == [1] * 3
    for row, precise in zip(frame.iter_rows(named=True), ("f4", "f8", "f2"), strict=True):
        rounded = parts.astype(precise).astype(np.float64)
        assert_agrees(row, rounded, row["dtype"])


def test_quantised_values_are_judged_by_what_they_stand_for(judged: Way, tmp_path: Path) -> None:
    stored = np.random.default_rng(6).integers(-120, 120, (80, 90)).astype("i1")
    stored[4] = -7
    with checkpoint_of(tmp_path, {"w": ("qint8", stored)}, scale=0.031, zero_point=-7) as checkpoint:
        row = judged(checkpoint).row(0, named=True)
    assert_agrees(row, 0.031 * (stored.astype(np.float64) + 7), "qint8")
    assert row["dead_rows"] == 1


def test_what_a_sparse_tensor_does_not_store_is_zero(judged: Way, tmp_path: Path) -> None:
    stored = np.random.default_rng(7).normal(size=5000)
    whole = np.zeros((300, 200))
    whole.flat[:5000] = stored
    file = tmp_path / "s.bin"
    file.write_bytes(stored.tobytes())
    tensor = Tensor("w", "float64", (300, 200), Storage(file, 0, 40_000), layout="sparse", stored=5000)
    with Checkpoint(file, "raw", (tensor,)) as checkpoint:
        row = judged(checkpoint).row(0, named=True)
    assert_agrees(row, whole, "float64")
    assert row["dead_rows"] is None and row["bytes"] == 40_000 and row["elements"] == 60_000


def test_dead_rows_and_columns_of_matrices_and_convolutions_are_counted(judged: Way, tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(8)
    matrix, kernel = (torch.randn(*shape, generator=made) for shape in ((200, 130), (40, 30, 3, 3)))
    matrix[[3, 100]] = 0.0
    matrix[:, [0, 64, 129]] = -0.0
    kernel[:, 29] = 0.0
    kernel[5] = 0.0
    kernel[6, 1:] = 0.0
    tensors = {"b": torch.zeros(70), "k": kernel, "m": matrix, "n": matrix.bfloat16()}
    with opened(tmp_path, tensors) as checkpoint:
        frame = judged(checkpoint).sort("name")
    assert frame["dead_rows"].to_list() == [None, 1, 2, 2]
    assert frame["dead_columns"].to_list() == [None, 1, 3, 3]


def test_dead_columns_are_found_across_parts_of_a_large_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.weights import sweeps

    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(sweeps, "_SWEPT", 1000)
    weights = np.random.default_rng(9).normal(size=(50, 333)).astype("f4")
    weights[:, [0, 17, 332]] = 0
    weights[[0, 9, 49]] = 0
    with checkpoint_of(tmp_path, {"w": ("float32", weights)}) as checkpoint:
        row = statistics(checkpoint).row(0, named=True)
    assert (row["dead_rows"], row["dead_columns"]) == (3, 3)
    assert_agrees(row, weights.astype(np.float64), "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_norm_layer_near_one_loses_no_digits(judged: Way, tmp_path: Path, dtype: str) -> None:
    drawn = 1 + 1e-4 * torch.randn(9001, generator=torch.Generator().manual_seed(10))
    tensors = {"w": drawn.to(getattr(torch, dtype))}
    with opened(tmp_path, tensors) as checkpoint:
        row = judged(checkpoint).row(0, named=True)
    assert_agrees(row, tensors["w"].double().numpy(), dtype)


def test_a_constant_tensor_has_no_spread_and_no_kurtosis(judged: Way, tmp_path: Path) -> None:
    with opened(tmp_path, {"w": torch.full((77, 100), 0.1)}) as checkpoint:
        row = judged(checkpoint).row(0, named=True)
    assert (row["mean"], row["std"], row["kurtosis"]) == (np.float32(0.1), 0.0, None)


def test_nan_everywhere_is_counted_and_nothing_else_is_known(judged: Way, tmp_path: Path) -> None:
    values = np.full((100, 80), np.nan, "f4")
    with checkpoint_of(tmp_path, {"w": ("float32", values)}) as checkpoint:
        row = judged(checkpoint).row(0, named=True)
    assert_agrees(row, values.astype(np.float64), "float32")
    assert (row["nan"], row["dead_rows"], row["dead_columns"]) == (8000, 0, 0)


def test_nan_and_infinity_among_numbers_are_left_out_of_moments(judged: Way, tmp_path: Path) -> None:
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        values = torch.randn(100, 80, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
        values[3, :9], values[50, 7], values[99, 79], values[0, 0] = np.nan, np.inf, -np.inf, -np.nan
        tensors = {"w": values.to(getattr(torch, dtype))}
        with opened(tmp_path, tensors, name=dtype) as checkpoint:
            row = judged(checkpoint).row(0, named=True)
        assert_agrees(row, tensors["w"].double().numpy(), dtype)


@pytest.mark.parametrize("size", [1e38, 1e-38, 1e-44])
def test_numbers_at_the_ends_of_single_precision_keep_their_norm(judged: Way, tmp_path: Path, size: float) -> None:
    values = (np.random.default_rng(12).choice([-1.0, 1.0, 2.0], 9000) * size).astype("f4")
    with checkpoint_of(tmp_path, {"w": ("float32", values)}) as checkpoint:
        row = judged(checkpoint).row(0, named=True)
    assert_agrees(row, values.astype(np.float64), "float32")


@pytest.mark.parametrize("size", [1e300, 1e200, 1e-200, 1e-300])
def test_numbers_at_the_ends_of_double_precision_keep_their_norm(judged: Way, tmp_path: Path, size: float) -> None:
    drawn = np.random.default_rng(13).normal(size=9000)
    with checkpoint_of(tmp_path, {"w": ("float64", drawn * size), "v": ("float64", drawn)}) as checkpoint:
        scaled, plain = judged(checkpoint).iter_rows(named=True)
    for key in ("mean", "std", "norm", "minimum", "maximum"):
        assert scaled[key] == pytest.approx(plain[key] * size, rel=1e-9), key
    assert scaled["kurtosis"] == pytest.approx(plain["kurtosis"], rel=1e-9)


def test_tensors_of_one_and_of_no_element_are_judged(judged: Way, tmp_path: Path) -> None:
    arrays = {
        "step": ("float32", np.array(7.0, "f4")),
        "none": ("float32", np.zeros((0, 5), "f4")),
        "flat": ("int64", np.zeros(0, "i8")),
    }
    with checkpoint_of(tmp_path, arrays) as checkpoint:
        frame = judged(checkpoint)
    step, none, flat = frame.iter_rows(named=True)
    assert (step["mean"], step["std"], step["norm"], step["kurtosis"]) == (7.0, 0.0, 7.0, None)
    for row in (none, flat):
        assert (row["elements"], row["nan"], row["inf"], row["mean"], row["zeros"]) == (0, 0, 0, None, None)
        assert sum(row["histogram"]) == 0


def test_a_checkpoint_without_tensors_has_the_same_columns(judged: Way, tmp_path: Path) -> None:
    with Checkpoint(tmp_path, "raw", ()) as checkpoint:
        frame = judged(checkpoint)
    assert frame.height == 0 and frame.schema == STATISTICS


def test_transposed_views_and_tensors_in_pieces_are_judged_as_a_whole(judged: Way, tmp_path: Path) -> None:
    values = np.random.default_rng(14).normal(size=(90, 110)).astype("f4")
    values[:, 4] = 0
    values[:20, 7] = 0
    file = tmp_path / "p.bin"
    file.write_bytes(values.tobytes())
    storage = Storage(file, 0, values.nbytes)
    turned = Tensor("turned", "float32", (110, 90), storage, strides=(1, 110))
    pieces = tuple(Piece((row, 0), (45, 110), Storage(file, row * 440, 45 * 440)) for row in (0, 45))
    whole = Tensor("whole", "float32", (90, 110), None, pieces=pieces)
    with Checkpoint(file, "raw", (turned, whole)) as checkpoint:
        first, second = judged(checkpoint).iter_rows(named=True)
    assert_agrees(first, values.T.astype(np.float64), "float32")
    assert_agrees(second, values.astype(np.float64), "float32")
    assert (first["dead_rows"], second["dead_columns"]) == (1, 1)


def test_bytes_that_are_gone_are_said_in_the_row_and_the_others_are_judged(judged: Way, tmp_path: Path) -> None:
    with checkpoint_of(tmp_path, {"w": ("float32", np.ones(5000, "f4"))}) as whole:
        cut = Tensor("cut", "float32", (9000,), Storage(whole.path, 3, 36_000))
        frame = judged(whole.but(tensors=(cut, *whole.tensors)))
    assert "of a file of" in frame["error"][0]
    assert frame["mean"].to_list() == [None, 1.0] and frame["nan"].to_list() == [None, 0]
    assert frame.schema == STATISTICS


def test_only_tensors_of_the_roles_asked_for_are_read(tmp_path: Path) -> None:
    with checkpoint_of(tmp_path, {"w": ("float32", np.ones(3, "f4"))}, role="optimizer", state="exp_avg") as checkpoint:
        assert statistics(checkpoint, roles=["weights"]).height == 0
        assert statistics(checkpoint, roles=["optimizer"])["state"].to_list() == ["exp_avg"]


def test_an_unknown_role_is_refused_with_those_known(tmp_path: Path) -> None:
    with (
        Checkpoint(tmp_path, "raw", ()) as checkpoint,
        pytest.raises(ValueError, match="unknown role 'weight'; known: weights, ema, optimizer, other"),
    ):
        statistics(checkpoint, roles=["weight"])  # type: ignore[list-item]


def test_progress_tells_bytes_up_to_all_of_them(judged: Way, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    arrays = {f"w{n}": ("float32", np.ones((100, 90 + n), "f4")) for n in range(5)}
    with checkpoint_of(tmp_path, arrays) as checkpoint:
        total = sum(tensor.nbytes for tensor in checkpoint.tensors)
        statistics(checkpoint, progress=lambda *what: told.append(what))
    assert told[-1] == (total, total, "w4")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_rows_stand_in_the_order_of_the_checkpoint_whatever_their_size(judged: Way, tmp_path: Path) -> None:
    arrays = {f"w{n}": ("float32", np.full(size, n, "f4")) for n, size in enumerate((3, 70_000, 5, 0, 200_000, 1))}
    with checkpoint_of(tmp_path, arrays) as checkpoint:
        frame = judged(checkpoint)
    assert frame["name"].to_list() == list(arrays)
    assert frame["mean"].to_list() == [0.0, 1.0, 2.0, None, 4.0, 5.0]
