"""Damage in event files: what is whole is read, what is not is a reject with its offset, by both walkers alike."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c
from tensorboard.util.tensor_util import make_tensor_proto

from parsers.content.crc32c import crc_of, crc_rows
from parsers.content.protobuf import WireError, fields
from parsers.run import Run
from parsers.tensorboard import read
from parsers.tfevents import records as tfrecord
from parsers.tfevents.write import record, scalar_event

EACH_WALKER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_TEXT = Summary.Value(tag="t", tensor=make_tensor_proto("hello", shape=[1]))
_TEXT.metadata.plugin_data.plugin_name = "text"
#: A text, an image, a graph, a number beside a text, a half, a record that is no event, one that is empty.
ODD = (
    Event(wall_time=1.0, step=4, summary=Summary(value=[_TEXT])).SerializeToString(),
    Event(step=5, summary=Summary(value=[Summary.Value(tag="i", image=Summary.Image(height=1))])).SerializeToString(),
    Event(graph_def=b"abc").SerializeToString(),
    Event(step=6, summary=Summary(value=[Summary.Value(tag="n", simple_value=2.0), _TEXT])).SerializeToString(),
    Event(
        summary=Summary(value=[Summary.Value(tag="h", tensor=make_tensor_proto(np.float16(0.5)))])
    ).SerializeToString(),
    b"\xff\xff\xff",
    b"",
)


@pytest.fixture(params=["plain", "compiled"])
def walker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of reading; the compiled one with pieces so small that records lie across their edges."""
    if request.param == "compiled":
        monkeypatch.setattr(tfrecord, "FIRST", 16)
        monkeypatch.setattr(tfrecord, "CHUNK", 40)
    return str(request.param)


def records(count: int) -> list[bytes]:
    return [record(scalar_event(f"t{i % 3}", i / 2, i, 1.7e9 + i)) for i in range(count)]


def reading(folder: Path, data: bytes) -> Run:
    path = folder / "events.out.tfevents.1"
    path.write_bytes(data)
    return read(path)


def steps(run: Run) -> list[int]:
    return sorted(run.scalars["step"].to_list())


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 300, 4096, 100_003])
def test_checksums_are_those_of_the_reference(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc_of(data) == crc32c(data)
    assert crc_rows(np.frombuffer(data, np.uint8), np.array([0]), size).tolist() == [crc32c(data)]


def test_a_file_cut_at_any_byte_gives_every_record_before_the_cut(tmp_path: Path, walker: str) -> None:
    parts = records(5)
    whole = b"".join(parts)
    ends = np.cumsum([len(part) for part in parts])
    for cut in range(1, len(whole)):
        run = reading(tmp_path, whole[:cut])
        before = int(np.searchsorted(ends, cut, side="right"))
        assert steps(run) == list(range(before)), cut
        clean = cut in ends
        assert run.rejects["offset"].to_list() == ([] if clean else [int(ends[before - 1]) if before else 0]), cut
        assert clean or "the file ends inside a record" in run.rejects["reason"][0]


def test_one_flipped_byte_anywhere_costs_one_record_and_is_told_with_its_offset(tmp_path: Path, walker: str) -> None:
    parts = records(5)
    whole = b"".join(parts)
    starts = np.cumsum([0, *(len(part) for part in parts)])
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 + place % 255
        run = reading(tmp_path, bytes(data))
        hit = int(np.searchsorted(starts, place, side="right")) - 1
        assert steps(run) == [i for i in range(5) if i != hit], place
        assert run.rejects["offset"].to_list() == [int(starts[hit])], place
        assert "checksum" in run.rejects["reason"][0]


@EACH_WALKER
@given(
    start=st.integers(1, 600),
    size=st.integers(1, 120),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["drop", "add"]),
)
def test_bytes_lost_or_added_cost_only_the_records_they_touch(
    tmp_path: Path, walker: str, start: int, size: int, seed: int, kind: str
) -> None:
    parts = records(20)
    whole = b"".join(parts)
    ends = np.cumsum([len(part) for part in parts])
    start = min(start, len(whole) - 1)
    if kind == "drop":
        data, last = whole[:start] + whole[start + size :], start + size
    else:
        data, last = whole[:start] + random.Random(seed).randbytes(size) + whole[start:], start
    run = reading(tmp_path, data)
    kept = [i for i in range(20) if ends[i] <= start or ends[i] - len(parts[i]) >= last]
    assert set(kept) <= set(steps(run)) <= set(range(20))
    edges = [0, *ends.tolist()]
    whole_records = kind == "drop" and start in edges and (last in edges or last >= len(whole))
    assert run.rejects.height or whole_records  # that whole records are gone cannot be seen


@EACH_WALKER
@given(data=st.binary(max_size=400), cut=st.integers(0, 200))
def test_any_bytes_are_read_without_a_traceback(tmp_path: Path, walker: str, data: bytes, cut: int) -> None:
    whole = b"".join(records(5))
    run = reading(tmp_path, whole[:cut] + data + whole[cut:] or b"\x00")
    assert run.scalars.height + run.rejects.height > 0


@EACH_WALKER
@given(data=st.binary(max_size=60))
def test_records_that_hold_no_event_are_rejects_though_their_checksums_match(
    tmp_path: Path, walker: str, data: bytes
) -> None:
    before, after = records(2)
    run = reading(tmp_path, before + record(data) + after)
    assert {0, 1} <= set(steps(run))
    try:
        list(fields(data))
    except WireError:
        assert run.rejects["offset"].to_list() == [len(before)]


events = st.one_of(
    st.builds(
        scalar_event,
        st.sampled_from(["a", "b/c", "é", "x" * 130, "", '"<script>\n/']),
        st.floats(width=32),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
    ),
    st.sampled_from(ODD),
    st.builds(
        lambda a, b: a + b[b.index(b"\x2a") :], *[st.sampled_from([scalar_event(t, 1, 3, 9.0) for t in "pq"])] * 2
    ),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(events, min_size=1, max_size=12), chunk=st.integers(1, 200), flip=st.integers(0, 4000))
def test_the_compiled_walk_and_plain_python_read_the_same(
    tmp_path: Path, data: list[bytes], chunk: int, flip: int
) -> None:
    whole = bytearray(b"".join(map(record, data)))
    if flip < len(whole):
        whole[flip] ^= 0x41
    plain = reading(tmp_path, bytes(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecord, "FIRST", 1)
        patch.setattr(tfrecord, "CHUNK", chunk)
        compiled = reading(tmp_path, bytes(whole))
    for ours, other in ((plain.scalars, compiled.scalars), (plain.events, compiled.events)):
        assert ours.equals(other, null_equal=True)
    assert plain.rejects.drop("text").equals(compiled.rejects.drop("text"))  # the excerpt may end with the piece read


def test_a_file_of_nothing_but_zeros_is_one_reject(tmp_path: Path, walker: str) -> None:
    run = reading(tmp_path, bytes(5000))
    assert run.rejects.height == 1 and "5,000 bytes passed over" in run.rejects["reason"][0]


def test_zeros_after_the_last_record_lose_nothing(tmp_path: Path, walker: str) -> None:
    run = reading(tmp_path, b"".join(records(4)) + bytes(300))
    assert steps(run) == [0, 1, 2, 3] and run.rejects.height == 1


def test_a_record_beyond_the_limit_is_passed_over_and_told(
    tmp_path: Path, walker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecord, "FIRST", 200)
    monkeypatch.setattr(tfrecord, "CHUNK", 100)
    monkeypatch.setattr(tfrecord, "LIMIT", 1000)
    before, after = records(2)
    run = reading(tmp_path, before + record(bytes(5000)) + after)
    assert steps(run) == [0, 1]
    assert run.rejects.select("offset", "reason").rows() == [
        (len(before), "a record of 5,000 bytes; records beyond 1,000 bytes are not read")
    ]


def test_rejects_of_a_file_full_of_damage_are_bounded_and_counted(
    tmp_path: Path, walker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecord, "KEPT", 10)
    data = bytearray(b"".join(records(40)))
    size = len(data) // 40
    starts = np.cumsum([0, *(len(part) for part in records(40))])[:-1]
    for start in starts[:-1].tolist():
        data[start + 20] ^= 1
    run = reading(tmp_path, bytes(data))
    assert size > 20 and run.rejects.height == 11
    assert run.rejects["reason"][10] == "29 more damaged records" and steps(run) == [39]


def test_an_empty_file_of_a_run_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.2").write_bytes(b"")
    (tmp_path / "events.out.tfevents.1").write_bytes(b"".join(records(3)))
    run = read(tmp_path)
    assert run.scalars.height == 3 and run.rejects["reason"].to_list() == ["the file is empty"]


def test_many_values_in_one_record_outgrow_the_room_of_the_compiled_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parsers.tfevents import fast as tfevents_fast

    monkeypatch.setattr(tfrecord, "FIRST", 1)
    monkeypatch.setattr(tfevents_fast, "ROOM", 2)
    monkeypatch.setattr(tfevents_fast, "ODD", 1)
    one = scalar_event("many", 2.0, 0, 1.7e9)
    value = one[one.index(b"\x2a") + 2 :]
    body = value * 9
    many = one[:9] + b"\x2a" + bytes([len(body) & 127 | 128, len(body) >> 7]) + body
    run = reading(tmp_path, b"".join([record(many), *map(record, ODD[1:3] * 3), record(many), *records(6)]))
    assert run.scalars.filter(pl.col("tag") == "many").height == 18 and run.scalars.height == 24
    assert run.rejects.is_empty()


def test_ten_thousand_tags_are_told_apart_by_both_walkers(tmp_path: Path, walker: str) -> None:
    data = b"".join(record(scalar_event(f"tag/{i}", i, 7, 1.7e9)) for i in range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecord, "CHUNK", 1 << 20)
        run = reading(tmp_path, data)
    assert run.catalogue.height == 10_000
    assert run.scalars.filter(pl.col("tag") == "tag/9999")["value"].to_list() == [9999.0]
