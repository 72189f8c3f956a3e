"""Hostile and damaged archives: bounded, refused with the sizes, nothing followed, what is whole is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.loading import load, load_all
from parsers.places import archives
from parsers.places.archives import Archive, Packed
from parsers.places.unpack import FREE, LIMIT, WINDOW, Limits, Unpacked, unpacking

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
LOG = b"".join(b'{"step": %d, "loss": %d.5}\n' % (s, s % 7) for s in range(400))


def zip_with(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def reasons(path: Path) -> dict[str, str]:
    return {where.removeprefix(f"{path}/"): reason for where, reason in load_all(path).unread}


def test_a_zip_bomb_is_refused_with_its_sizes_and_the_rest_is_read(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a.zip", **{"bomb.log": bytes(FREE + 1), "run.jsonl": LOG})
    runs = load_all(path)
    assert [run.name for run in runs] == ["run"]
    ((where, reason),) = runs.unread
    assert where == f"{path}/bomb.log"
    assert f"unpack to {FREE + 1:,} or more, over 200 times as much; refused" in reason


def test_a_zip_that_lies_about_its_sizes_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a.zip", **{"run.jsonl": LOG * 10})
    data = path.read_bytes()
    true = struct.pack("<I", len(LOG) * 10)
    assert data.count(true) == 2
    path.write_bytes(data.replace(true, struct.pack("<I", 40_000)))
    run = load(path)
    assert 1000 < run.scalars.height <= 40_000 // 24
    assert "damaged or cut while packed" in run.rejects["reason"][-1]


@pytest.mark.parametrize("name", ["bomb.log.gz", "bombs.tar.gz"])
def test_a_compressed_bomb_is_refused_while_it_unpacks(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    line = b'{"step": 1, "loss": 0.5}' + b" " * 4000 + b"\n"
    with gzip.open(path, "wb") as file:
        if "tar" in name:
            info = tarfile.TarInfo("run.jsonl")
            info.size = len(line) * (FREE // len(line) + 20_000)
            file.write(info.tobuf())
        for _ in range(FREE // len(line) + 20_000):
            file.write(line)
    with pytest.raises(InputError, match=r"[\d,]+ bytes unpack to [\d,]+ or more, over 200 times as much; refused"):
        load(path)


def test_a_member_beyond_the_absolute_limit_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge.log")
    info.size = LIMIT + 1
    (tmp_path / "a.tar").write_bytes(info.tobuf())
    assert Archive(tmp_path / "a.tar").refused == [
        (f"{tmp_path}/a.tar/huge.log", f"{LIMIT + 1:,} bytes; beyond {LIMIT:,} bytes is not read")
    ]


@pytest.mark.parametrize("name", ["../out.jsonl", "/etc/out.jsonl", "a/../../out.jsonl", ".."])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_names_that_lead_out_of_the_archive_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        zip_with(path, **{name: LOG, "in.jsonl": LOG})
    else:
        tar_with(path, (tarfile.TarInfo(name), LOG), (tarfile.TarInfo("in.jsonl"), LOG))
    runs = load_all(path)
    assert [run.name for run in runs] == ["in"]
    assert [reason for _, reason in runs.unread] == ["its name leads out of the archive; not read"]


def test_links_and_devices_in_a_tar_are_refused_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(LOG)
    members = [(tarfile.TarInfo("in.jsonl"), LOG)]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"link{kind.decode()}.jsonl")
        info.type, info.linkname = kind, str(tmp_path / "secret.jsonl")
        members.append((info, b""))
    path = tar_with(tmp_path / "a.tar", *members)
    runs = load_all(path)
    assert len(runs) == 1
    assert {reason for _, reason in runs.unread} == {"a link or a device, which is not followed"}
    assert len(runs.unread) == 4


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.jsonl")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("in.jsonl", LOG)
    assert reasons(tmp_path / "a.zip") == {"link.jsonl": "a link or a device, which is not followed"}


def test_an_encrypted_member_is_unread_with_the_reason(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a.zip", **{"secret.jsonl": LOG, "in.jsonl": LOG})
    data = bytearray(path.read_bytes())
    for sign, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(sign) + flags] |= 1
    path.write_bytes(bytes(data))
    assert reasons(path) == {"secret.jsonl": "encrypted, and no password is asked for"}


def test_an_archive_inside_an_archive_stays_closed_and_is_said(tmp_path: Path) -> None:
    inner = zip_with(tmp_path / "inner.zip", **{"run.jsonl": LOG}).read_bytes()
    path = zip_with(tmp_path / "a.zip", **{"inner.zip": inner, "in.jsonl": LOG, "b.log.gz": gzip.compress(LOG)})
    assert reasons(path) == {"inner.zip": "an archive inside an archive, which is not opened"}


def test_a_compressed_log_inside_an_archive_is_read(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a.zip", **{"x/b.jsonl.gz": gzip.compress(LOG)})
    run = load(path)
    assert run.scalars.height == 400 and run.path == f"{path}/x/b.jsonl.gz"


def test_a_tar_that_claims_a_header_of_a_petabyte_takes_no_memory_for_it(tmp_path: Path) -> None:
    claimed = tarfile.TarInfo("pax")
    claimed.type, claimed.size = tarfile.XHDTYPE, 1 << 50
    good = tarfile.TarInfo("a.jsonl")
    good.size = len(LOG)
    data = good.tobuf() + LOG + bytes(-len(LOG) % 512) + claimed.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    (tmp_path / "a.tar").write_bytes(data)
    tracemalloc.start()
    run = load(tmp_path / "a.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert run.scalars.height == 400
    assert peak < 100 << 20


def test_a_zip_with_a_nameless_member_gives_the_others(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a.zip", **{"a.jsonl": LOG, "nameless": LOG})
    path.write_bytes(path.read_bytes().replace(b"nameless", b"\0" * 8))  # a name ends at its first NUL
    runs = load_all(path)
    assert len(runs) == 1 and "leads out" in runs.unread[0][1]


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBERS", 10)
    path = zip_with(tmp_path / "a.zip", **{f"{n}.jsonl": LOG for n in range(11)})
    with pytest.raises(InputError, match="more than 10 files in it"):
        load_all(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.zst"])
def test_what_is_no_archive_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no archive at all" * 100)
    with pytest.raises(InputError, match="cannot be read as an archive"):
        load(tmp_path / name)
    (tmp_path / "good.jsonl").write_bytes(LOG)
    runs = load_all(tmp_path)
    assert len(runs) == 1 and "cannot be read as an archive" in runs.unread[0][1]


def test_of_a_cut_tar_the_members_before_the_cut_are_read_and_the_cut_is_a_reject(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "a.tar", (tarfile.TarInfo("a.jsonl"), LOG), (tarfile.TarInfo("b.jsonl"), LOG))
    path.write_bytes(path.read_bytes()[: 512 + len(LOG) // 2])
    run = load(path)
    assert 150 < run.scalars.height < 250
    assert any("the archive is damaged or cut" in reason for reason in run.rejects["reason"])


@settings(max_examples=60, deadline=None)
@given(suffix=st.sampled_from([".gz", ".zst", ".xz", ".bz2"]), at=st.floats(0, 1), flip=st.integers(0, 255))
def test_any_cut_or_flipped_byte_of_a_compressed_log_is_told_and_what_was_before_is_read(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, at: float, flip: int
) -> None:
    packed = bytearray(PACK[suffix](LOG))
    place = int(at * (len(packed) - 1))
    if flip:
        packed[place] ^= flip
    else:
        del packed[place:]
    path = tmp_path_factory.mktemp("flip") / f"a.jsonl{suffix}"
    path.write_bytes(bytes(packed))
    try:
        run = load(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    values = run.scalars["value"].to_list()
    if values != [s % 7 + 0.5 for s in range(400)]:
        assert not run.rejects.is_empty(), "numbers were lost or changed without a word"


@settings(max_examples=40, deadline=None)
@given(suffix=st.sampled_from(["zip", "tar", "tar.gz"]), at=st.floats(0, 1), flip=st.integers(0, 255))
def test_no_damage_of_an_archive_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, at: float, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    path = folder / f"a.{suffix}"
    if suffix == "zip":
        zip_with(path, **{"a.jsonl": LOG, "x/b.jsonl": LOG})
    else:
        mode = "w:gz" if suffix == "tar.gz" else "w"
        tar_with(path, (tarfile.TarInfo("a.jsonl"), LOG), (tarfile.TarInfo("x/b.jsonl"), LOG), mode=mode)
    data = bytearray(path.read_bytes())
    place = int(at * (len(data) - 1))
    if flip:
        data[place] ^= flip
    else:
        del data[place:]
    path.write_bytes(bytes(data))
    try:
        runs = load_all(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    whole = [s % 7 + 0.5 for s in range(400)]
    for run in runs:
        if suffix != "tar" and run.scalars["value"].to_list() != whole:  # a plain tar has no checksum of its content
            assert not run.rejects.is_empty(), "numbers were lost or changed without a word"


def test_reading_back_beyond_the_window_unpacks_again_and_keeps_memory_bounded() -> None:
    plain = np.arange(5 * WINDOW // 8, dtype="<u8").tobytes()
    packed = gzip.compress(plain, 1)
    damage: list[str] = []
    file = Unpacked(unpacking(".gz", lambda: io.BytesIO(packed), "a.gz", Limits()), damage.append)
    for start in (0, 4 * WINDOW, 3 * WINDOW, 10, len(plain) - 5, 2 * WINDOW + 1):
        assert file.seek(start) == start
        assert file.read(100) == plain[start : start + 100]
        assert len(file._kept) <= 3 * WINDOW
    assert file.seek(0, io.SEEK_END) == len(plain) and file.read(1) == b""
    assert not damage


def test_a_log_of_which_nothing_unpacks_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(LOG)[:12])
    with pytest.raises(InputError, match="damaged or cut while packed"):
        load(path)


def test_several_gzip_members_in_one_file_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LOG[:6000]) + gzip.compress(LOG[6000:]) + bytes(512))
    run = load(tmp_path / "a.jsonl.gz")
    assert run.scalars.height == 400 and run.rejects.is_empty()


def test_what_stands_in_an_archive_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LOG))
    with pytest.raises(InputError, match="only read"):
        Packed(tmp_path / "a.jsonl.gz").open("wb")
