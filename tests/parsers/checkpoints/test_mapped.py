"""Values as they lie in files: views where they can be, copies where they must be, and an error where they are gone."""

from __future__ import annotations

import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.checkpoints.mapped import MappedFiles
from parsers.checkpoints.tensors import DTYPES, Piece, Storage, Tensor


def stored(folder: Path, array: np.ndarray, before: int = 0) -> Storage:
    file = folder / f"{array.dtype.name}.bin"
    file.write_bytes(bytes(before) + array.tobytes() + b"behind")
    return Storage(file, before, array.nbytes)


@pytest.mark.parametrize("before", [0, 1, 3, 8])
def test_values_are_read_only_views_wherever_they_begin(tmp_path: Path, before: int) -> None:
    numbers = np.arange(12, dtype="<f4")
    files = MappedFiles()
    array = files.array(Tensor("w", "float32", (3, 4), stored(tmp_path, numbers, before)))
    np.testing.assert_array_equal(array, numbers.reshape(3, 4))
    assert (array.flags.owndata, array.flags.writeable) == (False, False)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0
    del array
    files.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.data())
def test_strides_and_offsets_are_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, offset: int, shape: list[int], data: st.DataObject
) -> None:
    numbers = np.arange(60, dtype="<i2")
    strides = data.draw(st.lists(st.integers(0, 7), min_size=len(shape), max_size=len(shape)))
    storage = stored(tmp_path_factory.mktemp("strides"), numbers)
    files = MappedFiles()
    got = files.array(Tensor("w", "int16", tuple(shape), storage, offset, tuple(strides)))
    view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, [2 * stride for stride in strides])
    np.testing.assert_array_equal(got, view)
    assert not got.flags.writeable
    del got
    files.close()


@pytest.mark.parametrize(("offset", "strides"), [(9, None), (0, (4, 2)), (-1, None), (0, (-1, 1)), (0, (10**15, 1))])
def test_a_view_beyond_its_storage_is_an_error_that_names_the_tensor(
    tmp_path: Path, offset: int, strides: tuple[int, ...] | None
) -> None:
    storage = stored(tmp_path, np.arange(8, dtype="<f4"))
    with pytest.raises(InputError, match=r"tensor 'enc\.w' of .*float32\.bin: the tensor reaches to element"):
        MappedFiles().array(Tensor("enc.w", "float32", (2, 3), storage, offset, strides))


def test_halves_of_complex_numbers_stand_side_by_side(tmp_path: Path) -> None:
    halves = np.arange(16, dtype="<f2")
    files, storage = MappedFiles(), stored(tmp_path, halves)
    whole = files.array(Tensor("w", "complex32", (2, 4), storage))
    np.testing.assert_array_equal(whole, halves.reshape(2, 4, 2))
    part = files.array(Tensor("w", "complex32", (3, 2), storage, 1, (1, 4)))
    np.testing.assert_array_equal(part, halves.reshape(2, 4, 2)[:, 1:].transpose(1, 0, 2))
    assert files.array(Tensor("w", "complex32", (0, 4), storage)).shape == (0, 4, 2)
    del whole, part
    files.close()


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_type_is_viewed_by_its_size(tmp_path: Path, dtype: str) -> None:
    content = np.arange(64, dtype="u1")
    tensor = Tensor("w", dtype, (2, 64 * 8 // DTYPES[dtype].bits // 2), stored(tmp_path, content))
    assert tensor.nbytes == 64
    files = MappedFiles()
    array = files.array(tensor)
    assert (array.nbytes, array.tobytes()) == (64, content.tobytes())
    del array
    files.close()


def test_packed_values_are_unpacked_and_never_beyond_what_they_claim(tmp_path: Path) -> None:
    numbers = np.arange(1000, dtype="<f4")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(numbers.tobytes()) + packer.flush()
    file = tmp_path / "a.bin"
    file.write_bytes(packed)
    files = MappedFiles()
    np.testing.assert_array_equal(
        files.array(Tensor("w", "float32", (1000,), Storage(file, 0, 4000, packed=len(packed)))), numbers
    )
    short = files.array(Tensor("w", "float32", (10,), Storage(file, 0, 40, packed=len(packed))))
    np.testing.assert_array_equal(short, numbers[:10])
    with pytest.raises(InputError, match="4,000 bytes come out of a storage of 8,000"):
        files.array(Tensor("w", "float32", (2000,), Storage(file, 0, 8000, packed=len(packed))))
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="tensor 'w'"):
        MappedFiles().array(Tensor("w", "float32", (10,), Storage(file, 0, 40, packed=100)))


def test_pieces_are_put_together(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype="<f4").reshape(3, 4)
    pieces = []
    for number, rows in enumerate((slice(0, 2), slice(2, 3))):
        file = tmp_path / f"{number}.bin"
        file.write_bytes(numbers[rows].tobytes())
        shape = numbers[rows].shape
        pieces.append(Piece((rows.start, 0), shape, Storage(file, 0, numbers[rows].nbytes)))
    tensor = Tensor("w", "float32", (3, 4), None, pieces=tuple(pieces))
    np.testing.assert_array_equal(MappedFiles().array(tensor), numbers)


def test_a_tensor_of_no_size_or_no_storage_needs_no_file() -> None:
    assert MappedFiles().array(Tensor("w", "bfloat16", (0, 7), Storage(Path("gone"), 0, 0))).shape == (0, 7)


def test_a_file_that_is_gone_or_cut_meanwhile_is_an_error(tmp_path: Path) -> None:
    storage = stored(tmp_path, np.arange(8, dtype="<f4"))
    storage.file.write_bytes(bytes(10))
    with pytest.raises(InputError, match="bytes 0 to 32 of a file of 10"):
        MappedFiles().array(Tensor("w", "float32", (8,), storage))
    storage.file.unlink()
    with pytest.raises(InputError, match="No such file"):
        MappedFiles().array(Tensor("w", "float32", (8,), storage))


def test_closing_leaves_arrays_that_are_still_held(tmp_path: Path) -> None:
    files = MappedFiles()
    array = files.array(Tensor("w", "float32", (8,), stored(tmp_path, np.arange(8, dtype="<f4"))))
    files.close()
    assert array.sum() == 28


@pytest.mark.parametrize("held", [None, bytes(4 * 100)])
def test_releasing_keeps_the_values(tmp_path: Path, held: bytes | None) -> None:
    numbers = np.zeros(100, "<f4")
    files, storage = MappedFiles(), stored(tmp_path, numbers, 5000)
    tensor = Tensor("w", "float32", (100,), storage)
    array = files.array(tensor)
    files.release(tensor)
    np.testing.assert_array_equal(array, numbers)
    files.release(Tensor("x", "float32", (100,), Storage(storage.file, 10**9, 400, held=held or b"\0" * 400)))
    files.release(Tensor("y", "float32", (100,), None))
    del array
    files.close()


def test_memory_is_that_of_one_tensor_where_each_is_released(tmp_path: Path) -> None:
    count, each = 8, 16 << 20
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(each * count))
    files = MappedFiles()
    before = _resident()
    for number in range(count):
        tensor = Tensor(str(number), "uint8", (each,), Storage(file, number * each, each))
        assert int(files.array(tensor).sum()) == 0
        files.release(tensor)
    assert _resident() - before < 2 * each
    files.close()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
