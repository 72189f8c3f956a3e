"""Distributed checkpoints of torch, written by torch: of one process, and of two with their shards."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parsers.checkpoints.dcp_metadata import read_metadata
from parsers.checkpoints.opening import open_checkpoint, sniff
from parsers.checkpoints.verify import verify
from tests.parsers.checkpoints.pickles import system
from tests.parsers.checkpoints.torch_files import bits, held

SHARDS = ("__0_0.distcp", "__1_0.distcp")
PROGRAM = Path(__file__).parent / "sharded.py"


def tree() -> dict[str, Any]:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "turned": torch.arange(6).reshape(2, 3).to(torch.bfloat16).t(),
        "empty": torch.zeros(0, 3),
        "step": 7,
        "note": "first",
        "rng": {"state": np.arange(100, dtype=np.uint32), "inner": [torch.arange(3), 2.5]},
    }


def save(folder: Path, value: dict[str, Any]) -> Path:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(value, checkpoint_id=folder, no_dist=True)
    return folder


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    value = tree()
    return save(tmp_path_factory.mktemp("dcp") / "one", value), value


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dcp")
    meeting, out = folder / "meeting", folder / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(PROGRAM), str(meeting), str(out)], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return out


def names_without(folder: Path, file: str) -> set[str]:
    """The tensors of which nothing lies in `file`; which process writes what both have is up to torch."""
    tensors = read_metadata(folder / ".metadata").tensors
    held_in = {name: {block.item.file for block in blocks if block.item} for name, (_, _, blocks) in tensors.items()}
    return {name for name, files in held_in.items() if file not in files}


def test_a_checkpoint_of_one_process_has_what_was_saved(of_one: tuple[Path, dict[str, Any]]) -> None:
    folder, value = of_one
    assert sniff(folder) == "dcp"
    with open_checkpoint(folder) as checkpoint:
        assert not checkpoint.damage
        assert not checkpoint.unsafe
        assert checkpoint.step == 7
        for name in ("weight", "bias"):
            assert held(checkpoint, f"model.{name}") == bits(value["model"][name])
            moment = value["optimizer"]["state"][("weight", "bias").index(name)]["exp_avg"]
            assert held(checkpoint, f"optimizer.state.{('weight', 'bias').index(name)}.exp_avg") == bits(moment)
        assert held(checkpoint, "turned") == bits(value["turned"])
        assert held(checkpoint, "empty") == b""
        assert held(checkpoint, "rng.inner.0") == bits(torch.arange(3))
        assert held(checkpoint, "rng.state") == np.arange(100, dtype=np.uint32).tobytes()
        assert checkpoint.values["optimizer.param_groups.0.lr"] == 0.1
        assert checkpoint.values["rng.inner.1"] == 2.5
        assert checkpoint.values["note"] == "first"
        assert {file.name for file in checkpoint.files} == {".metadata", "__0_0.distcp"}


def test_shards_of_two_processes_are_pieces_of_one_tensor(of_two: Path) -> None:
    whole = torch.arange(35.0).reshape(5, 7)
    with open_checkpoint(of_two) as checkpoint:
        assert not checkpoint.damage
        assert not checkpoint.unsafe
        pieces = {tensor.name: [(piece.origin, piece.shape) for piece in tensor.pieces] for tensor in checkpoint}
        assert sorted(pieces["rows"]) == [((0, 0), (3, 7)), ((3, 0), (2, 7))]
        assert sorted(pieces["columns"]) == [((0, 0), (5, 4)), ((0, 4), (5, 3))]
        assert pieces["all"] == []
        assert held(checkpoint, "rows") == bits(whole)
        assert held(checkpoint, "columns") == bits(whole.to(torch.bfloat16))
        assert held(checkpoint, "all") == bits(whole)
        assert held(checkpoint, "one") == bits(whole[:1])
        assert checkpoint.step == 3
        assert {file.name for file in checkpoint.files} == {".metadata", "__0_0.distcp", "__1_0.distcp"}


def test_torch_itself_reads_the_same_from_the_shards(of_two: Path, tmp_path: Path) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(of_two, tmp_path / "a.pt")
        there = torch.load(tmp_path / "a.pt", weights_only=False)
    with open_checkpoint(of_two) as checkpoint:
        assert {tensor.name for tensor in checkpoint} == {k for k, v in there.items() if isinstance(v, torch.Tensor)}
        for tensor in checkpoint:
            assert held(checkpoint, tensor.name) == bits(there[tensor.name])


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "link", "metadata lead out"])
def test_a_file_that_is_not_there_is_told_and_the_others_are_read(of_two: Path, tmp_path: Path, how: str) -> None:
    folder = shutil.copytree(of_two, tmp_path / "a")
    broken, left = max(((name, names_without(of_two, name)) for name in SHARDS), key=lambda pair: len(pair[1]))
    shard, raw = folder / broken, (folder / broken).read_bytes()
    if how == "metadata lead out":
        (tmp_path / "b.distcp").write_bytes(raw)
        metadata = (folder / ".metadata").read_bytes()
        (folder / ".metadata").write_bytes(metadata.replace(broken.encode(), b"..//b.distcp"))
    shard.unlink()
    if how == "link":
        (tmp_path / "elsewhere").write_bytes(raw)
        shard.symlink_to(tmp_path / "elsewhere")
    elif how in ("empty", "cut"):
        shard.write_bytes(raw[:500] if how == "cut" else b"")
    with open_checkpoint(folder) as checkpoint:
        told = " ".join(f"{damage.where}: {damage.reason}" for damage in checkpoint.damage)
        assert left and {tensor.name for tensor in checkpoint} == left
        wanted = {
            "missing": "is missing",
            "empty": "is empty",
            "cut": "cut off",
            "link": "leads out of",
            "metadata lead out": "is no name of a file in the folder",
        }
        assert wanted[how] in told
        assert "rows" in told and "columns" in told
        assert "a block of it is not there" in told
        assert all(damage.unsupported for damage in checkpoint.damage) == (how == "link")


@pytest.mark.parametrize("kind", ["circle", "long"])
def test_names_that_no_file_can_have_are_damage(of_two: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(of_two, tmp_path / "a")
    (folder / SHARDS[1]).unlink()
    if kind == "circle":
        (folder / SHARDS[1]).symlink_to(folder / "other")
        (folder / "other").symlink_to(folder / SHARDS[1])
    else:
        raw, name = (folder / ".metadata").read_bytes(), SHARDS[1].encode()
        written, long = b"\x8c" + bytes((len(name),)) + name, b"x" * 900
        (folder / ".metadata").write_bytes(raw.replace(written, b"X" + len(long).to_bytes(4, "little") + long))
    with open_checkpoint(folder) as checkpoint:
        told = " ".join(f"{damage.where}: {damage.reason}" for damage in checkpoint.damage)
        assert ("a link to a file that is not there" if kind == "circle" else "is no name of a file") in told


def test_a_call_in_the_metadata_or_in_an_item_is_listed_and_nothing_runs(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    folder = save(tmp_path / "a", {"w": torch.ones(3), "evil": [system(trace)]})
    trace.unlink(missing_ok=True)  # torch itself copies objects as it saves them
    with open_checkpoint(folder) as checkpoint:
        assert [(call.name, call.file.name) for call in checkpoint.unsafe] == [("posix.system", "__0_0.distcp")]
        assert held(checkpoint, "w") == bits(torch.ones(3))
    (folder / ".metadata").write_bytes(pickle.dumps(system(trace), protocol=4))
    with open_checkpoint(folder) as checkpoint:
        assert [(call.name, call.file.name) for call in checkpoint.unsafe] == [("posix.system", ".metadata")]
        assert "no table of tensors" in checkpoint.damage[-1].reason
    assert not trace.exists()


def test_a_flipped_bit_in_an_item_is_found_when_asked_for(of_one: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = shutil.copytree(of_one[0], tmp_path / "a")
    with open_checkpoint(folder) as checkpoint:
        assert verify(checkpoint) == ()
        (tensor,) = [tensor for tensor in checkpoint if tensor.name == "model.weight"]
        assert tensor.storage is not None
    raw = bytearray((folder / "__0_0.distcp").read_bytes())
    raw[tensor.storage.start] ^= 1
    (folder / "__0_0.distcp").write_bytes(raw)
    with open_checkpoint(folder) as checkpoint:
        (damage,) = verify(checkpoint)
        assert "archive/data/0" in damage.where


def test_metadata_tell_places_without_opening_the_files(of_two: Path) -> None:
    metadata = read_metadata(of_two / ".metadata")
    dtype, shape, blocks = metadata.tensors["columns"]
    assert (dtype, shape) == ("bfloat16", (5, 7))
    assert [block.item.file for block in blocks if block.item is not None] == ["__0_0.distcp", "__1_0.distcp"]


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_in_the_metadata_never_raises(
    of_two: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    folder = shutil.copytree(of_two, tmp_path_factory.mktemp("mutant") / "a")
    raw = bytearray((folder / ".metadata").read_bytes())
    for at in chance.integers(1, len(raw), 1 + seed % 6):
        raw[at] = chance.integers(256)
    (folder / ".metadata").write_bytes(raw if seed % 7 else raw[: chance.integers(2, len(raw))])
    with open_checkpoint(folder) as checkpoint:
        for tensor in checkpoint:
            checkpoint.array(tensor)
