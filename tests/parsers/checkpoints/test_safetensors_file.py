"""safetensors: what the real library writes comes back, and what no library would write harms nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.safetensors_file import read, sniff
from parsers.checkpoints.safetensors_header import header_of
from parsers.checkpoints.tensors import DTYPES
from tests.parsers.checkpoints.safetensors_files import entry, written

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def reasons(found: Checkpoint) -> dict[str, str]:
    return {damage.where: damage.reason for damage in found.damage}


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


shapes = st.lists(st.integers(0, 4), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(TYPES), shapes), max_size=6))
def test_what_the_library_writes_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    wanted = {name: one for name, one in wanted.items() if name != "__metadata__"}
    made = torch.Generator().manual_seed(7)
    tensors = {
        name: torch.randint(0, 2, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8, generator=made)
        .view(dtype)
        .reshape(shape)
        for name, (dtype, shape) in wanted.items()
    }
    file = tmp_path_factory.mktemp("round") / "a.safetensors"
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with read(file) as found:
        assert not found.damage
        assert found.values == {"metadata.format": "pt"}
        assert {t.name for t in found.tensors} == set(tensors)
        for tensor in found.tensors:
            original = tensors[tensor.name]
            assert (tensor.dtype, tensor.shape) == (str(original.dtype)[6:], tuple(original.shape))
            raw = found.array(tensor)
            assert raw.dtype == np.dtype(DTYPES[tensor.dtype].raw)
            assert raw.tobytes() == bytes_of(original)


def test_numpy_arrays_come_back_as_numbers(tmp_path: Path) -> None:
    arrays = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "n": np.array(7, np.int64), "none": np.zeros((0, 5))}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    with read(tmp_path / "a.safetensors") as found:
        for tensor in found.tensors:
            np.testing.assert_array_equal(found.array(tensor), arrays[tensor.name])
        assert {t.name: t.elements for t in found.tensors} == {"w": 12, "n": 1, "none": 0}


def test_a_file_of_no_tensor_is_whole(tmp_path: Path) -> None:
    safetensors.numpy.save_file({}, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors")
    assert (found.tensors, found.damage) == ((), ())


def test_a_header_that_claims_ten_terabytes_is_damage_and_takes_no_memory(tmp_path: Path) -> None:
    file = written(tmp_path / "a.safetensors", {}, length=10 * 10**12)
    found = read(file)
    assert reasons(found) == {
        "byte 0": "a header of 10,000,000,000,000 bytes is announced; the format allows 100,000,000"
    }
    assert sniff(file)


def test_a_header_longer_than_its_file_is_damage(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.safetensors", {}, length=5_000))
    assert reasons(found) == {
        "byte 0": "a header of 5,000 bytes is announced in a file of 10: it is cut off, or another format"
    }


@pytest.mark.parametrize(("content", "reason"), [(b"", "0 bytes"), (b"\x10\0\0", "3 bytes")])
def test_a_file_shorter_than_the_length_of_its_header_is_damage(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    assert reason in reasons(read(file))["byte 0"]


def test_a_pointer_of_git_lfs_is_told_as_one(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n")
    assert "git lfs pull" in reasons(read(file))["byte 0"]


@pytest.mark.parametrize(
    "text", [b"{not json", b"[1, 2]", b"\xff\xfe{}", b'{"a":' + b"[" * 50_000, b'{"a": 1' + b"0" * 9_000 + b"}"]
)
def test_a_header_that_is_no_json_object_of_tensors_is_damage(tmp_path: Path, text: bytes) -> None:
    found = read(written(tmp_path / "a.safetensors", text))
    assert found.tensors == ()
    assert len(found.damage) == 1


def test_tensors_that_claim_the_same_bytes_are_damage_and_the_others_are_read(tmp_path: Path) -> None:
    header = {"a": entry("U8", [8], 0, 8), "b": entry("U8", [8], 4, 12), "c": entry("U8", [4], 12, 16)}
    file = written(tmp_path / "a.safetensors", header, bytes(range(16)))
    with read(file) as found:
        start = file.stat().st_size - 16
        assert reasons(found) == {
            f"tensor 'a', byte {start:,}": "tensor 'b' claims the same bytes",
            f"tensor 'b', byte {start + 4:,}": "tensor 'a' claims the same bytes",
        }
        assert [found.array(t).tolist() for t in found.tensors] == [[12, 13, 14, 15]]


def test_a_tensor_of_no_size_shares_no_bytes(tmp_path: Path) -> None:
    header = {"a": entry("U8", [4], 0, 4), "none": entry("F32", [3, 0], 2, 2)}
    with read(written(tmp_path / "a.safetensors", header, bytes(4))) as found:
        assert not found.damage
        assert [found.array(t).shape for t in found.tensors] == [(4,), (3, 0)]


def test_bytes_that_belong_to_no_tensor_are_damage_and_take_no_tensor_away(tmp_path: Path) -> None:
    header = {"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 6, 10)}
    file = written(tmp_path / "a.safetensors", header, bytes(16))
    found = read(file)
    start = file.stat().st_size - 16
    assert [t.name for t in found.tensors] == ["a", "b"]
    assert reasons(found) == {
        f"byte {start + 4:,}": "2 bytes belong to no tensor; the format has no holes",
        f"byte {start + 10:,}": "6 bytes belong to no tensor; the format has no holes",
    }


def test_a_file_that_is_cut_off_keeps_the_tensors_before_the_cut(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({f"w{n}": np.full(100, n, np.float32) for n in range(5)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 900])
    with read(file) as found:
        assert [found.array(t)[0] for t in found.tensors] == [0.0, 1.0]
        assert [damage.where.split(",")[0] for damage in found.damage] == ["tensor 'w2'", "tensor 'w3'", "tensor 'w4'"]
        assert "its 400 bytes end 100 beyond the end of the file" in found.damage[0].reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (entry("F32", [2], 0, 4), "it claims 4 bytes, and F32 of the shape [2] takes 8"),
        (entry("F32", [-1], 0, 4), "its shape is [-1]"),
        (entry("F32", [2**62, 2**62], 0, 4), "no array can have the shape"),
        (entry("F32", [0, 2**62, 2**62], 0, 0), "no array can have the shape"),
        (entry("F32", [1] * 70, 0, 4), "no array can have the shape"),
        (entry("F32", [True], 0, 4), "its shape is [true]"),
        (entry("F32", [1.0], 0, 4), "its shape is [1.0]"),
        (entry("F32", [1], 4, 0), "its data_offsets are [4, 0]"),
        (entry("F32", [1], -4, 0), "its data_offsets are [-4, 0]"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "its data_offsets are [0]"),
        ({"dtype": "F32", "shape": [1]}, "its data_offsets are null"),
        (entry("F128", [1], 0, 16), 'its dtype is "F128", which the format does not have'),
        ({"shape": [1], "data_offsets": [0, 4]}, "its dtype is null"),
        ([1, 2], "is no JSON object but [1, 2]"),
    ],
)
def test_an_entry_that_fits_nothing_is_damage_by_its_name(tmp_path: Path, fields: object, reason: str) -> None:
    header = {"bad": fields, "good": entry("U8", [8], 0, 8)}
    with read(written(tmp_path / "a.safetensors", header, bytes(range(8)))) as found:
        bad = [damage for damage in found.damage if damage.where.startswith("tensor 'bad'")]
        assert [reason in damage.reason for damage in bad] == [True]
        assert not any(damage.unsupported for damage in bad)
        assert all(found.array(t).tolist() == list(range(8)) for t in found.tensors)


def test_a_name_that_stands_twice_is_damage(tmp_path: Path) -> None:
    one = json.dumps(entry("U8", [4], 0, 4))
    two = json.dumps(entry("U8", [4], 4, 8))
    found = read(written(tmp_path / "a.safetensors", f'{{"a":{one},"a":{two}}}'.encode(), bytes(8)))
    assert found.tensors == ()
    assert reasons(found)["tensor 'a'"] == "the header has this name twice"


def test_an_entry_that_has_a_field_twice_is_damage(tmp_path: Path) -> None:
    text = b'{"a":{"dtype":"F32","dtype":"U8","shape":[1],"data_offsets":[0,4]}}'
    found = read(written(tmp_path / "a.safetensors", text, bytes(4)))
    assert reasons(found)["tensor 'a'"] == "its entry has dtype twice"


@pytest.mark.parametrize(("dtype", "count", "size"), [("F4", 8, 4), ("F6_E2M3", 4, 3), ("F6_E3M2", 4, 3)])
def test_elements_that_share_bytes_are_told_as_unsupported_and_not_as_broken(
    tmp_path: Path, dtype: str, count: int, size: int
) -> None:
    file = written(tmp_path / "a.safetensors", {"a": entry(dtype, [count], 0, size)}, bytes(size))
    found = read(file)
    assert found.tensors == ()
    assert [(damage.unsupported, dtype in damage.reason) for damage in found.damage] == [(True, True)]


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_every_float8_is_read_as_its_bytes(tmp_path: Path, dtype: str) -> None:
    with read(written(tmp_path / "a.safetensors", {"a": entry(dtype, [4], 0, 4)}, b"\x01\x02\x7f\xff")) as found:
        assert found.array(found.tensors[0]).tolist() == [1, 2, 127, 255]
        assert found.tensors[0].dtype.startswith("float8_")


def test_a_checkpoint_without_its_suffix_is_told_by_content(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones(3)}, tmp_path / "weights.bin")
    (tmp_path / "text.bin").write_text("nothing of the kind")
    assert sniff(tmp_path / "weights.bin")
    assert not sniff(tmp_path / "text.bin")
    assert not sniff(tmp_path)
    assert not sniff(tmp_path / "missing.bin")


names = st.text(st.characters(codec="ascii", exclude_characters='"\\'), min_size=1, max_size=3)
offsets = st.lists(st.integers(-2, 40), min_size=2, max_size=2)
dtypes = st.sampled_from(["F32", "U8", "BF16", "F4", "X"])
entries = st.fixed_dictionaries(
    {"dtype": dtypes, "shape": st.lists(st.integers(-1, 9), max_size=3), "data_offsets": offsets}
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, entries, max_size=5), st.integers(0, 40))
def test_whatever_a_header_says_each_tensor_is_given_or_is_damage_and_never_shares_bytes(
    told: dict[str, object], data: int
) -> None:
    text = json.dumps(told).encode()
    header = header_of(text, Path("a.safetensors"), data)
    given_names = [t.name for t in header.tensors]
    damaged = [d.where for d in header.damage if d.where.startswith("tensor ")]
    assert len(given_names) + len(damaged) == len(told)
    claimed: list[int] = []
    for tensor in header.tensors:
        assert tensor.storage is not None
        assert tensor.nbytes == tensor.storage.nbytes
        assert tensor.storage.start + tensor.storage.nbytes <= 8 + len(text) + data
        claimed += range(tensor.storage.start, tensor.storage.start + tensor.storage.nbytes)
    assert len(claimed) == len(set(claimed))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=4), st.integers(0, 3))
def test_a_file_that_the_library_accepts_has_no_damage(lengths: list[int], extra: int) -> None:
    header, at = {}, 0
    for number, length in enumerate(lengths):
        header[f"t{number}"] = entry("F32", [length], at, at + 4 * length)
        at += 4 * length
    text = json.dumps(header).encode()
    file = len(text).to_bytes(8, "little") + text + bytes(at + extra)
    try:
        safetensors.deserialize(file)
        accepted = True
    except SafetensorError:
        accepted = False
    assert accepted == (header_of(text, Path("a"), at + extra).damage == [])
