"""Kinds of tensors and objects in files of torch: quantised, sparse, meta, tied, modules, TorchScript, Lightning."""

from __future__ import annotations

import collections
import pathlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.opening import open_checkpoint, sniff
from parsers.checkpoints.tensors import Tensor
from tests.parsers.checkpoints.torch_files import bits, held, saved

BOTH = pytest.mark.parametrize("way", ["zip", "legacy"])


@pytest.fixture(autouse=True)
def _without_torch_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tensor_of(checkpoint: Checkpoint, name: str) -> Tensor:
    (found,) = [tensor for tensor in checkpoint if tensor.name == name]
    return found


@BOTH
def test_a_tensor_quantised_as_a_whole_has_its_scale_and_zero_point(tmp_path: Path, way: str) -> None:
    value = torch.quantize_per_tensor(torch.linspace(-1, 1, 12).reshape(3, 4), 0.1, 3, torch.qint8)
    with open_checkpoint(saved(tmp_path / "a.pt", {"w": value}, way)) as checkpoint:
        tensor = tensor_of(checkpoint, "w")
        assert (tensor.dtype, tensor.scale, tensor.zero_point) == ("qint8", 0.1, 3)
        np.testing.assert_allclose(0.1 * (checkpoint.array(tensor).astype(float) - 3), value.dequantize(), atol=1e-6)


@BOTH
def test_a_tensor_quantised_by_channel_has_scales_and_zero_points_beside_it(tmp_path: Path, way: str) -> None:
    scales, zeros = torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([0, 2])
    value = torch.quantize_per_channel(torch.linspace(-1, 1, 6).reshape(2, 3), scales, zeros, 0, torch.qint8)
    with open_checkpoint(saved(tmp_path / "a.pt", {"w": value}, way)) as checkpoint:
        assert [tensor.name for tensor in checkpoint] == ["w", "w.scales", "w.zero_points"]
        assert tensor_of(checkpoint, "w").scale is None
        assert held(checkpoint, "w.scales") == bits(scales)
        assert held(checkpoint, "w.zero_points") == bits(zeros)
        assert held(checkpoint, "w") == bits(value.int_repr())


@BOTH
def test_a_sparse_tensor_is_its_stored_values_with_indices_beside_it(tmp_path: Path, way: str) -> None:
    dense = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]])
    tree = {"coo": dense.to_sparse_coo(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc()}
    with open_checkpoint(saved(tmp_path / "a.pt", tree, way)) as checkpoint:
        for name, parts in {
            "coo": {"indices": tree["coo"].coalesce().indices()},
            "csr": {"crow_indices": tree["csr"].crow_indices(), "col_indices": tree["csr"].col_indices()},
            "csc": {"ccol_indices": tree["csc"].ccol_indices(), "row_indices": tree["csc"].row_indices()},
        }.items():
            tensor = tensor_of(checkpoint, name)
            assert (tensor.layout, tensor.shape, tensor.stored, tensor.count) == ("sparse", (2, 3), 3, 3)
            values = tree[name].coalesce().values() if name == "coo" else tree[name].values()
            assert held(checkpoint, name) == bits(values)
            assert all(held(checkpoint, f"{name}.{part}") == bits(there) for part, there in parts.items())


@BOTH
def test_a_meta_tensor_has_a_shape_and_no_values(tmp_path: Path, way: str) -> None:
    with open_checkpoint(saved(tmp_path / "a.pt", {"w": torch.empty(10**6, 10**6, device="meta")}, way)) as checkpoint:
        tensor = tensor_of(checkpoint, "w")
        assert (tensor.layout, tensor.shape, tensor.count) == ("meta", (10**6, 10**6), 0)
        assert checkpoint.array(tensor).shape == (0,)


@BOTH
def test_tied_weights_share_their_storage_and_views_have_their_place_in_it(tmp_path: Path, way: str) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    with open_checkpoint(saved(tmp_path / "a.pt", {"a": whole, "b": whole, "c": whole[1:, ::2]}, way)) as checkpoint:
        a, b, c = checkpoint
        assert a.storage == b.storage == c.storage
        assert (a.offset, b.offset, c.offset, c.strides) == (0, 0, 4, (4, 2))
        assert held(checkpoint, "c") == bits(whole[1:, ::2])


def test_half_precision_complex_numbers_have_their_parts_side_by_side(tmp_path: Path) -> None:
    value = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).to(torch.complex32)
    with open_checkpoint(saved(tmp_path / "a.pt", {"z": value})) as checkpoint:
        np.testing.assert_array_equal(checkpoint.array(tensor_of(checkpoint, "z")), [[1, 2], [3, -4]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_not_a_number_everywhere_is_read_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    value = torch.full((3, 5), float("nan")).to(dtype)
    with open_checkpoint(saved(tmp_path / "a.pt", {"w": value})) as checkpoint:
        assert held(checkpoint, "w") == bits(value)


@BOTH
def test_a_whole_module_gives_its_parameters_and_lists_the_classes_it_would_import(tmp_path: Path, way: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with open_checkpoint(saved(tmp_path / "a.pt", module, way)) as checkpoint:
        assert {tensor.name for tensor in checkpoint} == set(module.state_dict())
        assert held(checkpoint, "0.weight") == bits(module[0].weight)
        assert {(call.name, call.risk) for call in checkpoint.unsafe} == {
            ("torch.nn.modules.container.Sequential", "unknown"),
            ("torch.nn.modules.linear.Linear", "unknown"),
            ("torch.nn.modules.batchnorm.BatchNorm1d", "unknown"),
        }


def test_torchscript_gives_its_tensors_and_tells_of_its_code(tmp_path: Path) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(3, 2)
            self.register_buffer("scale", torch.tensor([2.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.scale

    module = Scaled()
    torch.jit.trace(module, torch.ones(1, 3)).save(str(tmp_path / "a.pt"))
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert not checkpoint.damage
        for name, value in module.state_dict().items():
            assert held(checkpoint, name) == bits(value)
        assert "torch.jit.load" in [call.name for call in checkpoint.unsafe]
        assert not [call for call in checkpoint.unsafe if call.risk == "dangerous"]


def test_a_lightning_checkpoint_has_its_step_its_epoch_and_its_optimizer(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    tree = {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": collections.OrderedDict((f"net.{k}", v) for k, v in model.state_dict().items()),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"last_epoch": 3}],
        "loops": {"fit_loop": {"epoch_progress": {"total": {"completed": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": pathlib.PurePosixPath("a/b.ckpt")}},
        "hyper_parameters": {"lr": 0.1, "name": "small"},
    }
    with open_checkpoint(saved(tmp_path / "a.ckpt", tree)) as checkpoint:
        assert not checkpoint.unsafe
        assert (checkpoint.step, checkpoint.epoch) == (1200, 3)
        assert held(checkpoint, "optimizer_states.0.state.0.exp_avg") == bits(optimizer.state[model.weight]["exp_avg"])
        values = checkpoint.values
        assert values["optimizer_states.0.param_groups.0.lr"] == 0.1
        assert values["optimizer_states.0.param_groups.0.betas.1"] == 0.999
        assert values["loops.fit_loop.epoch_progress.total.completed"] == 3
        assert values["hyper_parameters.name"] == "small"
        assert values["callbacks.ModelCheckpoint{'monitor': None}.best_model_path"] == "a/b.ckpt"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_plain_pickle_of_arrays_gives_them_and_their_scalars(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "w": np.arange(600, dtype=np.float32).reshape(20, 30),
        "f": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "big": np.arange(200, dtype=">f8"),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 4)),
        "lr": np.float64(0.25),
        "count": np.int64(7),
    }
    file = saved(tmp_path / "a.pkl", arrays, f"pickle {protocol}")
    with open_checkpoint(file) as checkpoint:
        assert not checkpoint.damage
        assert not checkpoint.unsafe
        assert checkpoint.values == {"lr": 0.25, "count": 7}
        for name in ("w", "f", "big", "bool", "empty"):
            got = checkpoint.array(tensor_of(checkpoint, name))
            np.testing.assert_array_equal(got, arrays[name])
            assert tensor_of(checkpoint, name).shape == arrays[name].shape


def test_large_arrays_of_a_plain_pickle_are_mapped_and_not_held(tmp_path: Path) -> None:
    with open_checkpoint(saved(tmp_path / "a.pkl", {"w": np.zeros(10**5)}, "pickle 4")) as checkpoint:
        (tensor,) = checkpoint
        assert tensor.storage is not None
        assert tensor.storage.held is None


def test_the_tar_archives_of_the_first_torch_are_told_and_refused(tmp_path: Path) -> None:
    import io
    import tarfile

    from eventstream.errors import InputError

    with tarfile.open(tmp_path / "a.pt", "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"\x80\x02N."))
    assert sniff(tmp_path / "a.pt") == "torch-legacy"
    with pytest.raises(InputError, match=r"a tar archive of torch before 0\.1\.10.*save the state_dict again"):
        open_checkpoint(tmp_path / "a.pt")
