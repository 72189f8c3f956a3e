"""One line of JSON: whatever orjson reads at once is what Python's json reads patiently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.content.jsontext import parse_line, plain_pairs

_NUMBERS = st.integers() | st.integers(2**63 - 2, 2**64 + 2) | st.integers(-(2**64), -(2**63) + 2) | st.floats()
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(max_size=5) | st.sampled_from(['"', '":', ":", "\\", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", 'a"', 'b":']), inner),
    max_leaves=12,
)


def obvious(text: str) -> Any:
    return json.loads(text, object_pairs_hook=plain_pairs)


@given(st.dictionaries(st.sampled_from(["a", "b", "values"]), _VALUES), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_every_object_is_read_as_json_reads_it_at_any_depth(
    record: dict[str, Any], separators: tuple[str, str]
) -> None:
    text = json.dumps(record, separators=separators)
    found, note = parse_line(text.encode())
    assert note == ""
    assert repr(found) == repr(obvious(text))  # NaN is not equal to itself, and 1 is to 1.0


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"metrics","values":{"loss":1,"loss":2}}',
        b'{"a":[{"loss":1,"loss":2}]}',
        b'{"a":{"b":{}},"loss":1,"loss":2}',
        b'{"a":{"x\\":":1},"loss":1,"loss":2}',
        b'{"a" :1,"loss":1,"loss":2}',
        b'{"a"\t:1,"loss":1,"loss":2}',
        b'{"a":":\\"","loss":1,"loss":2}',
    ],
)
def test_a_key_that_stands_twice_is_told_at_any_depth(line: bytes) -> None:
    found, note = parse_line(line)
    assert note == "key 'loss' stands twice; the last value counts"
    assert found == obvious(line.decode())


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**64 - 1, 2**64, 10**30, -(10**30), 10**350])
def test_no_digit_of_an_integer_inside_a_record_is_lost(number: int) -> None:
    assert parse_line(b'{"values":{"n":%d},"list":[[%d]]}' % (number, number))[0] == {
        "values": {"n": number},
        "list": [[number]],
    }


def test_what_is_nested_as_deeply_as_python_cannot_call_is_read_or_refused_in_words() -> None:
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    found, _ = parse_line(deep)
    for _ in range(900):
        found = found["a"]
    assert found == 1
