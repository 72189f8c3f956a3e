"""Cut, flipped and lying files of torch: what is whole is read, what is not is told with its place."""

from __future__ import annotations

import io
import random
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.verify import verify
from parsers.checkpoints.zip_directory import directory
from tests.parsers.checkpoints.torch_files import WAYS, bits, held, saved

TREE = {f"layer.{n}.weight": torch.full((32, 4), float(n)) for n in range(8)}


def reasons(checkpoint: Checkpoint) -> str:
    return "\n".join(f"{damage.where}: {damage.reason}" for damage in checkpoint.damage)


@pytest.mark.parametrize("way", ["zip", "legacy"])
@pytest.mark.parametrize("left", [0.95, 0.7, 0.4])
def test_a_cut_file_gives_the_tensors_whose_bytes_are_there_and_says_where_it_ends(
    tmp_path: Path, way: str, left: float
) -> None:
    file = saved(tmp_path / "a.pt", TREE, way)
    whole = file.read_bytes()
    # The end of an archive is its directory, which no tensor needs.
    data = max(whole.rfind(np.full(128, n, np.float32).tobytes()) + 512 for n in range(8))
    begin = whole.find(np.zeros(128, np.float32).tobytes()) if way == "zip" else len(whole) - 8 * 520
    file.write_bytes(whole[: begin + int((data - begin) * left)])
    with open_checkpoint(file) as checkpoint:
        found = {tensor.name for tensor in checkpoint}
        assert 0 < len(found) < 8
        assert all(held(checkpoint, name) == bits(TREE[name]) for name in found)
        assert "cut off" in reasons(checkpoint) or "the file ends" in reasons(checkpoint)
        told = reasons(checkpoint)
        named = set(re.findall(r"layer\.\d\.weight", told))
        assert named and not named & found


def test_an_archive_without_its_directory_alone_loses_no_tensor(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pt", TREE)
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"PK\x01\x02") - 3])
    with open_checkpoint(file) as checkpoint:
        assert {tensor.name for tensor in checkpoint} == set(TREE)
        assert "no end record" in reasons(checkpoint)


def test_a_file_cut_inside_its_pickle_gives_what_stood_before(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pkl", {"epoch": 3, "lr": 0.5, "rest": list(range(1000))}, "pickle 2")
    file.write_bytes(file.read_bytes()[:200])
    with open_checkpoint(file) as checkpoint:
        assert checkpoint.values["epoch"] == 3
        assert re.search(r"pickle 1, byte \d+: (no end of the pickle|.* are left): cut off", reasons(checkpoint))


def test_a_missing_storage_is_told_with_the_tensors_that_need_it(tmp_path: Path) -> None:
    source = saved(tmp_path / "whole.pt", TREE)
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(tmp_path / "a.pt", "w") as less:
        for name in whole.namelist():
            if not name.endswith("data/3"):
                less.writestr(name, whole.read(name))
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert len(checkpoint.tensors) == 7
        assert reasons(checkpoint) == ("tensor layer.3.weight: its storage 'whole/data/3' is not in the archive")


def test_packed_entries_are_unpacked_on_reading(tmp_path: Path) -> None:
    source = saved(tmp_path / "whole.pt", TREE)
    with (
        zipfile.ZipFile(source) as whole,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert not checkpoint.damage
        assert all(held(checkpoint, name) == bits(value) for name, value in TREE.items())
        assert not verify(checkpoint)


def test_a_view_beyond_its_storage_is_damage(tmp_path: Path) -> None:
    source = saved(tmp_path / "whole.pt", {"w": torch.ones(5)})
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(tmp_path / "a.pt", "w") as lying:
        for name in whole.namelist():
            raw = whole.read(name)
            lying.writestr(name, raw.replace(b"K\x05\x85", b"K\x63\x85") if name.endswith("data.pkl") else raw)
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert not checkpoint.tensors
        assert reasons(checkpoint) == "tensor w: reaches to element 99 of storage 0, which has 5"


def test_a_tiny_storage_stretched_over_terabytes_is_damage(tmp_path: Path) -> None:
    with open_checkpoint(saved(tmp_path / "a.pt", {"w": torch.ones(1).expand(10**6, 10**6)})) as checkpoint:
        assert not checkpoint.tensors
        assert "a view of 1,000,000,000,000 elements over 1 that are stored" in reasons(checkpoint)


def test_overlapping_entries_are_told(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pt", TREE)
    raw = bytearray(file.read_bytes())
    entries = directory(bytes(raw)).entries
    first, second = (entry for entry in entries if entry.name in ("a/data/3", "a/data/4"))
    at = raw.index(b"a/data/4", raw.index(b"PK\x01\x02")) - 46
    struct.pack_into("<L", raw, at + 42, first.header)  # the directory sends both names to one place
    file.write_bytes(raw)
    with open_checkpoint(file) as checkpoint:
        assert "overlaps entry" in reasons(checkpoint) or "its own header 'a/data/3'" in reasons(checkpoint)
    assert second.header > first.header


def test_a_packed_entry_that_claims_more_than_deflate_can_hold_is_damage_and_costs_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"x" * 100)
    raw = bytearray((tmp_path / "a.pt").read_bytes())
    at = raw.index(b"PK\x01\x02")
    struct.pack_into("<L", raw, at + 24, 0xFFFFFF00)
    (tmp_path / "a.pt").write_bytes(raw)
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert "which deflate cannot" in reasons(checkpoint)


@pytest.mark.parametrize("count", [0, 1])
def test_an_archive_of_torch_with_a_directory_of_ten_terabytes_is_walked_instead(tmp_path: Path, count: int) -> None:
    file = saved(tmp_path / "a.pt", TREE)
    raw = file.read_bytes()
    end = raw.rindex(b"PK\x05\x06")
    head = raw[:end].replace(b"PK\x06\x07", b"PK\x00\x00")
    file.write_bytes(head + b"PK\x05\x06" + struct.pack("<4xHHLLH", count, count, 0xFFFFFFF0, 0xFFFFFFF0, 0))
    with open_checkpoint(file) as checkpoint:
        assert {tensor.name for tensor in checkpoint} == set(TREE)
        assert "which is beyond the file" in reasons(checkpoint)


def test_a_flipped_bit_is_found_when_asked_for_and_only_in_its_entry(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pt", TREE)
    with open_checkpoint(file) as checkpoint:
        assert verify(checkpoint) == ()
        (tensor,) = [tensor for tensor in checkpoint if tensor.name == "layer.5.weight"]
        assert tensor.storage is not None
        at = tensor.storage.start + 17
    raw = bytearray(file.read_bytes())
    raw[at] ^= 4
    file.write_bytes(raw)
    with open_checkpoint(file) as checkpoint:
        assert not checkpoint.damage
        (damage,) = verify(checkpoint)
        assert damage.where.startswith("entry 'a/data/5' (layer.5.weight), byte ")
        assert re.search(r"checksum [0-9a-f]{8}, written was [0-9a-f]{8}", damage.reason)


def test_files_without_checksums_have_nothing_to_verify(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path / "a.pt", TREE)
    finally:
        torch.serialization.set_crc32_options(before)
    saved(tmp_path / "b.pt", TREE, "legacy")
    for name in ("a.pt", "b.pt"):
        with open_checkpoint(tmp_path / name) as checkpoint:
            assert verify(checkpoint) == ()


def test_a_file_that_went_away_cannot_be_verified(tmp_path: Path) -> None:
    with open_checkpoint(saved(tmp_path / "a.pt", TREE)) as checkpoint:
        (tmp_path / "a.pt").unlink()
        with pytest.raises(InputError, match=r"a\.pt cannot be read any more"):
            verify(checkpoint)


@pytest.mark.parametrize("way", WAYS)
def test_random_damage_never_raises_anything_else_and_never_fills_the_memory(tmp_path: Path, way: str) -> None:
    """75 mutants of each format: cut anywhere, bytes flipped, ranges repeated or overwritten by another."""
    tree = {"w": torch.randn(7, 3), "s": torch.eye(3).to_sparse(), "n": [1, {"x": 2.5, "t": (None, "a")}], "lr": 0.1}
    whole = saved(tmp_path / "a.pt", tree, way).read_bytes()
    chance, opened = random.Random(way), 0
    for _ in range(75):
        file = tmp_path / "mutant.pt"
        file.write_bytes(_mutant(whole, chance))
        tracemalloc.start()
        try:
            with open_checkpoint(file) as checkpoint:
                opened += 1
                for tensor in checkpoint:
                    checkpoint.array(tensor)
                verify(checkpoint)
        except InputError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 20_000_000
    assert opened > 30


def _mutant(whole: bytes, chance: random.Random) -> bytes:
    kind, raw = chance.choice(["cut", "flip", "flip", "copy"]), bytearray(whole)
    if kind == "cut":
        return whole[: chance.randrange(1, len(whole))]
    if kind == "copy":
        source, target = chance.randrange(len(raw)), chance.randrange(len(raw))
        length = chance.randrange(1, 64)
        raw[target : target + length] = whole[source : source + length]
        return bytes(raw)
    reach = chance.choice([len(raw), min(600, len(raw))])
    for _ in range(chance.randrange(1, 9)):
        raw[chance.randrange(reach)] = chance.choice([0, 0xFF, 0x80, chance.randrange(256)])
    return bytes(raw)


def test_elements_of_a_type_without_numbers_of_their_own_are_told_as_not_supported(tmp_path: Path) -> None:
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with open_checkpoint(saved(tmp_path / "a.pt", {"w": packed, "b": torch.ones(2)})) as checkpoint:
        (damage,) = checkpoint.damage
        assert damage.unsupported
        assert (damage.where, damage.reason) == ("tensor w", "elements of type float4_e2m1fn_x2 are not read")
        assert held(checkpoint, "b") == bits(torch.ones(2))


def test_numbers_with_their_most_significant_byte_first_are_told_as_not_supported(tmp_path: Path) -> None:
    source = saved(tmp_path / "whole.pt", {"w": torch.ones(5), "b": torch.ones(3, dtype=torch.uint8)})
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(tmp_path / "a.pt", "w") as turned:
        for name in whole.namelist():
            turned.writestr(name, b"big" if name.endswith("byteorder") else whole.read(name))
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        (damage,) = checkpoint.damage
        assert damage.unsupported and damage.where == "tensor w"
        assert "most significant byte first" in damage.reason
        assert [tensor.name for tensor in checkpoint] == ["b"]


def test_what_a_pickle_says_of_a_tensor_that_no_tensor_can_be_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(
        b"\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(NK\x00NNtRX\x01\x00\x00\x00nK\x05u."
    )
    with open_checkpoint(file) as checkpoint:
        (damage,) = checkpoint.damage
        assert re.match(r"pickle 1, byte \d+", damage.where)
        assert "torch._utils._rebuild_tensor_v2(None, 0, None, None): no storage" in damage.reason
        assert checkpoint.values["n"] == 5


def test_an_archive_is_read_from_bytes_too() -> None:
    packed = io.BytesIO()
    torch.save({"w": torch.ones(3)}, packed)
    assert [entry.trouble for entry in directory(packed.getvalue()).entries if entry.trouble] == []
