"""Small logs take plain loops where large ones take queries: both have to say the same."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.finish import finish
from parsers.schema import SCALARS
from parsers.tables import assemble
from parsers.tables.assemble import Pieces, completed
from parsers.tables.catalogue import catalogue_of, short_catalogue
from parsers.tables.slices import KEYS, Source, lazy_slices, short_slices

NUMBER = st.sampled_from([0.5, float("nan"), float("inf"), -0.0, 7.0])
STEP = st.one_of(st.none(), st.integers(0, 12), st.sampled_from([-(2**63), 2**63 - 1]))
INDEX = st.tuples(
    st.integers(0, 20), st.integers(0, 2), st.integers(0, 1), STEP, st.sampled_from([None, 0.5]),
    st.sampled_from([None, 1_700_000_000_000_000]), st.sampled_from(["", "val", "eval", "train"]),
)  # fmt: skip
ROWS = st.lists(st.tuples(INDEX, st.sampled_from(["loss", "eval_loss", "a/é"]), NUMBER, st.booleans()), max_size=40)


def table_of(rows: list[tuple[tuple[object, ...], str, float, bool]], few: int) -> tuple[pl.DataFrame, set[str], str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(assemble, "FEW", few)
        pieces = Pieces()
        for index, tag, value, named in rows:
            pieces.add_row(index, tag, value, named=named)
        opened = pieces.find_attempts()
        return pieces.table("run"), pieces.tags(), str(opened)


@given(ROWS)
def test_few_rows_make_the_table_that_queries_make(rows: list[tuple[tuple[object, ...], str, float, bool]]) -> None:
    plain, tags, opened = table_of(rows, 1000)
    queried, same_tags, same_opened = table_of(rows, -1)
    assert plain.schema == SCALARS
    assert plain.equals(queried)
    assert (tags, opened) == (same_tags, same_opened)


@given(ROWS)
def test_the_catalogue_of_a_short_table_is_the_one_of_the_query(
    rows: list[tuple[tuple[object, ...], str, float, bool]],
) -> None:
    table, _, _ = table_of(rows, 1000)
    short = short_catalogue(table)
    assert short is not None
    assert short.equals(catalogue_of(table.lazy()).collect())
    assert short.schema == catalogue_of(table.lazy()).collect_schema()


def test_values_that_are_missing_are_not_counted_as_not_finite() -> None:
    table = finish("a", "a", "a", pl.DataFrame({"tag": ["x"] * 3, "value": [None, float("nan"), 1.0]})).scalars
    short = short_catalogue(table)
    assert short is not None
    assert short.equals(catalogue_of(table.lazy()).collect())
    assert short["non_finite"].to_list() == [1]


def test_a_long_table_is_left_to_the_query() -> None:
    rows = pl.DataFrame({"tag": ["x"] * 1001, "value": [1.0] * 1001})
    assert short_catalogue(finish("a", "a", "a", rows).scalars) is None


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 1), st.integers(0, 9), st.integers(0, 5))))
def test_slices_put_together_at_once_are_those_of_the_lazy_table(slices: list[tuple[str, int, int, int]]) -> None:
    frames = [
        pl.DataFrame({"step": range(n), "time": [n] * n, "value": [0.5 * i for i in range(n)]}).with_columns(
            pl.col("step").cast(pl.Int64), pl.col("time").cast(SCALARS["time"])
        )
        for n in (15, 20)
    ]

    def source(frame: pl.DataFrame) -> Source:
        def read(columns: list[str], offset: int, length: int) -> pl.DataFrame:
            there = [name for name in columns if name in frame.columns] or ["value"]
            return frame.slice(offset, length).select(there)

        return Source(frame.height, read)

    rows = [("r", 0, 0, "", tag, tag, place, offset, length) for tag, place, offset, length in slices]
    keys = pl.DataFrame(rows, schema=KEYS, orient="row")
    sources = [source(frame) for frame in frames]
    short = short_slices(keys, sources)
    assert short is not None
    lazy = lazy_slices(keys, sources).collect() if rows else SCALARS.to_frame()
    assert short.equals(lazy)


def test_an_index_that_says_little_is_completed_with_what_records_have_that_say_nothing() -> None:
    assert completed(pl.DataFrame({"order": [3], "rank": [2]})).row(0) == (3, 2, 0, None, None, None, "")


@pytest.mark.parametrize("keyed", [False, True])
def test_many_short_series_at_once_are_the_table_of_one_after_the_other(keyed: bool) -> None:
    """Two wide tables with gaps, and rows told one by one: of a series of theirs and of one of their own."""
    names = [f"{'eval/' if k % 5 == 0 else ''}m{k}é" for k in range(60)]

    def table(series: int) -> pl.DataFrame:
        pieces = Pieces()
        for part in range(2):
            places = range(10 * part, 10 * part + 9)
            index = {"order": places, "step": places, "split": [("train", "", "eval")[i % 3] for i in places]}
            values = {tag: [None if (i + k) % 4 == 1 else i / 7 + k for i in places] for k, tag in enumerate(names)}
            kept = index if keyed else {name: index[name] for name in ("order", "step")}
            pieces.add_wide(pl.DataFrame(kept), pl.DataFrame(values))
        pieces.add_row((30, 0, 0, 3, 0.5, 1_000_000, ""), names[3], 1.5)
        pieces.add_row((31, 1, 0, 4, None, None, "eval"), "other", 2.5)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(assemble, "SHORT_SERIES", series)
            return pieces.table("run")

    found = table(series=59)
    assert found.height == 2 + 2 * 9 * 60 * 3 // 4 and found.schema == SCALARS
    assert found.equals(table(series=60))
