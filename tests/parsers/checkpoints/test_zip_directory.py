"""The directory of a zip, held against Python's zipfile, and walked where the directory is gone."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.checkpoints.zip_directory import directory, unpacked

ENTRIES = st.dictionaries(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\\"), min_size=1, max_size=12),
    st.tuples(st.binary(max_size=300), st.booleans(), st.booleans()),
    max_size=6,
)


def packed(entries: dict[str, tuple[bytes, bool, bool]], comment: bytes = b"", before: bytes = b"") -> bytes:
    """An archive of these entries: content, whether it is packed, whether its lengths have 64 bits."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, (content, small, wide) in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=wide) as opened:
                opened.write(content)
        archive.comment = comment
    return before + held.getvalue()


@settings(max_examples=100, deadline=None)
@given(entries=ENTRIES, comment=st.binary(max_size=40), before=st.binary(max_size=40))
def test_entries_are_those_of_zipfile(
    entries: dict[str, tuple[bytes, bool, bool]], comment: bytes, before: bytes
) -> None:
    raw = packed(entries, comment.replace(b"PK", b"kp"), before.replace(b"PK", b"kp"))
    found = directory(raw)
    assert not found.damage
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        there = {entry.filename: entry for entry in archive.infolist()}
        assert [entry.name for entry in found.entries] == list(there)
        for entry in found.entries:
            assert (entry.size, entry.nbytes) == (there[entry.name].compress_size, there[entry.name].file_size)
            assert unpacked(raw, entry, 1 << 20) == archive.read(entry.name)
            assert entry.crc == there[entry.name].CRC


@settings(max_examples=60, deadline=None)
@given(entries=ENTRIES)
def test_without_the_directory_the_same_entries_are_found_by_walking(
    entries: dict[str, tuple[bytes, bool, bool]],
) -> None:
    entries = {name: (content.replace(b"PK", b"kp"), *how) for name, (content, *how) in entries.items()}
    raw = packed(entries)
    at = raw.find(b"PK\x01\x02")
    found = directory(raw[: max(at, 0)])
    assert "no end record" in found.damage[0][1]
    assert {entry.name: unpacked(raw, entry, 1 << 20) for entry in found.entries} == {
        name: content for name, (content, *_) in entries.items()
    }


def test_streamed_entries_are_found_by_what_stands_behind_their_data() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError("a pipe has no place")

    held = Stream()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a/data.pkl", b"12345")
        archive.writestr("a/data/0", b"PK\x07\x08" * 5)
    raw = held.getvalue()
    found = directory(raw[: raw.index(b"PK\x01\x02")])
    assert [(entry.name, unpacked(raw, entry, 100)) for entry in found.entries] == [
        ("a/data.pkl", b"12345"),
        ("a/data/0", b"PK\x07\x08" * 5),
    ]


def test_one_entry_under_two_names_overlaps() -> None:
    raw = bytearray(packed({"aa": (b"12345", False, False), "bb": (b"67890", False, False)}))
    second = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<L", raw, second + 42, 0)
    raw[second + 46 : second + 48] = b"aa"
    found = directory(bytes(raw))
    assert found.damage == (("byte 0", "entry 'aa' overlaps entry 'aa'"),)


@pytest.mark.parametrize("method", [12, 14, 93])
def test_methods_that_torch_does_not_write_are_told(method: int) -> None:
    raw = bytearray(packed({"aa": (b"12345", False, False)}))
    struct.pack_into("<H", raw, raw.index(b"PK\x01\x02") + 10, method)
    ((_, why),) = directory(bytes(raw)).damage
    assert why == f"entry 'aa' is packed by method {method}, which torch does not write"


@given(raw=st.binary(max_size=200), start=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06"]))
def test_any_bytes_end_in_a_result(raw: bytes, start: bytes) -> None:
    for entry in directory(start + raw).entries:
        unpacked(start + raw, entry, 1000)


def test_a_directory_that_lists_too_few_is_walked_instead() -> None:
    raw = bytearray(packed({"aa": (b"12345", False, False), "bb": (b"67890", False, False)}))
    struct.pack_into("<HH", raw, raw.rindex(b"PK\x05\x06") + 8, 3, 3)
    found = directory(bytes(raw))
    assert [entry.name for entry in found.entries] == ["aa", "bb"]
    assert "lists 2 entries and says that they are 3" in found.damage[0][1]
