from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from analysis.weights import differences as module
from analysis.weights.differences import DIFFERENCES, differences, matched
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Storage, Tensor
from tests.analysis.weights.checkpoint_files import opened
from tests.analysis.weights.raw_files import checkpoint_of

Way = Callable[[Checkpoint, Checkpoint], pl.DataFrame]


@pytest.fixture(params=["numpy", "compiled", "together"])
def compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """`differences` by each of its ways, whatever the size of the checkpoints and of their tensors."""
    monkeypatch.setattr(module, "LARGE", 0 if request.param == "compiled" else 1 << 60)
    monkeypatch.setattr(module, "_TINY", 1 << 60 if request.param == "together" else 0)
    yield differences


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_number_is_that_of_torch(compared: Way, tmp_path: Path) -> None:
    before, after = {}, {}
    for seed, name in enumerate(("float64", "float32", "float16", "bfloat16", "float8_e5m2")):
        start = drawn(130, 70, seed=seed)
        before[name] = start.to(getattr(torch, name))
        after[name] = (start + 0.1 * drawn(130, 70, seed=seed + 50)).to(getattr(torch, name))
    with opened(tmp_path, before, name="a") as a, opened(tmp_path, after, name="b") as b:
        frame = compared(a, b)
    assert frame.height == 5
    for row in frame.iter_rows(named=True):
        x, y = (side[row["name"]].double().flatten() for side in (before, after))
        assert row["status"] == "changed"
        assert row["norm_a"] == pytest.approx(x.norm().item(), rel=1e-12)
        assert row["norm_b"] == pytest.approx(y.norm().item(), rel=1e-12)
        assert row["update_norm"] == pytest.approx((y - x).norm().item(), rel=1e-12)
        assert row["update_ratio"] == pytest.approx(((y - x).norm() / x.norm()).item(), rel=1e-12)
        cosine = torch.nn.functional.cosine_similarity(x, y, dim=0).item()
        assert row["cosine"] == pytest.approx(cosine, rel=1e-12)
        assert row["rotation"] == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-9)
        assert row["max_change"] == (y - x).abs().max().item()
        assert row["share_changed"] == pytest.approx((x != y).double().mean().item(), rel=1e-12)


def test_equal_tensors_are_the_same_with_their_norms(compared: Way, tmp_path: Path) -> None:
    tensors = {"w": drawn(100, 90), "b": drawn(64).bfloat16(), "z": torch.zeros(9), "n": torch.full((7,), torch.nan)}
    with opened(tmp_path, tensors, name="a") as a, opened(tmp_path, tensors, name="b") as b:
        rows = {row["name"]: row for row in compared(a, b).iter_rows(named=True)}
    assert {row["status"] for row in rows.values()} == {"same"}
    assert rows["w"]["norm_a"] == rows["w"]["norm_b"] == pytest.approx(tensors["w"].double().norm().item())
    assert (rows["w"]["update_ratio"], rows["w"]["rotation"], rows["w"]["share_changed"]) == (0.0, 0.0, 0.0)
    assert rows["w"]["cosine"] == pytest.approx(1.0)
    assert (rows["z"]["update_ratio"], rows["z"]["cosine"], rows["z"]["rotation"]) == (0.0, None, None)
    assert (rows["n"]["nan_a"], rows["n"]["nan_b"], rows["n"]["norm_a"], rows["n"]["share_changed"]) == (7, 7, None, 0)


def test_one_changed_bit_among_many_equal_blocks_is_found(compared: Way, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        before = torch.ones(300, 301, dtype=dtype)
        after = before.clone()
        after[173, 200] = 1.0 + torch.finfo(dtype).eps
        with opened(tmp_path, {"w": before}, name="a") as a, opened(tmp_path, {"w": after}, name="b") as b:
            row = compared(a, b).row(0, named=True)
        assert row["status"] == "changed" and row["share_changed"] == 1 / 90_300
        assert row["max_change"] == row["update_norm"] == torch.finfo(dtype).eps


def test_a_small_rotation_keeps_its_digits(compared: Way, tmp_path: Path) -> None:
    angle = 1e-9
    arrays = [{"w": ("float64", np.array(end))} for end in ([1.0, 0.0], [np.cos(angle), np.sin(angle)])]
    with checkpoint_of(tmp_path, arrays[0], name="a") as a, checkpoint_of(tmp_path, arrays[1], name="b") as b:
        row = compared(a, b).row(0, named=True)
    assert row["rotation"] == pytest.approx(np.degrees(angle), rel=1e-6)


def test_opposite_and_orthogonal_weights_are_turned_by_half_and_a_quarter(compared: Way, tmp_path: Path) -> None:
    before = {"o": torch.tensor([1.0, 2.0]), "q": torch.tensor([1.0, 0.0])}
    after = {"o": torch.tensor([-1.0, -2.0]), "q": torch.tensor([0.0, 3.0])}
    with opened(tmp_path, before, name="a") as a, opened(tmp_path, after, name="b") as b:
        rows = {row["name"]: row for row in compared(a, b).iter_rows(named=True)}
    assert (rows["o"]["rotation"], rows["o"]["cosine"], rows["o"]["update_ratio"]) == (180.0, pytest.approx(-1), 2.0)
    assert (rows["q"]["rotation"], rows["q"]["cosine"]) == (90.0, 0.0)


def test_values_that_are_not_finite_are_counted_and_left_out(compared: Way, tmp_path: Path) -> None:
    before, after = np.ones(3000, "f4"), np.ones(3000, "f4")
    before[:4] = [np.nan, np.nan, np.inf, 5]
    after[:4] = [np.nan, 1, np.inf, -np.inf]
    after[9] = 3
    a = checkpoint_of(tmp_path, {"w": ("float32", before)}, name="a")
    b = checkpoint_of(tmp_path, {"w": ("float32", after)}, name="b")
    with a, b:
        row = compared(a, b).row(0, named=True)
    assert [row[key] for key in ("nan_a", "nan_b", "inf_a", "inf_b")] == [2, 1, 1, 2]
    assert row["share_changed"] == 3 / 3000
    assert (row["update_norm"], row["max_change"], row["norm_a"]) == (2.0, 2.0, np.sqrt(2996))


def test_a_weight_that_was_zero_changes_without_bound(compared: Way, tmp_path: Path) -> None:
    a = checkpoint_of(tmp_path, {"w": ("float32", np.zeros(5))}, name="a")
    b = checkpoint_of(tmp_path, {"w": ("float32", np.ones(5))}, name="b")
    with a, b:
        row = compared(a, b).row(0, named=True)
    assert (row["update_ratio"], row["cosine"], row["rotation"]) == (np.inf, None, None)


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_numbers_at_the_ends_of_double_precision_are_compared(compared: Way, tmp_path: Path, size: float) -> None:
    a = checkpoint_of(tmp_path, {"w": ("float64", np.array([3.0, 4.0] * 2000) * size)}, name="a")
    b = checkpoint_of(tmp_path, {"w": ("float64", np.array([3.0, 5.0] * 2000) * size)}, name="b")
    with a, b:
        row = compared(a, b).row(0, named=True)
    assert row["norm_a"] == pytest.approx(5 * size * np.sqrt(2000), rel=1e-12)
    assert row["update_ratio"] == pytest.approx(0.2, rel=1e-12)
    assert row["max_change"] == pytest.approx(size, rel=1e-12)


def test_a_copy_in_another_type_is_compared_by_value(compared: Way, tmp_path: Path) -> None:
    whole = drawn(200, 30)
    with opened(tmp_path, {"w": whole}, name="a") as a, opened(tmp_path, {"w": whole.bfloat16()}, name="b") as b:
        row = compared(a, b).row(0, named=True)
    assert (row["status"], row["dtype_a"], row["dtype_b"]) == ("dtype", "float32", "bfloat16")
    assert 1e-4 < row["update_ratio"] < 2**-8


def test_quantised_values_are_compared_by_what_they_stand_for(compared: Way, tmp_path: Path) -> None:
    stored = np.arange(100).astype("i1")
    a = checkpoint_of(tmp_path, {"w": ("qint8", stored)}, name="a", scale=0.5, zero_point=0)
    b = checkpoint_of(tmp_path, {"w": ("qint8", stored)}, name="b", scale=0.25, zero_point=0)
    with a, b:
        row = compared(a, b).row(0, named=True)
    assert (row["status"], row["update_ratio"]) == ("changed", 0.5)


def test_tensors_added_removed_and_of_another_shape_are_named_without_numbers(compared: Way, tmp_path: Path) -> None:
    before = {"gone": drawn(3), "grown": drawn(4, 4), "kept": drawn(5)}
    after = {"grown": drawn(4, 5), "kept": before["kept"] * 2, "new": drawn(2)}
    with opened(tmp_path, before, name="a") as a, opened(tmp_path, after, name="b") as b:
        frame = compared(a, b)
    assert frame["name"].to_list() == ["kept", "gone", "grown", "new"]
    assert frame["status"].to_list() == ["changed", "removed", "shape", "added"]
    assert frame["shape_a"].to_list() == [[5], [3], [4, 4], None]
    assert frame["shape_b"].to_list() == [[5], None, [4, 5], [2]]
    assert frame["update_norm"].null_count() == 3
    assert frame.schema == DIFFERENCES


def test_what_changed_most_stands_first(compared: Way, tmp_path: Path) -> None:
    before = {name: torch.ones(50) for name in "abcd"}
    after = {name: torch.ones(50) * by for name, by in zip("abcd", (1.01, 3.0, 1.0, 1.5), strict=True)}
    with opened(tmp_path, before, name="a") as a, opened(tmp_path, after, name="b") as b:
        assert compared(a, b)["name"].to_list() == ["b", "d", "a", "c"]


def test_checkpoints_without_tensors_have_the_same_columns(compared: Way, tmp_path: Path) -> None:
    with Checkpoint(tmp_path, "raw", ()) as a, Checkpoint(tmp_path, "raw", ()) as b:
        frame = compared(a, b)
    assert frame.height == 0 and frame.schema == DIFFERENCES


def test_empty_tensors_are_the_same_and_tell_nothing(compared: Way, tmp_path: Path) -> None:
    with checkpoint_of(tmp_path, {"w": ("float32", np.zeros((0, 3)))}) as a:
        row = compared(a, a).row(0, named=True)
    assert (row["status"], row["norm_a"], row["share_changed"], row["nan_a"]) == ("same", None, None, None)


def test_one_complex_and_one_real_tensor_are_not_compared(compared: Way, tmp_path: Path) -> None:
    a = checkpoint_of(tmp_path, {"w": ("complex64", np.ones(5))}, name="a")
    b = checkpoint_of(tmp_path, {"w": ("float32", np.ones(5))}, name="b")
    with a, b:
        assert compared(a, b)["status"].to_list() == ["shape"]
        assert compared(a, a)["norm_a"].to_list() == [np.sqrt(5)]


def test_bytes_that_are_gone_are_said_and_the_others_compared(compared: Way, tmp_path: Path) -> None:
    with checkpoint_of(tmp_path, {"w": ("float32", np.ones(50, "f4"))}) as a:
        cut = Tensor("cut", "float32", (9000,), Storage(a.path, 3, 36_000))
        both = a.but(tensors=(cut, *a.tensors))
        frame = compared(both, both)
    assert frame["name"].to_list() == ["w", "cut"] and frame["status"].to_list() == ["same", None]
    assert "of a file of" in frame["error"][1]


def named(name: str, parameter: str = "", role: str = "weights", state: str = "") -> Tensor:
    return Tensor(name, "float32", (2,), None, role=role, parameter=parameter, state=state)  # type: ignore[arg-type]


def names(a: list[Tensor], b: list[Tensor]) -> list[tuple[str | None, str | None]]:
    sides = (Checkpoint(Path("x"), "raw", tuple(tensors)) for tensors in (a, b))
    pairs = matched(*sides, ("weights", "ema", "optimizer"))
    return [(x and x.name, y and y.name) for x, y in pairs]


def test_a_wrapped_state_dict_matches_a_bare_one_by_parameter() -> None:
    assert names([named("state_dict.fc.weight", "fc.weight")], [named("fc.weight", "fc.weight")]) == [
        ("state_dict.fc.weight", "fc.weight")
    ]


def test_the_average_of_a_weight_does_not_match_the_weight_itself() -> None:
    a = [named("fc", "fc"), named("ema.fc", "fc", "ema")]
    b = [named("shadow.fc", "fc", "ema"), named("model.fc", "fc")]
    assert names(a, b) == [("fc", "model.fc"), ("ema.fc", "shadow.fc")]


def test_two_moments_of_one_parameter_match_each_their_own() -> None:
    a = [named(f"optim.0.{state}", "fc", "optimizer", state) for state in ("exp_avg", "exp_avg_sq")]
    b = [named(f"o.state.0.{state}", "fc", "optimizer", state) for state in ("exp_avg_sq", "exp_avg")]
    assert names(a, b) == [("optim.0.exp_avg", "o.state.0.exp_avg"), ("optim.0.exp_avg_sq", "o.state.0.exp_avg_sq")]


def test_a_parameter_that_two_tensors_share_matches_by_name_only() -> None:
    a = [named("g.fc", "fc"), named("d.fc", "fc")]
    assert names(a, [named("d.fc", "fc"), named("g.fc", "fc")]) == [("g.fc", "g.fc"), ("d.fc", "d.fc")]
    assert names(a, [named("x.fc", "fc")]) == [("g.fc", None), ("d.fc", None), (None, "x.fc")]
