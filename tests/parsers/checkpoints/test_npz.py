"""NumPy's .npz: every number comes back, stored arrays without a copy; objects stay closed and bombs do not go off."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parsers.checkpoints.npz import read, sniff

CODES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
arrays = st.sampled_from(CODES).flatmap(lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=0, min_side=0)))


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=4), arrays, max_size=4), st.booleans(), st.booleans())
def test_what_numpy_writes_comes_back_in_either_order_packed_or_not(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, np.ndarray[Any, Any]], packed: bool, columns: bool
) -> None:
    wanted = {name: one for name, one in wanted.items() if name != "file"}
    if columns:
        wanted = {name: np.asfortranarray(one) for name, one in wanted.items()}
    file = tmp_path_factory.mktemp("round") / "a.npz"
    (np.savez_compressed if packed else np.savez)(file, **wanted)  # type: ignore[arg-type]
    assert sniff(file)
    with read(file) as found:
        assert not found.damage
        assert {t.name for t in found.tensors} == set(wanted)
        for tensor in found.tensors:
            raw, original = found.array(tensor), wanted[tensor.name]
            assert tensor.dtype == original.dtype.name
            assert raw.tobytes() == original.tobytes()
            np.testing.assert_array_equal(raw.view(original.dtype), original)


def test_stored_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.arange(1000, dtype="f4"))
    with read(tmp_path / "a.npz") as found:
        array = found.array(found.tensors[0])
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert found.tensors[0].storage is not None
        assert found.tensors[0].storage.packed is None
        del array


def test_scalars_and_texts_stand_beside_the_tensors(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", step=500, lr=np.float32(0.5), ema=True, name="tiny", z=np.complex64(1j))
    with read(tmp_path / "a.npz") as found:
        assert found.values == {"step": 500, "lr": 0.5, "ema": True, "name": "tiny", "z": "1j"}
        assert type(found.values["ema"]) is bool
        assert not found.damage


def test_names_with_folders_are_joined_by_dots(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"params/dense/kernel": np.ones(2)})
    assert [t.name for t in read(tmp_path / "a.npz").tensors] == ["params.dense.kernel"]


@pytest.mark.parametrize("packed", [True, False])
def test_an_array_of_objects_is_never_opened_and_what_it_would_call_is_listed(tmp_path: Path, packed: bool) -> None:
    file = tmp_path / "a.npz"
    save = np.savez_compressed if packed else np.savez
    marker = tmp_path / "was-run"
    save(file, bad=np.array([Bomb(marker), 1], dtype=object), w=np.ones(3))
    found = read(file)
    assert not marker.exists()
    assert [(call.name, call.member) for call in found.unsafe] == [(f"{os.system.__module__}.system", "bad.npy")]
    assert "touch " in found.unsafe[0].arguments
    assert [t.name for t in found.tensors] == ["w"]
    assert [(damage.unsupported, "pickle" in damage.reason) for damage in found.damage] == [(True, True)]


def test_an_array_of_harmless_objects_calls_nothing_that_is_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", names=np.array(["a", {"b": 1}, None], dtype=object))
    assert read(tmp_path / "a.npz").unsafe == ()


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros(3, [("a", "f4"), ("b", "i8")]), "structured"),
        (np.zeros(3, ">f4"), ">f4"),
        (np.array(["a", "b"]), "<U1"),
        (np.zeros(3, "V2"), "|V2"),
        (np.zeros(3, "M8[s]"), "<M8[s]"),
        (np.zeros(2, np.longdouble), "<f16"),
    ],
)
def test_types_that_are_not_read_are_told_as_unsupported(
    tmp_path: Path, array: np.ndarray[Any, Any], code: str
) -> None:
    np.savez(tmp_path / "a.npz", odd=array, w=np.ones(2))
    found = read(tmp_path / "a.npz")
    assert [t.name for t in found.tensors] == ["w"]
    assert [(damage.unsupported, code in damage.reason) for damage in found.damage] == [(True, True)]


def test_a_zip_bomb_is_refused_by_its_claim(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, w=np.zeros(1000))
    content = bytearray(file.read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + 24 : directory + 28] = (2**31).to_bytes(4, "little")
    file.write_bytes(content)
    found = read(file)
    assert found.tensors == ()
    assert "claims 2,147,483,648 bytes; deflate cannot make them" in found.damage[0].reason


def test_entries_that_overlap_are_damage_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, a=np.ones(8), b=np.zeros(8), c=np.arange(8.0))
    content = bytearray(file.read_bytes())
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]  # b begins where a does
    file.write_bytes(content)
    with read(file) as found:
        assert [found.array(t).tolist() for t in found.tensors] == [list(range(8))]
        assert ["claims the same bytes" in damage.reason for damage in found.damage] == [True, True]


def test_a_name_that_stands_twice_is_damage(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a/b.npy", npy(np.ones(2)))
        archive.writestr("a.b.npy", npy(np.ones(2)))
        archive.writestr("c.npy", npy(np.ones(2)))
    found = read(tmp_path / "a.npz")
    assert [t.name for t in found.tensors] == ["c"]
    assert [damage.reason for damage in found.damage] == ["the zip holds this name twice"] * 2


def test_a_file_that_is_cut_off_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, w=np.ones(1000))
    file.write_bytes(file.read_bytes()[:4000])
    assert sniff(file)
    found = read(file)
    assert found.tensors == ()
    assert (found.damage[0].where, "cut off" in found.damage[0].reason) == ("byte 4,000", True)


def header(text: str, length: int | None = None, version: int = 1) -> bytes:
    width = 2 if version == 1 else 4
    coded = text.encode()
    size = len(coded) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(width, "little") + coded


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin as a .npy array"),
        (b"\x93NUMPY\x09\x00" + bytes(20), "version 0900"),
        (b"\x93NUMPY", "version nothing"),
        (header("{", length=2**31, version=2), "at most 10,000"),
        (header("{", length=500), "and 11 are there"),
        (header("__import__('os').getcwd()"), "no literal"),
        (header("[1, 2]"), "no dictionary"),
        (header("(" * 3000), "no literal"),
        (header("{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}"), "fortran_order 1"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}"), "(-2,)"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9999999999999999999)}"), "the shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000,)}"), "takes 4,000,000 bytes, it has 0"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}") + b"\0\0", "takes 4 bytes, it has 2"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_whose_header_lies_is_damage_and_the_others_are_read(
    tmp_path: Path, content: bytes, reason: str, method: int
) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("bad.npy", content)
        archive.writestr("good.npy", npy(np.arange(3)))
    with read(tmp_path / "a.npz") as found:
        assert [found.array(t).tolist() for t in found.tensors] == [[0, 1, 2]]
        assert [reason in damage.reason for damage in found.damage] == [True]


def test_packed_bytes_that_are_no_deflate_are_damage(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, w=np.random.default_rng(1).normal(size=100))
    content = bytearray(file.read_bytes())
    content[40:60] = b"\xff" * 20
    file.write_bytes(content)
    assert "cannot be unpacked" in read(file).damage[0].reason


def test_a_method_that_numpy_never_uses_is_unsupported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy(np.ones(100)))
        archive.writestr("notes.txt", "no array", zipfile.ZIP_STORED)
    assert [damage.unsupported for damage in read(tmp_path / "a.npz").damage] == [True, True]


def test_other_zips_and_other_files_are_no_npz(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    (tmp_path / "a.npz").write_text("text")
    assert not sniff(tmp_path / "model.pt")
    assert not sniff(tmp_path / "a.npz")
    assert not sniff(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60), st.integers(0, 200))
def test_no_change_of_bytes_makes_reading_fail(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    file = tmp_path_factory.mktemp("noise") / "a.npz"
    np.savez(file, a=np.ones(3), b=np.zeros(2))
    content = bytearray(file.read_bytes())
    at = place * len(content) // 200
    content[at : at + len(noise)] = noise
    file.write_bytes(content)
    with read(file) as found:
        for tensor in found.tensors:
            assert found.array(tensor).shape == tensor.shape
