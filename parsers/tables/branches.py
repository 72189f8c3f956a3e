"""Which rows of a resumed run are live, and which stand on a branch that a later attempt trained again."""

from __future__ import annotations

import polars as pl

__all__ = ["ATTEMPTS", "attempts_of", "branches", "live_branch"]

_ATTEMPTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "rank": pl.Int32,
    "attempt": pl.Int32,
    "begin": pl.Int64,
    "cut": pl.Int64,
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "started": pl.Datetime("us", "UTC"),
    "ended": pl.Datetime("us", "UTC"),
    "records": pl.Int64,
}
#: One row a rank and attempt. `begin` is the step at which its training began (null for one that only evaluated what
#: an earlier one trained), `cut` the one from which on a later attempt trained again (null where none did): its rows
#: from there on are dead. `records` counts all its numbers.
ATTEMPTS = pl.Schema(_ATTEMPTS)
_WRITER = ["rank", "attempt"]
#: Numbers without a split that an evaluation writes too: they tell of the process, or count.
_NO_TRAINING = r"^(?:resources/.*|epoch|global_step|step|hp_metric)$"


def attempts_of(rows: pl.LazyFrame, *, together: bool = False) -> pl.DataFrame:
    """The attempts of a run (`ATTEMPTS`) out of its scalars.

    An attempt begins where most of its numbers do: the median over its series of their first steps, each weighed by
    its rows, those counted that an earlier attempt has too. A series that every start writes at step 0 (a
    hyper-parameter metric) and one that comes late (an evaluation) do not move it. An attempt that wrote nothing of a
    training while an earlier one did (a finished run is evaluated by another process) has no `begin` and cuts nothing.

    `together` says that all ranks are started together, as in an event stream: a rank that has no part in a later
    attempt, of which all ranks that have one began after its last record, was left out then (fewer processes), and its
    rows are dead from where that attempt began.

    >>> rows = {"rank": [0] * 4, "attempt": [0, 0, 1, 1], "step": [1, 5, 4, 6], "split": [""] * 4, "tag": ["loss"] * 4}
    >>> found = attempts_of(pl.LazyFrame(rows).with_columns(time=pl.lit(None, pl.Datetime("us", "UTC"))))
    >>> found.select("attempt", "begin", "cut", "last_step").rows()
    [(0, 1, 4, 5), (1, 4, None, 6)]
    """
    step, time = pl.col("step"), pl.col("time")
    per = (
        rows.group_by(*_WRITER, "split", "tag")
        .agg(
            step.min().alias("first"),
            step.max().alias("last"),
            step.count().alias("weight"),
            pl.len().alias("records"),
            time.min().alias("started"),
            time.max().alias("ended"),
        )
        .collect()
    )
    earlier = pl.col("attempt") > pl.col("attempt").min().over("rank", "split", "tag")
    told = per.filter(pl.col("first").is_not_null()).with_columns(shared=earlier)
    told = told.filter(pl.col("shared") | ~pl.col("shared").any().over(_WRITER)).sort(*_WRITER, "first")
    half = pl.col("weight").cum_sum().over(_WRITER) * 2 >= pl.col("weight").sum().over(_WRITER)
    begins = told.filter(half).group_by(_WRITER).agg(pl.col("first").first().alias("begin"))
    begins = begins.join(_evaluating(per), on=_WRITER, how="anti")
    table = per.group_by(_WRITER).agg(
        pl.col("first").min().alias("first_step"),
        pl.col("last").max().alias("last_step"),
        pl.col("started").min(),
        pl.col("ended").max(),
        pl.col("records").sum(),
    )
    table = (
        table.join(begins, on=_WRITER, how="left").sort(_WRITER).with_columns(_least_later("begin", ["rank"], "cut"))
    )
    if together and table["rank"].n_unique() > 1:
        table = _without_ranks_left_out(table)
    return table.select(pl.col(name).cast(dtype) for name, dtype in ATTEMPTS.items())


def _evaluating(per: pl.DataFrame) -> pl.DataFrame:
    """Rank and attempt of those that wrote nothing of a training, where an earlier one of the rank did."""
    trains = (pl.col("split") == "train") | ((pl.col("split") == "") & ~pl.col("tag").str.contains(_NO_TRAINING))
    writers = per.group_by(_WRITER).agg(trains.any().alias("trains")).sort(_WRITER)
    before = pl.col("trains").cum_max().shift(1, fill_value=False).over("rank")
    return writers.filter(before & ~pl.col("trains")).select(_WRITER)


def _without_ranks_left_out(table: pl.DataFrame) -> pl.DataFrame:
    """The attempts, those of a rank that a later attempt goes without cut where that one began."""
    ranks = table.group_by("rank").agg(pl.col("attempt").max().alias("last"), pl.col("ended").max().alias("left"))
    again = table.drop_nulls("begin").group_by("attempt").agg(pl.col("begin", "started").min())
    after = (pl.col("attempt") > pl.col("last")) & (pl.col("started") > pl.col("left"))
    cuts = ranks.join(again, how="cross").filter(after).group_by("rank").agg(pl.col("begin").min().alias("_cut"))
    table = table.join(cuts, on="rank", how="left", maintain_order="left")
    return table.with_columns(cut=pl.min_horizontal("cut", "_cut"))


def _least_later(column: str, group: list[str], name: str) -> pl.Expr:
    """The least value of a column in all later rows of its group."""
    return pl.col(column).reverse().cum_min().forward_fill().reverse().shift(-1).over(group).alias(name)


def live_branch(rows: pl.DataFrame, attempts: pl.DataFrame | None = None) -> pl.DataFrame:
    """Rows without the dead branches: of each attempt and rank those before the step at which a later one began.

    Works on any frame with rank, attempt and step; where it has `tag` (or `metric`) and `split`, a series is cut also
    where itself begins again, unless that attempt only evaluated. `attempts` (`attempts_of`, as `Run.attempts` has it)
    says where the attempts of the whole run began; without it the rows themselves tell, which is right where they hold
    one series or all. Rows without a step are kept.

    >>> rows = pl.DataFrame({"rank": [0] * 5, "attempt": [0, 0, 0, 1, 1], "step": [1, 2, 3, 2, 3]})
    >>> live_branch(rows).select("attempt", "step").rows()
    [(0, 1), (1, 2), (1, 3)]
    """
    last = 0 if attempts is None else attempts["attempt"].max()
    if rows.is_empty() or (rows["attempt"].n_unique() == 1 and not last):
        return rows
    name = "tag" if "tag" in rows.columns else "metric"
    series = ["rank", *(c for c in ("split", name) if c in rows.columns)]
    if attempts is None:
        attempts = _begins(rows, name)
    own = rows.group_by(*series, "attempt").agg(pl.col("step").min().alias("_start")).sort(*series, "attempt")
    trained = attempts.drop_nulls("begin").select(_WRITER).with_columns(_trained=True)
    own = own.join(trained, on=_WRITER, how="left", maintain_order="left")
    own = own.with_columns(_start=pl.when("_trained").then("_start"))
    own = own.with_columns(_least_later("_start", series, "_own")).drop("_start", "_trained")
    cut = pl.min_horizontal("_own", "_cut")
    return (
        rows.join(own, on=[*series, "attempt"], how="left", maintain_order="left", nulls_equal=True)
        .join(attempts.select(*_WRITER, _cut="cut"), on=_WRITER, how="left", maintain_order="left")
        .filter(cut.is_null() | pl.col("step").is_null() | (pl.col("step") < cut))
        .drop("_own", "_cut")
    )


def branches(rows: pl.DataFrame, attempts: pl.DataFrame | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The live rows, as `live_branch` has them, and the dead ones, both in the order given.

    >>> rows = pl.DataFrame({"rank": [0] * 5, "attempt": [0, 0, 0, 1, 1], "step": [1, 2, 3, 2, 3]})
    >>> [part.select("attempt", "step").rows() for part in branches(rows)]
    [[(0, 1), (1, 2), (1, 3)], [(0, 2), (0, 3)]]
    """
    live = live_branch(rows.with_row_index("_row"), attempts)
    if live.height == rows.height:
        return rows, rows.head(0)
    alive = pl.int_range(rows.height, eager=True).is_in(live["_row"].cast(pl.Int64).implode())
    return live.drop("_row"), rows.filter(~alive)


def _begins(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The attempts as these rows tell them."""
    tag = pl.col(name).alias("tag") if name in rows.columns else pl.lit("").alias("tag")
    split = pl.col("split") if "split" in rows.columns else pl.lit("").alias("split")
    time = pl.lit(None, ATTEMPTS["started"]).alias("time")
    found = attempts_of(rows.lazy().select("step", split, tag, time, *(pl.col(c).cast(pl.Int32) for c in _WRITER)))
    return found.with_columns(pl.col(column).cast(rows[column].dtype) for column in _WRITER)
