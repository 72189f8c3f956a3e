"""The arithmetic of loss accounting: what should have entered the total, what did, and how far apart they may be."""

from __future__ import annotations

import math
from functools import cache

import polars as pl

from analysis.accounting.loss_table import LossTable

__all__ = ["COMPONENTS", "LARGEST", "TOTALS", "account", "printed", "span"]

#: Columns of the frame of components: one row per record and component.
COMPONENTS = pl.Schema(
    {
        "step": pl.Int64,
        "component": pl.String,
        "raw": pl.Float64,
        "weight": pl.Float64,
        "weighted": pl.Float64,
        "contribution": pl.Float64,
        "entered": pl.Float64,
        "expected": pl.Float64,
        "residual": pl.Float64,
        "tolerance": pl.Float64,
        "share": pl.Float64,
    }
)
#: Columns of the frame of totals: one row per record.
TOTALS = pl.Schema(
    {
        "step": pl.Int64,
        "total": pl.Float64,
        "displayed": pl.Float64,
        "scaled_total": pl.Float64,
        "summands": pl.Int64,
        "active": pl.Int64,
        "sum": pl.Float64,
        "residual": pl.Float64,
        "tolerance": pl.Float64,
        "display_difference": pl.Float64,
        "display_tolerance": pl.Float64,
    }
)
_Columns = tuple[tuple[str, pl.DataType], ...]
#: Roundings of one multiplication and a sum of up to some dozen terms, in units of the machine epsilon.
_ROUNDINGS = 8.0
#: Larger numbers are not judged: their squares overflow.
LARGEST = 1e100


def account(
    table: LossTable, *, aggregation: str | None = None, tolerance: float | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Frames `COMPONENTS` and `TOTALS`; `at` in front joins them, `half_...` are the components' printing errors.

    `entered` is the contribution where the log prints it, else the weighted value, else raw x weight. `expected` is
    raw x weight, `residual` is entered - expected, `share` is entered / total. In the totals `sum` is the sum (or
    mean) of what entered, and `residual` is total - sum; a record is not judged (null) when something that entered is
    unknown, not finite or above 1e100. Tolerances are half a unit of the last printed place per number, carried
    through product and sum, and the roundings of the arithmetic; `tolerance` replaces them.
    """
    if not table.components.is_empty() or not table.totals.is_empty():
        return _accounted(table, aggregation, tolerance)
    rows, totals = _account_of_nothing(tuple(table.components.schema.items()), tuple(table.totals.schema.items()))
    return rows.clone(), totals.clone()


@cache
def _account_of_nothing(components: _Columns, totals: _Columns) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Most logs have no components, and every diagnosis accounts for them twice."""
    return _accounted(LossTable(pl.DataFrame(schema=dict(components)), pl.DataFrame(schema=dict(totals))), None, None)


def _accounted(table: LossTable, aggregation: str | None, tolerance: float | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    eps = _ROUNDINGS * table.eps
    raw, weight = pl.col("raw"), pl.col("weight")
    product_error = weight.abs() * pl.col("half_raw") + raw.abs() * pl.col("half_weight")
    rows = table.components.with_columns(
        expected=raw * weight,
        entered=pl.coalesce("contribution", "weighted", raw * weight),
        product_error=(product_error + eps * (raw * weight).abs()).fill_null(0.0),
    )
    from_product = pl.col("contribution").is_null() & pl.col("weighted").is_null()
    rows = rows.with_columns(
        residual=pl.col("entered") - pl.col("expected"),
        half_entered=pl.when(pl.col("contribution").is_not_null())
        .then("half_contribution")
        .when(pl.col("weighted").is_not_null())
        .then("half_weighted")
        .otherwise("product_error"),
    ).with_columns(
        tolerance=pl.col("product_error") + pl.when(from_product).then(0.0).otherwise("half_entered")
        if tolerance is None
        else pl.lit(tolerance, dtype=pl.Float64)
    )
    totals = _totals(rows, table.totals, eps, aggregation, tolerance)
    rows = rows.join(totals.select("at", "total"), on="at", how="left").with_columns(
        share=pl.when(pl.col("total") != 0).then(pl.col("entered") / pl.col("total"))
    )
    return rows.select("at", *COMPONENTS, "half_entered", "half_raw", "half_weight"), totals


def _totals(
    rows: pl.DataFrame, totals: pl.DataFrame, eps: float, aggregation: str | None, tolerance: float | None
) -> pl.DataFrame:
    accounted = pl.any_horizontal(pl.col("contribution", "weighted", "weight").is_not_null()).any().over("component")
    entered = pl.col("entered")
    rows = rows if totals.height else rows.head(0)  # what no total is held against needs no sum
    sums = (
        rows.filter(accounted)
        .group_by("at")
        .agg(
            pl.len().cast(pl.Int64).alias("summands"),
            (entered != 0).sum().cast(pl.Int64).alias("active"),
            pl.when((entered.is_not_null() & (entered.abs() < LARGEST)).all()).then(entered.sum()).alias("sum"),
            pl.col("half_entered").sum().alias("halves"),
            entered.abs().sum().alias("size"),
        )
    )
    joined = totals.join(sums, on="at", how="left", maintain_order="left").with_columns(
        error=pl.col("halves") + pl.col("half_total") + eps * pl.col("size"),
        total=pl.col("total"),
    )
    if aggregation == "mean":
        joined = _as_mean(joined)
    display_error = pl.col("half_displayed") + pl.col("half_total") + eps * pl.col("total").abs()
    given = pl.lit(tolerance, dtype=pl.Float64)
    residual = pl.col("total") - pl.col("sum")
    difference = pl.col("displayed") - pl.col("total")
    return joined.with_columns(
        residual=pl.when(residual.abs() < LARGEST).then(residual),
        tolerance=pl.coalesce(given, "error"),
        display_difference=pl.when(difference.abs() < LARGEST).then(difference),
        display_tolerance=pl.coalesce(given, display_error),
    ).select("at", *TOTALS, "half_displayed")


def _as_mean(joined: pl.DataFrame) -> pl.DataFrame:
    """`sum` as the mean over all components or over those that entered, whichever lies nearer to the totals."""
    by_all, by_active = pl.col("sum") / pl.col("summands"), pl.col("sum") / pl.col("active").clip(1)
    off = joined.select(
        a=(pl.col("total") - by_all).abs().median(), b=(pl.col("total") - by_active).abs().median()
    ).row(0)
    nearer = by_active if off[0] is not None and off[1] < off[0] else by_all
    return joined.with_columns(sum=nearer)


def printed(value: float, half: float = 0.0) -> str:
    """A number for a message: with the decimals that `half` (half a unit in the last place) stands for, else short.

    >>> printed(0.02, 5e-5), printed(15.5068412)
    ('0.0200', '15.5068')
    """
    if 0 < half < 0.5 and math.isfinite(value):
        return f"{value:.{round(-math.log10(2 * half))}f}"
    return f"{value:.6g}"


def span(rows: pl.DataFrame) -> tuple[int | None, int | None]:
    """First and last step of some rows; None where they have none.

    >>> span(pl.DataFrame({"step": [3, 1, None]}))
    (1, 3)
    """
    first, last = rows["step"].min(), rows["step"].max()
    return first if isinstance(first, int) else None, last if isinstance(last, int) else None
