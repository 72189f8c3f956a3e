"""The machine for pickles: plain data come out as Python's own unpickler has them, and no bytes can exhaust it."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import pathlib
import pickle
import re
import tracemalloc
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.checkpoints.inert_objects import Record
from parsers.checkpoints.inert_pickle import Unpickled, unpickle
from parsers.checkpoints.pickled_tree import flattened
from parsers.checkpoints.torch_objects import TORCH

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=200)
    | st.complex_numbers()
)
KEYS = (
    st.integers(-(2**59), 2**59)
    | st.text(max_size=9)
    | st.booleans()
    | st.tuples(st.text(max_size=2), st.integers(0, 9))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner, inner)
        | st.dictionaries(KEYS, inner)
        | st.sets(st.integers(-100, 100))
        | st.frozensets(st.text(max_size=3))
        | st.dictionaries(KEYS, inner).map(collections.OrderedDict)
    ),
    max_leaves=20,
)


def read(raw: bytes) -> Unpickled:
    return unpickle(raw, file=Path("a.pkl"), builders=TORCH)


def broken(raw: bytes) -> str:
    got = read(raw)
    assert not got.whole
    return got.damage[-1].reason


@settings(max_examples=150, deadline=None)
@given(value=VALUES, protocol=st.integers(0, 5))
def test_plain_data_are_what_python_makes_of_them(value: Any, protocol: int) -> None:
    raw = pickle.dumps(value, protocol=protocol)
    got = read(raw)
    assert got.whole and not got.calls and not got.damage
    assert got.end == len(raw)
    assert _same(got.value, pickle.loads(raw))


def _same(one: Any, other: Any) -> bool:
    """Equal, with NaN as its own equal, and any mapping as another."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other or repr(one) == repr(other)


def test_one_list_at_two_places_is_one_list() -> None:
    inner = [1]
    got = read(pickle.dumps({"a": inner, "b": inner}))
    assert got.value["a"] is got.value["b"]


def test_objects_of_known_data_classes_become_records_and_are_not_listed() -> None:
    value = {
        "args": argparse.Namespace(lr=0.1, name="a"),
        "space": types.SimpleNamespace(depth=3),
        "path": pathlib.PurePosixPath("/runs/a"),
        "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "queue": collections.deque([1, 2], maxlen=3),
        "counts": collections.Counter("aab"),
        "default": collections.defaultdict(list, {"x": [1.5]}),
        "bytes": bytearray(b"abc"),
    }
    for protocol in range(2, 6):
        got = read(pickle.dumps(value, protocol=protocol))
        assert not got.calls and not got.damage
        assert flattened(got.value).values == {
            "args.lr": 0.1,
            "args.name": "a",
            "space.depth": 3,
            "path": "/runs/a",
            "queue.0": 1,
            "queue.1": 2,
            "counts.a": 2,
            "counts.b": 1,
            "default.x.0": 1.5,
        }


class Settings:
    """An object of a class that only this test has."""

    def __init__(self) -> None:
        self.lr, self.layers = 0.1, [2, 3]


def test_an_object_of_an_unknown_class_is_read_by_its_attributes_and_listed_once() -> None:
    got = read(pickle.dumps({"one": Settings(), "two": Settings()}))
    assert flattened(got.value).values["two.layers.1"] == 3
    (call,) = got.calls
    assert call.name.endswith("test_inert_pickle.Settings")
    assert call.risk == "unknown"


class Outer:
    class Inner:
        """A class within a class, which protocols before 4 spell as `getattr(Outer, "Inner")`."""

        def __init__(self) -> None:
            self.lr = 0.5


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_class_within_a_class_is_unknown_and_not_dangerous(protocol: int) -> None:
    got = read(pickle.dumps(Outer.Inner(), protocol=protocol))
    (call,) = [call for call in got.calls if call.arguments]
    assert call.name.endswith("test_inert_pickle.Outer.Inner")
    assert {call.risk for call in got.calls} == {"unknown"}
    assert flattened(got.value).values == {"lr": 0.5}


@pytest.mark.parametrize(
    ("owner", "name"),
    [("os", "path"), ("my.models", "__globals__"), ("my.models", "system"), ("my.models", "a.b"), ("builtins", "eval")],
)
def test_an_attribute_that_leads_elsewhere_is_dangerous(owner: str, name: str) -> None:
    module, _, last = owner.rpartition(".")
    text = b"X" + len(name).to_bytes(4, "little") + name.encode()
    got = read(b"cbuiltins\ngetattr\n(c" + (module or owner).encode() + b"\n" + last.encode() + b"\n" + text + b"tR.")
    assert "dangerous" in {call.risk for call in got.calls}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no end of the pickle"),
        (b"\x80\x02]q\x00", "no end of the pickle: cut off"),
        (b"\x80\x09N.", "protocol 9 of pickle; 5 is the newest"),
        (b"\x80\x04X\xff\xff\xff\x7fabc.", r"2,147,483,647 bytes are announced and 4 are left: cut off"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", r"9,223,372,036,854,775,807 bytes are announced"),
        (b"\x80\x04\x8b\xff\xff\xff\x7f.", r"2,147,483,647 bytes are announced"),
        (b"\x80\x04\x8b\xff\xff\xff\xff.", r"an integer of -1 bytes"),
        (b"\x80\x02j\xff\xff\xff\xff.", r"entry 4294967295 of the memo was never made"),
        (b"\x80\x02t.", "a mark is wanted"),
        (b"\x80\x02R.", "the stack is empty"),
        (b"\x80\x02.", "the stack is empty"),
        (b"\x80\x02\x07.", "byte 0x07 is no opcode"),
        (b"I12", "a line has no end"),
        (b"Iabc\n.", "b'abc' is no integer"),
        (b"Fabc\n.", "b'abc' is no number"),
        (b"Sabc\n.", "a text without its quotes"),
        (b"\x80\x02X\x02\x00\x00\x00\xff\xff.", "a text is not UTF-8"),
        (b"\x80\x02K\x01K\x02a.", "items are appended to a int"),
        (b"\x80\x02K\x01K\x02K\x03s.", "items are set in a int"),
        (b"\x80\x04K\x01K\x02\x93.", "a global whose name is no text"),
    ],
)
def test_claims_that_the_bytes_do_not_bear_out_are_told(raw: bytes, reason: str) -> None:
    assert re.match(reason, broken(raw))


def test_a_memo_entry_far_beyond_all_others_costs_nothing() -> None:
    tracemalloc.start()
    got = read(b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff.")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.whole and got.value is None
    assert peak < 1_000_000


def test_an_extension_code_is_listed_and_not_looked_up() -> None:
    got = read(b"\x80\x02\x82\x05)R.")
    assert [(call.name, call.risk) for call in got.calls] == [("copyreg.extension_5", "unknown")]


@pytest.mark.parametrize("opcode", [b"]", b"(", b"}"])
def test_nesting_of_a_million_levels_ends_in_a_result(opcode: bytes) -> None:
    if opcode == b"]":
        raw = b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."
    elif opcode == b"(":
        raw = b"\x80\x02N" + b"\x85" * 300_000 + b"."
    else:
        raw = b"\x80\x02}" + b"K\x01}" * 100_000 + b"s" * 100_000 + b"."
    got = read(raw)
    assert got.whole
    tree = flattened(got.value)
    assert tree.trouble and "nested deeper than 64 levels" in tree.trouble[0]


def test_a_deep_tuple_as_a_key_is_not_hashed() -> None:
    got = read(b"\x80\x02}N" + b"\x85" * 300_000 + b"K\x01s.")
    (key,) = got.value
    assert isinstance(key, Record)


def test_a_list_that_holds_itself_is_walked_once() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert flattened(read(pickle.dumps(loop)).value).values == {"0": 1}


def test_lists_of_lists_of_one_list_end_after_a_million_places() -> None:
    """Ten levels of ten references are ten thousand million leaves in a file of 300 bytes."""
    inner: Any = [0]
    for _ in range(10):
        inner = [inner] * 10
    tree = flattened(read(pickle.dumps(inner)).value)
    assert "more than 1,000,000 places" in tree.trouble[0]
    assert len(tree.values) == 100_000


def test_many_tensors_of_one_name_are_numbered_without_a_search() -> None:
    """Attributes that are left out of names, in objects that name one another: a million tensors called `w`."""
    tensor = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n)NNtRq\x000"
    raw = b"\x80\x02" + tensor + b"h\x00q\x01"
    for _ in range(16):
        raw += b"0cm\nC\n)R}(X\x08\x00\x00\x00_modulesh\x01X\x08\x00\x00\x00_buffersh\x01ubq\x01"
    tree = flattened(read(raw + b".").value, "w")
    assert len(tree.tensors) == 2**16
    assert list(tree.tensors)[-1] == f"w#{2**16}"


def test_copies_of_one_text_by_a_million_calls_are_stopped() -> None:
    text = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000
    raw = b"\x80\x02c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x020"
    raw += b"0h\x00h\x01h\x02\x86R" * 10_000 + b"."
    tracemalloc.start()
    reason = broken(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "calls copy far more than the pickle holds" in reason
    assert peak < 10_000_000


def test_integers_that_collide_as_keys_do_not_slow_the_reading() -> None:
    modulus = (1 << 61) - 1
    keys = {modulus * n: 0 for n in range(1, 2000)}
    got = read(pickle.dumps(keys))
    assert got.whole
    assert all(isinstance(key, str) for key in got.value)


def test_a_huge_integer_is_a_record_and_not_decoded() -> None:
    assert isinstance(read(pickle.dumps(1 << 100_000)).value, Record)


def test_a_bytearray_of_a_claimed_length_is_not_made() -> None:
    got = read(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.")
    assert got.whole and not got.damage
    assert isinstance(got.value, Record)


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=120), start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"\x80\x02}(", b"(lp0\n"]))
def test_any_bytes_end_in_a_result(raw: bytes, start: bytes) -> None:
    got = read(start + raw)
    assert got.end <= len(start + raw)
    assert got.whole or got.damage
    flattened(got.value)
