"""The numbers of a run that account for its loss, as rows: one rank, one split, live, each with its precision."""

from __future__ import annotations

import polars as pl

from analysis.accounting.precision import half_unit, printed_decimals
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["one_series_each", "with_occurrence", "with_precision"]

_KEY = ["step", "occurrence", "tag"]
_COLUMNS = ["rank", "attempt", "step", "epoch", "split", "metric", "value", "tag"]


def one_series_each(run: Run, *prefixes: str) -> pl.DataFrame:
    """Scalars whose metric begins with one of `prefixes`: one rank, one split (training before others), live branch.

    With the columns rank, attempt, step, epoch, split, metric, value and tag.
    """
    begins = pl.any_horizontal([pl.col("metric").str.starts_with(p) for p in prefixes])
    rows = run.live(run.lazy().filter(begins).select(_COLUMNS).collect())
    if rows["rank"].min() != rows["rank"].max():
        rows = rows.filter(pl.col("rank") == pl.col("rank").min())
    # the short catalogue tells of most runs that nothing is left out, and none of millions of names need be compared
    if rows.is_empty() or run.catalogue.filter(begins)["split"].is_in(["", "train"]).all():
        return rows
    counts = rows.group_by("split").len().with_columns(training=pl.col("split").is_in(["", "train"]))
    if counts["training"].any():
        return rows.filter(pl.col("split").is_in(["", "train"]))
    return rows.filter(pl.col("split") == counts.sort("len", "split", descending=True)["split"][0])


def with_occurrence(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with `occurrence`: how many rows of the same tag and step came before; 0 unless steps repeat."""
    same = pl.col("tag") == pl.col("tag").shift(1)
    # most logs have every series in one piece with rising steps: nothing repeats, and nothing has to be counted
    rises = (pl.col("step") > pl.col("step").shift(1)).fill_null(False)
    pieces, falls = rows.select(pieces=(~same).fill_null(True).sum(), falls=(same & ~rises).any()).row(0)
    rising = not falls and rows["step"].null_count() == 0 and pieces == rows["tag"].n_unique()
    counted = pl.lit(0, pl.Int64) if rising else pl.int_range(pl.len()).over("tag", "step")
    return rows.with_columns(counted.alias("occurrence"))


def with_precision(rows: pl.DataFrame, run: Run) -> pl.DataFrame:
    """Rows with `half`, the printing error of each number: from its event's decimals, else those all values share."""
    # a progress bar is printed in its own way: its decimals say nothing about the others, nor theirs about it
    shown = pl.col("metric") == "losses/displayed"
    others = pl.col("metric").str.starts_with("losses/") & ~shown
    halves = [half_unit(printed_decimals(rows.filter(group)["value"].to_numpy())) for group in (shown, others)]
    inferred = pl.when(shown).then(halves[0]).otherwise(halves[1])
    printed = _printed(run)
    if printed.is_empty():
        return rows.with_columns(half=inferred)
    printed = run.live(printed).filter(pl.col("rank").is_in(rows["rank"].unique().to_list()))
    printed = with_occurrence(printed)
    joined = rows.join(printed.select(*_KEY, "half"), on=_KEY, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.col("half").fill_null(inferred))


def _printed(run: Run) -> pl.DataFrame:
    """Rank, attempt, step, tag, half: one row per number whose event says how many decimals were printed."""
    of_kind = pl.col("kind").is_in(["losses", "curriculum"]) & pl.col("payload").str.contains(
        '"decimals"', literal=True
    )
    found = []
    for rank, attempt, step, kind, payload in (
        run.events.filter(of_kind).select("rank", "attempt", "step", "kind", "payload").iter_rows()
    ):
        decimals = payload_object(payload).get("decimals")
        for key, count in decimals.items() if isinstance(decimals, dict) else ():
            if isinstance(count, int) and -300 < count < 300:
                found.append((rank, attempt, step, f"{kind}/{key}", half_unit(count)))
    schema = {"rank": pl.Int32, "attempt": pl.Int32, "step": pl.Int64, "tag": pl.String, "half": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")
