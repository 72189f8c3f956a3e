"""What was logged is what a strict JSON reader finds in the lines, and what pyarrow finds after sealing."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.recorder import Recorder
from eventstream.records import decode_number, encode_numbers, strict_number

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.one_of(
    st.floats(),
    st.integers(-(2**53), 2**53),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]),
    st.none(),
)
RECORDS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.dictionaries(NAMES, VALUES, max_size=5),
        st.sampled_from(["", "train", "eval", 'a "quoted"\n/split']),
    ),
    max_size=6,
)


def expected_series(records):
    series = {}
    for step, values, split in records:
        for name, value in values.items():
            if value is not None:
                series.setdefault((name, split), []).append((step, float(value)))
    return series


@settings(max_examples=120, deadline=None, database=None, derandomize=True)
@given(records=RECORDS)
def test_lines_hold_every_number_under_any_name(records, lines_of, series_of, equal):
    with tempfile.TemporaryDirectory() as name:
        with Recorder(name, seal=False) as rec:
            for step, values, split in records:
                rec.log(step, values, split=split)
        assert rec.lost == 0
        found = lines_of(Path(name))
        assert equal(series_of(found), expected_series(records))
        assert found[-1]["payload"] == {"status": "finished"}


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(records=RECORDS)
def test_a_sealed_segment_holds_the_same_numbers(records, sealed_series_of, equal):
    with tempfile.TemporaryDirectory() as name:
        with Recorder(name) as rec:
            for step, values, split in records:
                rec.log(step, values, split=split)
        assert [path.suffix for path in sorted(Path(name).glob("rank*"))] == [".parquet"]
        assert equal(sealed_series_of(Path(name)), expected_series(records))


JSON_LIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(payload=JSON_LIKE)
def test_any_payload_survives_as_strict_json_and_sealed(payload, lines_of, rows_of):
    expected = encode_numbers(payload)
    with tempfile.TemporaryDirectory() as name:
        with Recorder(name) as rec:
            rec.event("odd", payload, step=1)
            assert lines_of(Path(name))[0]["payload"] == expected
        rows = [row for row in rows_of(Path(name)) if row["kind"] == "odd"]
        assert [json.loads(row["payload"]) for row in rows] == [expected]


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(value=st.floats())
def test_a_float_decodes_to_itself(value, equal):
    text = json.dumps(encode_numbers(value), allow_nan=False)
    assert equal(decode_number(json.loads(text)), value)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(value=st.one_of(VALUES, st.booleans(), NAMES, st.sampled_from([np.float64("nan"), np.float64(0.5), "NaN"])))
def test_one_plain_value_is_written_as_it_is_inside_a_payload(value):
    assert json.dumps(strict_number(value), allow_nan=False) == json.dumps(encode_numbers(value), allow_nan=False)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(records=RECORDS)
def test_the_standard_library_writes_what_orjson_writes(records, lines_of, series_of, equal):
    from eventstream.lines import standard_dumps

    with tempfile.TemporaryDirectory() as name:
        with Recorder(name, seal=False) as rec:
            rec._dumps = standard_dumps
            for step, values, split in records:
                rec.log(step, values, split=split)
        assert rec.lost == 0
        assert equal(series_of(lines_of(Path(name))), expected_series(records))
