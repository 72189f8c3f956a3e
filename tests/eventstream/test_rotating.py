"""Rotated files: nothing is lost at a rotation, backups are compressed, and troubles leave the log growing."""

from __future__ import annotations

import errno
import gzip
import os
import threading
from pathlib import Path

import pytest

from eventstream import rotating
from eventstream.rotating import RotatingFile


def lines_of(folder: Path) -> list[bytes]:
    """All lines of the set, the oldest first, by the plain rule of its names."""
    parts = []
    for number in range(9, 0, -1):
        plain, packed = folder / f"a.log.{number}", folder / f"a.log.{number}.gz"
        if plain.exists():
            parts.append(plain.read_bytes())
        elif packed.exists():
            parts.append(gzip.decompress(packed.read_bytes()))
    return b"".join([*parts, (folder / "a.log").read_bytes()]).splitlines()


def drained(file: RotatingFile) -> None:
    """Wait for the compression that is under way: at the pace of a training it is done before the next rotation."""
    if file._packing is not None:
        file._packing.join()


def test_a_set_keeps_the_newest_backups_compressed_and_loses_no_line_of_them(tmp_path):
    file = RotatingFile(tmp_path / "a.log", 1000, 3)
    written = [b"%07d" % number for number in range(1000)]
    for line in written:
        file.write(line + b"\n")
        drained(file)
    file.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.log", "a.log.1.gz", "a.log.2.gz", "a.log.3.gz"]
    assert lines_of(tmp_path) == written[-500:]  # 125 lines of 8 bytes make 1,000


def test_a_file_is_continued_and_its_size_counts(tmp_path):
    for _ in range(2):
        file = RotatingFile(tmp_path / "a.log", 1000, 3)
        file.write(b"x" * 599 + b"\n")
        file.close()
    assert (tmp_path / "a.log").stat().st_size == 600
    assert len(lines_of(tmp_path)) == 2


def test_a_block_larger_than_the_limit_stands_whole_in_a_file_of_its_own(tmp_path):
    file = RotatingFile(tmp_path / "a.log", 100, 2)
    for _ in range(2):
        file.write(b"y" * 999 + b"\n")
    file.close()
    assert (tmp_path / "a.log").stat().st_size == 1000
    assert len(gzip.decompress((tmp_path / "a.log.1.gz").read_bytes())) == 1000


def test_while_a_backup_is_compressed_the_log_grows_on_and_nobody_waits(tmp_path, monkeypatch):
    gate, pack = threading.Event(), rotating._pack_all

    def slow(backups):
        assert gate.wait(30)
        pack(backups)

    monkeypatch.setattr(rotating, "_pack_all", slow)
    file = RotatingFile(tmp_path / "a.log", 100, 3)
    written = [b"%09d" % number for number in range(100)]
    for line in written:
        file.write(line + b"\n")
    assert (tmp_path / "a.log").stat().st_size == 900
    assert (tmp_path / "a.log.1").stat().st_size == 100
    gate.set()
    drained(file)
    file.write(b"last one.\n")
    file.close()
    assert lines_of(tmp_path) == [*written, b"last one."]


def test_a_compression_that_was_cut_is_made_up_for_at_the_next_rotation(tmp_path):
    (tmp_path / "a.log.1").write_bytes(b"old\n")
    (tmp_path / "a.log.1.gz").write_bytes(b"half of it")
    (tmp_path / ".a.log.1.gz.tmp").write_bytes(b"less")
    file = RotatingFile(tmp_path / "a.log", 10, 3)
    file.write(b"123456789\n")
    file.write(b"next\n")
    file.close()
    assert lines_of(tmp_path) == [b"old", b"123456789", b"next"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.log", "a.log.1.gz", "a.log.2.gz"]


def test_a_folder_that_lets_nothing_be_renamed_leaves_the_log_growing(tmp_path):
    (tmp_path / "a.log.1").mkdir()
    (tmp_path / "a.log.1" / "in the way").write_text("x")
    file = RotatingFile(tmp_path / "a.log", 100, 1)
    for _ in range(50):
        file.write(b"123456789\n")
    file.close()
    assert (tmp_path / "a.log").stat().st_size == 500


def test_what_a_full_disk_cut_is_a_line_by_itself(tmp_path, monkeypatch):
    file, write = RotatingFile(tmp_path / "a.log", 10_000, 1), os.write
    file.write(b"one\n")
    calls = iter([3])

    def full(fd, data):
        room = next(calls, 0)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:room])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"twotwo\n")
        with pytest.raises(OSError, match="No space left"):
            file.write(b"lost\n")
    file.write(b"three\n")
    file.close()
    assert lines_of(tmp_path) == [b"one", b"two", b"three"]


def test_a_forked_child_appends_follows_a_rotation_and_never_rotates(tmp_path):
    file = RotatingFile(tmp_path / "a.log", 100, 3)
    file.write(b"p" * 89 + b"\n")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            file.write(b"c" * 49 + b"\n")  # over the limit, and not its to rotate
            os.read(reading, 1)
            file.write(b"after\n")
            status = 0
        finally:
            os._exit(status)
    while (tmp_path / "a.log").stat().st_size < 140:
        os.sched_yield()
    file.write(b"q" * 19 + b"\n")  # rotates
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0
    file.close()
    for end in (reading, writing):
        os.close(end)
    assert (tmp_path / "a.log").read_bytes() == b"q" * 19 + b"\nafter\n"
    assert [len(line) for line in lines_of(tmp_path)] == [89, 49, 19, 5]
