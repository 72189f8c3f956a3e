"""What payloads of events say, also where a foreign writer sealed something else than a JSON object."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.tables.events import payload_object, payload_text

Values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\"\\é", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
#: What a payload may be that is no object: absent, empty, text, cut, another value, and what strict JSON has not.
DAMAGED = (None, "", "CUDA out of memory", '{"phase": "warm", "decimals":', "[1]", '"text"', "1", '{"phase":NaN}')


@given(st.dictionaries(st.text('ab"\\é', max_size=3), Values, max_size=4))
def test_an_object_reads_as_it_was_written(payload: dict[str, Any]) -> None:
    assert payload_object(payload_text(payload)) == payload


@given(st.one_of(st.none(), st.text(max_size=20), Values.map(json.dumps), st.sampled_from(DAMAGED)))
def test_any_text_is_read_as_its_object_or_as_none(text: str | None) -> None:
    try:
        plain = json.loads(text or "null", parse_constant=lambda name: pytest.fail(name))
    except json.JSONDecodeError:
        plain = None
    except pytest.fail.Exception:
        plain = None  # NaN and infinities are strings in strict JSON
    assert payload_object(text) == (plain if isinstance(plain, dict) else {})


def test_an_integer_of_more_than_64_bits_is_read_as_a_float() -> None:
    assert payload_object(payload_text({"seed": 2**70})) == {"seed": float(2**70)}
