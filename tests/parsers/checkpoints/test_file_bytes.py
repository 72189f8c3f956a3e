"""Bytes of files to which others write meanwhile: an error that says so, and never a signal that ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parsers.checkpoints.file_bytes import FileBytes, content

_SMALL, _LARGE = 10_000, 20 << 20


def _file(folder: Path, size: int) -> Path:
    file = folder / "a.bin"
    file.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    return file


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
@pytest.mark.parametrize("length", [100, 9_000])
def test_spans_are_the_bytes_that_lie_there(tmp_path: Path, size: int, length: int) -> None:
    file, files = _file(tmp_path, size), FileBytes()
    whole = file.read_bytes()
    starts = (0, 1, 777, size - length)
    assert [bytes(files.span(file, start, length)) for start in starts] == [whole[at : at + length] for at in starts]
    assert bytes(files.span(file, 5, size - 5)) == whole[5:]  # a large one is mapped from here on
    assert bytes(files.span(file, 7, length)) == whole[7 : 7 + length]
    with pytest.raises(ValueError, match="of a file of"):
        files.span(file, size - 10, 11)
    files.close()


def _cut(file: Path) -> None:
    os.truncate(file, 100)


def _grown(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"more")


def _written_again(file: Path) -> None:
    before = file.stat()
    file.write_bytes(bytes(before.st_size))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut, r"changed while it was read: it had [\d,]+ bytes and has 100; read it when nothing writes"),
        (_grown, r"it had [\d,]+ bytes and has [\d,]+"),
        (_written_again, "it was written again"),
        (Path.unlink, "it was deleted"),
    ],
)
def test_a_file_that_changed_since_it_was_expected_is_an_error(
    tmp_path: Path, size: int, change: Callable[[Path], None], said: str
) -> None:
    file, files = _file(tmp_path, size), FileBytes()
    files.expect({file: file.stat()})
    change(file)
    with pytest.raises(ValueError, match=said):
        files.span(file, 0, 5_000)


@pytest.mark.parametrize("change", [_cut, _grown, _written_again])
def test_a_mapped_file_that_is_written_to_is_an_error_before_its_pages_are_touched(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    file, files = _file(tmp_path, _LARGE), FileBytes()
    files.span(file, 0, _LARGE)
    change(file)
    with pytest.raises(ValueError, match="changed while it was read"):
        files.span(file, 1 << 20, 1 << 20)
    files.close()


def test_a_mapped_file_that_is_deleted_or_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    file, files = _file(tmp_path, _LARGE), FileBytes()
    whole = bytes(files.span(file, 0, _LARGE))
    other = tmp_path / "new.bin"
    other.write_bytes(b"another save")
    other.replace(file)
    assert bytes(files.span(file, 0, _LARGE)) == whole
    file.unlink()
    assert bytes(files.span(file, 9, 100_000)) == whole[9 : 9 + 100_000]
    files.close()


_CUT_AFTER_OPENING = """
import os, sys
from pathlib import Path
from parsers.checkpoints.opening import open_checkpoint
from eventstream.errors import InputError
file = Path(sys.argv[1])
with open_checkpoint(file) as found:
    assert len(found.array(found.tensors[0])) == 5 << 20
    os.truncate(file, 5000)
    for tensor in found:
        try:
            print(found.array(tensor).sum())
        except InputError as error:
            print(error)
"""


def test_a_process_outlives_a_save_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[5242880],"data_offsets":[0,20971520]}}'
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(20 << 20))
    done = subprocess.run(
        [sys.executable, "-c", _CUT_AFTER_OPENING, str(file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "tensor 'w' of " in done.stdout
    assert "changed while it was read: it had 20,971,595 bytes and has 5,000" in done.stdout


def test_a_thousand_files_take_few_descriptors(tmp_path: Path) -> None:
    files, held = FileBytes(), Path("/proc/self/fd")
    before = len(list(held.iterdir()))
    for number in range(200):
        file = tmp_path / f"{number}.bin"
        with file.open("wb") as opened:
            opened.truncate(17 << 20)
        assert files.span(file, 0, 1 << 20)[12] == 0
    assert len(list(held.iterdir())) - before <= 64
    files.close()
    assert len(list(held.iterdir())) == before


@pytest.mark.parametrize("size", [0, _SMALL, _LARGE])
def test_the_content_of_a_file_is_all_of_it_and_that_of_a_small_one_outlives_a_cut(tmp_path: Path, size: int) -> None:
    file = _file(tmp_path, size)
    whole = file.read_bytes()
    with content(file) as found:
        assert found[:] == whole
        if size <= _SMALL:
            os.truncate(file, 0)
            assert found[:] == whole
