"""Which .npz files of a folder are saves, where their names do not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftertrain.cli import main
from analysis.checkpoints import checkpoints
from parsers.checkpoints.npz_weights import holds_weights
from parsers.checkpoints.series import find_saves

NET: dict[str, Any] = {"W1": np.ones((4, 3)), "b1": np.ones(4), "W2": np.ones((2, 4)), "b2": np.ones(2)}
WEIGHTS: dict[str, dict[str, Any]] = {
    "by hand": NET,
    "torch": {"fc.weight": np.ones((4, 4), "f4"), "fc.bias": np.ones(4, "f4"), "bn.num_batches_tracked": np.array(3)},
    "flax": {"params/Dense_0/kernel": np.ones((3, 4), "f4"), "params/Dense_0/bias": np.ones(4, "f4")},
    "keras": {"dense/kernel:0": np.ones((3, 4), "f4"), "dense/bias:0": np.ones(4, "f4")},
}
OTHER: dict[str, dict[str, Any]] = {
    "data set": {"x": np.ones((9, 3)), "y": np.ones(9), "w": np.ones(9)},
    "train and test": {"x_train": np.ones((60, 3)), "y_train": np.ones(60), "x_test": np.ones((10, 3))},
    "features": {"mel": np.ones((80, 50), "f4"), "f0": np.ones(50, "f4"), "energy": np.ones(50, "f4")},
    "embeddings": {"embeddings": np.ones((100, 16), "f4"), "labels": np.ones(100, "i8")},
    "results": {"loss": np.ones(100), "lr": np.ones(100), "steps": np.arange(100)},
    "images": {"images": np.ones((5, 8, 8), "u1"), "bias": np.ones(5, "u1"), "weight": np.ones((5, 2), "u1")},
    "one array": {"weight": np.ones((4, 3))},
    "positions": {"arr_0": np.ones((4, 3)), "arr_1": np.ones(4)},
    "points of samples": {"weight": np.ones((9, 3)), "bias": np.ones(9), "scale": np.ones(9)},
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_arrays_named_as_parameters_are_weights(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "a.npz", **WEIGHTS[kind])
    assert holds_weights(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", OTHER)
def test_data_sets_features_and_results_are_none(tmp_path: Path, kind: str) -> None:
    for number in range(3):
        np.savez(tmp_path / f"mlp_{number}.npz", **OTHER[kind])
        np.savez(tmp_path / f"alice{number}b.npz", **OTHER[kind])
    assert not holds_weights(tmp_path / "mlp_1.npz")
    assert find_saves(tmp_path) == ()


def test_a_series_of_weights_under_any_name_is_one_of_saves(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        np.savez(tmp_path / f"mlp_{number}.npz", **{name: value * number for name, value in NET.items()})
        np.savez(tmp_path / f"sample_{number}.npz", **OTHER["data set"])
    cut = (tmp_path / "mlp_10.npz").read_bytes()[:300]
    (tmp_path / "mlp_10.npz").write_bytes(cut)
    found = checkpoints(tmp_path)
    assert found.saves["save"].to_list() == ["mlp_1.npz", "mlp_2.npz", "mlp_10.npz"]
    assert found.changes.height == 4
    assert [one.evidence["file"] for one in found.findings if one.kind == "checkpoint-corrupt"] == ["mlp_10.npz"]


def test_names_that_speak_of_weights_or_steps_count_whatever_is_in_them(tmp_path: Path) -> None:
    for name in ("params_3.npz", "step_500.npz", "best.npz"):
        np.savez(tmp_path / name, v=np.ones(4))
    assert {save.name for save in find_saves(tmp_path)} == {"params_3.npz", "step_500.npz", "best.npz"}


def test_a_folder_of_other_arrays_says_how_to_read_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        np.savez(tmp_path / f"part{number}.npz", **OTHER["positions"])
    assert main(["checkpoints", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "of the .npz files here (part0.npz, part1.npz, part2.npz and 2 more) neither the names nor" in told
    assert f"name it: {tmp_path / 'part0.npz'}" in told
    assert main(["checkpoints", str(tmp_path / "part0.npz")]) == 0
