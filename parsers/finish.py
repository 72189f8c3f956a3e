"""The one funnel at the end of every parser: names split, columns cast, order checked, rejects kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from eventstream.values import plain_text
from parsers.naming.names import resolve
from parsers.run import Run
from parsers.schema import EVENTS, REJECTS, SCALARS
from parsers.tables.constants import constant

__all__ = ["Reject", "finish"]

#: Longest excerpt of a rejected line that is kept: enough to recognise it, bounded against a 100 MB line.
EXCERPT = 200
#: Up to so many rows names are looked up in a loop before Polars has planned its queries.
_FEW = 2000
#: What stands in a column that the format does not know; in all others nothing does.
_DEFAULT: dict[str, Any] = {"rank": 0, "attempt": 0, "split": ""}
_NO_SCALARS, _NO_EVENTS, _NO_REJECTS = SCALARS.to_frame(), EVENTS.to_frame(), REJECTS.to_frame()


@dataclass(frozen=True, slots=True)
class Reject:
    """A piece of input that could not be read: `line` counts from 1, `offset` in bytes; `text` is cut to `EXCERPT`."""

    file: str
    reason: str
    line: int | None = None
    offset: int | None = None
    text: str = ""


def finish(
    name: str,
    path: str,
    format: str,
    scalars: pl.DataFrame | pl.LazyFrame | None = None,
    *,
    events: pl.DataFrame | None = None,
    rejects: Iterable[Reject] = (),
    config: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    whole: Callable[[], pl.DataFrame] | None = None,
    final_attempt: int | None = None,
    ready: bool = False,
) -> Run:
    """The `Run` made of what a parser found.

    `scalars` needs `tag` and `value`; of the other columns of `SCALARS` what is missing is filled: `split` and
    `metric` from the tag (a split that a record names counts), rank and attempt 0, the rest null. An eager frame whose
    series are scattered is grouped by rank, attempt, split and tag, the order inside each series as it came; a lazy
    frame is trusted to have its series together already, and `whole` may give all of it in the columns of `SCALARS`
    with less copying. `events` needs `kind` and `payload`. Names and paths that UTF-8 cannot hold (file names of other
    systems) have what it cannot hold as escapes, and of a path a reject says so.

    >>> run = finish("a", "a.csv", "csv", pl.DataFrame({"tag": ["eval_loss"], "step": [5], "value": [0.5]}))
    >>> run.scalars.select("split", "metric", "step", "value").row(0)
    ('eval', 'loss', 5, 0.5)
    """
    rejects, known = [*rejects], plain_text(path)
    if known != path:
        rejects.append(Reject(known, "the path holds bytes that are not UTF-8; they are shown as escapes"))
    name = plain_text(name)  # no table can hold half a surrogate pair, as which Python reads bytes that are not UTF-8
    table, source = None, scalars
    if isinstance(scalars, pl.LazyFrame):
        source = _complete(scalars, name)
    else:
        table = _NO_SCALARS.clone() if scalars is None else scalars
        table = table if ready or scalars is None else _grouped(_completed(table, name))
        source = table.lazy()
    run = Run(
        name=name,
        path=known,
        format=format,
        source=source,
        events=_NO_EVENTS.clone() if events is None else _filled(events, EVENTS, name),
        rejects=_reject_frame(rejects),
        config=dict(config or {}),
        plan=dict(plan or {}),
        whole=whole,
        final_attempt=final_attempt,
    )
    if table is not None:
        run.__dict__["scalars"] = table  # at hand: nothing is left to collect
    return run


def _reject_frame(rejects: list[Reject]) -> pl.DataFrame:
    if not rejects:
        return _NO_REJECTS.clone()
    rows = [(plain_text(r.file), r.line, r.offset, plain_text(r.reason), plain_text(r.text[:EXCERPT])) for r in rejects]
    return pl.DataFrame(rows, schema=REJECTS, orient="row")


def _complete(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    have = frame.collect_schema().names()
    if "metric" in have:
        return _fill(frame, SCALARS, name)
    given = ["tag", "split"] if "split" in have else ["tag"]
    pairs = frame.select(pl.col(given).cast(pl.String)).unique().collect()
    names = [resolve(*(row if "split" in have else (*row, ""))) for row in pairs.iter_rows()]
    own, metric = (pl.Series(column, [n[i] for n in names], pl.String) for i, column in enumerate(("_own", "metric")))
    joined = frame.with_columns(pl.col(given).cast(pl.String)).join(
        pairs.with_columns(own, metric).lazy(), on=given, how="left", nulls_equal=True, maintain_order="left"
    )
    return _fill(joined.with_columns(split=pl.col("_own")), SCALARS, name)


def _completed(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """As `_complete`, of a table in memory; a short one without a query, whose plan costs more than its work."""
    if table.height > _FEW:
        return _complete(table.lazy(), name).collect()
    if "metric" not in table.columns:
        tags = table["tag"].cast(pl.String)
        given = table["split"].cast(pl.String).to_list() if "split" in table.columns else [""] * len(tags)
        pairs = list(zip(tags.to_list(), given, strict=True))
        names = {pair: resolve(*pair) for pair in dict.fromkeys(pairs)}
        own, metric = ([names[pair][i] for pair in pairs] for i in range(2))
        made = (tags, pl.Series("split", own, pl.String), pl.Series("metric", metric, pl.String))
        table = table.with_columns(*made)
    return _filled(table.rechunk(), SCALARS, name)


def _fill(frame: pl.LazyFrame, schema: pl.Schema, name: str) -> pl.LazyFrame:
    have = frame.collect_schema()
    default = {**_DEFAULT, "run": name}
    columns = []
    for column, dtype in schema.items():
        if column not in have or column == "run":
            columns.append(pl.lit(default.get(column), dtype=dtype).alias(column))
        elif have[column] != dtype:
            columns.append(pl.col(column).cast(dtype))
        else:
            columns.append(pl.col(column))
    return frame.select(columns)


def _filled(frame: pl.DataFrame, schema: pl.Schema, name: str) -> pl.DataFrame:
    """As `_fill` of a table in memory: column by column, which costs a small one a tenth of a query."""
    default = {**_DEFAULT, "run": name}
    columns = []
    for column, dtype in schema.items():
        if column not in frame.columns or column == "run":
            columns.append(constant(column, dtype, default.get(column), frame.height))
        else:
            columns.append(frame[column].cast(dtype))
    return pl.DataFrame(columns)


def _grouped(scalars: pl.DataFrame) -> pl.DataFrame:
    key = ["rank", "attempt", "split", "tag"]
    starts, series = scalars.select(
        pl.any_horizontal([pl.col(c).ne_missing(pl.col(c).shift()) for c in key]).sum().alias("starts"),
        pl.struct(key).n_unique().alias("series"),
    ).row(0)
    if starts <= series:
        return scalars
    return scalars.sort(key, maintain_order=True)
