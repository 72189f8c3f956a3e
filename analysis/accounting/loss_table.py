"""The loss accounting of a run as two tables: components by step, totals by step, each number with its precision."""

from __future__ import annotations

import json
from dataclasses import dataclass

import polars as pl

from analysis.accounting.precision import FLOAT32, arithmetic_eps, half_unit, printed_decimals
from parsers.run import Run

__all__ = ["FIELDS", "WHOLE", "LossTable", "loss_table", "one_series_each", "with_occurrence", "with_precision"]

#: Numbers of a component, and numbers of the whole loss.
FIELDS = ("raw", "weight", "weighted", "contribution")
WHOLE = ("total", "displayed", "scaled_total")

_COMPONENT = r"^losses/(.+)/(raw|weight|weighted|contribution)$"
_WHOLE = r"^losses/(total|displayed|scaled_total)$"
_CURRICULUM = r"^curriculum/weight/(.+)$"
_KEY = ["step", "occurrence", "tag"]


@dataclass(frozen=True, eq=False)
class LossTable:
    """`components`: at, step, component, the four `FIELDS` and `half_...` of each (largest printing error).

    `totals`: at, step, the three `WHOLE` numbers and `half_...` of each. `at` numbers the records by step and then by
    their order where a step was logged repeatedly. `weight` is what the loss record says, else what the curriculum
    logged at that step, else the value on which the records of it before and after agree. `eps` is the machine
    epsilon of the totals' arithmetic.
    """

    components: pl.DataFrame
    totals: pl.DataFrame
    eps: float = FLOAT32


def loss_table(run: Run) -> LossTable:
    """The tables of `run`: lowest rank that logged losses, dead branches of resumes left out, training split.

    Empty tables with the same columns where the run logged no `losses/...`.
    """
    kept = one_series_each(run, "losses/", "curriculum/weight/")
    rows = with_precision(with_occurrence(kept), run)
    moments = rows.filter(pl.col("metric").str.starts_with("losses/")).select("step", "occurrence").unique()
    moments = moments.sort("step", "occurrence").with_row_index("at").cast({"at": pl.Int64})
    rows = rows.join(moments, on=["step", "occurrence"], how="left", nulls_equal=True, maintain_order="left")
    totals = _wide(rows, _WHOLE, WHOLE, []).join(moments.select("at", "step"), on="at", how="left")
    components = _wide(rows, _COMPONENT, FIELDS, ["component"])
    components = components.join(moments.select("at", "step"), on="at", how="left")
    components = _with_weights(components, rows)
    eps = arithmetic_eps(totals["total"].drop_nulls().to_numpy())
    order = ["at", "step"]
    return LossTable(
        components.select(*order, "component", *FIELDS, *(f"half_{f}" for f in FIELDS)).sort("at", "component"),
        totals.select(*order, *WHOLE, *(f"half_{f}" for f in WHOLE)).sort("at"),
        eps,
    )


def one_series_each(run: Run, *prefixes: str) -> pl.DataFrame:
    """Scalars whose metric begins with one of `prefixes`: one rank, one split (training before others), live branch."""
    begins = pl.any_horizontal([pl.col("metric").str.starts_with(p) for p in prefixes])
    rows = run.live(run.lazy().filter(begins).collect())
    rows = rows.filter(pl.col("rank") == pl.col("rank").min())
    if rows.is_empty():
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
        content = json.loads(payload)
        decimals = content.get("decimals") if isinstance(content, dict) else None
        for key, count in decimals.items() if isinstance(decimals, dict) else ():
            if isinstance(count, int) and -300 < count < 300:
                found.append((rank, attempt, step, f"{kind}/{key}", half_unit(count)))
    schema = {"rank": pl.Int32, "attempt": pl.Int32, "step": pl.Int64, "tag": pl.String, "half": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")


def _wide(rows: pl.DataFrame, pattern: str, fields: tuple[str, ...], names: list[str]) -> pl.DataFrame:
    groups = len(names) + 1
    known = rows.select(pl.col("metric").unique()).filter(pl.col("metric").str.contains(pattern))
    known = known.with_columns(
        pl.col("metric").str.extract(pattern, groups).alias("field"),
        *(pl.col("metric").str.extract(pattern, i + 1).alias(name) for i, name in enumerate(names)),
    )
    tagged = rows.join(known, on="metric", how="inner")
    picked = [pl.col("value").filter(pl.col("field") == f).first().alias(f) for f in fields]
    halves = [pl.col("half").filter(pl.col("field") == f).first().fill_null(0.0).alias(f"half_{f}") for f in fields]
    return tagged.group_by("at", *names).agg(*picked, *halves)


def _with_weights(components: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Weights that the loss records lack, taken from the curriculum's records and between two that agree."""
    stated = rows.filter(pl.col("metric").str.contains(_CURRICULUM)).select(
        "step", pl.col("metric").str.extract(_CURRICULUM, 1).alias("component"), weight="value", half_weight="half"
    )
    own = components.filter(pl.col("weight").is_not_null()).select("step", "component", "weight", "half_weight")
    known = pl.concat([own, stated]).unique(["step", "component"], keep="first", maintain_order=True)
    wanted = components.select("step", "component").unique()
    filled = wanted.join(known, on=["step", "component"], how="full", coalesce=True, nulls_equal=True)
    filled = filled.sort("component", "step", nulls_last=True).with_columns(
        pl.col("weight", "half_weight").forward_fill().over("component").name.suffix("_before"),
        pl.col("weight").backward_fill().over("component").alias("weight_after"),
    )
    agreed = pl.when(pl.col("weight_before") == pl.col("weight_after")).then(pl.col("weight_before"))
    filled = filled.select(
        "step",
        "component",
        pl.coalesce("weight", agreed).alias("weight_found"),
        pl.coalesce("half_weight", "half_weight_before").fill_null(0.0).alias("half_found"),
    )
    joined = components.join(filled, on=["step", "component"], how="left", nulls_equal=True)
    return joined.with_columns(
        pl.when(pl.col("weight").is_null()).then("half_found").otherwise("half_weight").alias("half_weight"),
        pl.coalesce("weight", "weight_found").alias("weight"),
    )
