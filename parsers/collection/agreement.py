"""How far two logs agree: series matched by name, points by step, values compared to the digits that were printed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.naming.roles import role_of
from parsers.run import COMPARED, Run

__all__ = ["compare", "is_same_run", "tolerance"]

_Values = npt.NDArray[np.float64]

#: Single precision: what event files and many CSV writers keep of a number.
_SINGLE = 2e-6
#: Digits up to which a log counts as rounded by its print-out; beyond them it holds the whole number.
_PRINTED = 6
#: Fewest shared numbers by which two logs are known to be of one run, and the share that must agree.
_FEWEST, _ALIKE = 5, 0.9
#: Roles that runs of one sweep share: their numbers tell nothing about which run this is.
_SHARED_ROLES = {"learning_rate", "weight", "memory", "system", "counter", "wall_time", "hyperparameter", "loss_scale"}
#: What the clock says: of two runs it is never the same, but an evaluation that is done twice takes another time.
_CLOCK = {"step_time", "throughput"}


def compare(first: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """One row for each series that both frames of scalars hold (`parsers.run.COMPARED`), by name.

    Series match by split and metric; where that finds none, also by the metric in lower case with every separator
    alike, and with no split taken for `train`. Points match by rank and step, by epoch where either log has no steps;
    of a step logged twice the last counts, or the first where that is nearer (one log may lack the second).
    `differing` counts the values further apart than `tolerance` allows; `first_step`, `value` and `other_value` are
    those of the first of them.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> a = finish("a", "a.csv", "csv", pl.DataFrame({"tag": "loss", "step": [1, 2], "value": [0.5, 0.123456]}))
    >>> b = finish("b", "b.log", "text", pl.DataFrame({"tag": "train/loss", "step": [1, 2], "value": [0.5, 0.1241]}))
    >>> compare(a.scalars, b.scalars).select("metric", "other_tag", "compared", "differing", "other_value").row(0)
    ('loss', 'train/loss', 2, 1, 0.1241)
    """
    pairs = _pairs(first, other)
    axis = "step" if _has(first, "step") and _has(other, "step") else "epoch"
    mine, theirs = first.join(pairs, on="tag"), other.join(pairs, left_on="tag", right_on="other_tag")
    key = ["pair", "rank", axis]
    points = _points(mine, axis).join(_points(theirs, axis, "other_"), on=key, maintain_order="left")
    if points.is_empty():
        return COMPARED.to_frame()
    told = [_judged(part, axis) for part in _nearest(points).partition_by("pair", maintain_order=True)]
    table = pairs.join(pl.concat(told), on="pair")
    return table.select(pl.col(name).cast(dtype) for name, dtype in COMPARED.items())


def _has(frame: pl.DataFrame, axis: str) -> bool:
    return frame[axis].null_count() < frame.height


def _pairs(first: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Number, split, metric and tag of each series of `first` that is in `other`, and its tag there."""
    names = ["split", "metric", "tag"]
    own, theirs = (frame.select(names).unique(maintain_order=True) for frame in (first, other))
    exact = own.join(theirs.rename({"tag": "other_tag"}), on=["split", "metric"], maintain_order="left")
    exact = exact.unique("tag", keep="first", maintain_order=True).unique(
        "other_tag", keep="first", maintain_order=True
    )
    left = own.join(exact, on="tag", how="anti").with_columns(_key())
    right = theirs.join(exact, left_on="tag", right_on="other_tag", how="anti").with_columns(_key())
    alone = [frame.filter(pl.struct("key", "side").is_unique()) for frame in (left, right)]
    loose = alone[0].join(alone[1].select("key", "side", other_tag="tag"), on=["key", "side"], maintain_order="left")
    return pl.concat([exact, loose.select(exact.columns)]).with_row_index("pair")


def _key() -> list[pl.Expr]:
    plain = pl.col("metric").str.to_lowercase().str.replace_all(r"[^a-z0-9]+", "_").str.strip_chars("_")
    split = pl.when(pl.col("split") == "").then(pl.lit("train")).otherwise("split")
    return [plain.alias("key"), split.alias("side")]


def _points(rows: pl.DataFrame, axis: str, prefix: str = "") -> pl.DataFrame:
    """One row a point: the value logged last there, and the one logged first."""
    rows, key = rows.drop_nulls(axis), ["pair", "rank", axis]
    kept = rows.unique(key, keep="last", maintain_order=True).select(*key, pl.col("value").alias(f"{prefix}value"))
    begun = pl.col("value").alias(f"{prefix}first")
    if kept.height == rows.height:
        return kept.with_columns(pl.col(f"{prefix}value").alias(f"{prefix}first"))
    begins = rows.unique(key, keep="first", maintain_order=True).select(*key, begun)
    return kept.join(begins, on=key, maintain_order="left")


def _nearest(points: pl.DataFrame) -> pl.DataFrame:
    """The points with the first values in place of the last where these are nearer."""
    again = (pl.col("value") != pl.col("first")) | (pl.col("other_value") != pl.col("other_first"))
    if not points.select(again.any()).item():
        return points
    for own, other in (("value", "other_first"), ("first", "other_value"), ("first", "other_first")):
        apart = (pl.col("value") - pl.col("other_value")).abs()
        nearer = (pl.col(own) - pl.col(other)).abs() < apart
        value = pl.when(nearer).then(own).otherwise("value").alias("value")
        points = points.with_columns(value, pl.when(nearer).then(other).otherwise("other_value").alias("other_value"))
    return points


def _judged(points: pl.DataFrame, axis: str) -> pl.DataFrame:
    """One series: how many points, how many differ, the first that does, and whether it tells runs apart."""
    a, b = points["value"].to_numpy(), points["other_value"].to_numpy()
    coarse, fine = tolerance(a), tolerance(b)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= np.maximum(coarse, fine)
    same = near | (a == b) | (np.isnan(a) & np.isnan(b))
    where = int(np.argmin(same)) if not same.all() else None
    apart = int((~same).sum()) > (1 - _ALIKE) * len(a)
    return pl.DataFrame(
        {
            "pair": points["pair"][:1],
            "compared": len(a),
            "differing": int((~same).sum()),
            "first_step": None if where is None or axis != "step" else points[axis][where],
            "value": None if where is None else a[where],
            "other_value": None if where is None else b[where],
            "ratio": _ratio(a, b) if apart else None,
            "shift": _shift(a, b) if apart else None,
            "hidden": int((np.isfinite(a) != np.isfinite(b)).sum()),
            "tells": _tells(points[axis].to_numpy().astype(float), a) and _tells(points[axis].to_numpy(), b),
            "finer": bool(fine.sum() < 0.5 * coarse.sum()),
        },
        schema_overrides={name: COMPARED[name] for name in ("first_step", "value", "other_value", "ratio", "shift")},
    )


def _ratio(a: _Values, b: _Values) -> float | None:
    """By what the values of `b` are larger throughout, known to a hundredth; None where no one factor fits."""
    kept = np.isfinite(a) & np.isfinite(b) & (a != 0)
    if kept.sum() < _FEWEST:
        return None
    ratios = b[kept] / a[kept]
    middle = float(np.median(ratios))
    return middle if np.quantile(np.abs(ratios - middle), _ALIKE) <= 0.01 * abs(middle) else None


def _shift(a: _Values, b: _Values) -> int | None:
    """By how many records `b` tells later what `a` tells; None where no small shift makes them agree."""
    for late in (1, -1, 2, -2):
        x, y = (a[:-late], b[late:]) if late > 0 else (a[-late:], b[:late])
        if len(x) < _FEWEST or np.ptp(x) == 0:
            continue
        near = np.abs(x - y) <= np.maximum(tolerance(x), tolerance(y))
        if near.mean() >= _ALIKE:
            return late
    return None


def _tells(steps: _Values, values: _Values) -> bool:
    """Whether values could tell two runs apart: neither constant nor a straight line, as counters are."""
    finite = np.isfinite(values)
    x, y = steps[finite].astype(float), values[finite]
    if len(y) < 3 or np.ptp(y) == 0:
        return False
    line = np.polynomial.Polynomial.fit(x, y, 1)(x)
    return bool(np.abs(y - line).max() > 1e-6 * np.ptp(y))


def tolerance(values: _Values) -> _Values:
    """How far from each value of a series the true number may lie: half of the last digit printed.

    Values with at most six decimals were rounded to the most that any of them has; else those with at most six
    significant digits to the most of these; all others are trusted as far as single precision.

    >>> tolerance(np.array([0.25, 1.5])).round(4), tolerance(np.array([1.25e-9, 3.5e-7]))
    (array([0.005, 0.005]), array([5.e-12, 5.e-10]))
    """
    size = np.abs(values)
    least: _Values = np.where(np.isfinite(size), _SINGLE * size, 0.0)
    told = np.unique(size[np.isfinite(size) & (size > 0)])
    if len(told) == 0:
        return least
    told = told[:: max(1, len(told) // 1000)]
    for decimals in range(_PRINTED + 1):
        if _whole(told * 10.0**decimals):
            return np.maximum(least, 0.5 * 10.0**-decimals) if decimals else least
    scale = 10.0 ** np.floor(np.log10(told))
    for digits in range(_PRINTED):
        if _whole(told / scale * 10.0**digits):
            with np.errstate(divide="ignore"):
                power = np.floor(np.log10(size, where=np.isfinite(size) & (size > 0), out=np.full_like(size, -400.0)))
            return np.maximum(least, 0.5 * 10.0 ** (power - digits))
    return least


def _whole(values: _Values) -> bool:
    return bool((np.abs(values - np.rint(values)) <= 1e-9 * np.maximum(values, 1.0)).all())


def is_same_run(first: Run, other: Run, *, fewest: int = _FEWEST) -> bool:
    """Whether the numbers say that two logs are of one run: of `fewest` or more that could tell, nine in ten agree.

    Learning rates, weights, memory, counters, constants and straight lines do not count: other runs have the same.
    Times and throughputs count where they agree, and not where they differ: the last evaluation is often done again.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": "loss", "step": range(6), "value": [3.0, 2.1, 1.7, 1.6, 1.2, 1.3]})
    >>> first, other = finish("a", "a.csv", "csv", rows), finish("b", "b.log", "text", rows)
    >>> third = finish("c", "c.csv", "csv", rows.with_columns(pl.col("value") * 2))
    >>> is_same_run(first, other), is_same_run(first, third)
    (True, False)
    """
    table = compare(first.scalars, other.scalars)
    roles = pl.Series([role_of(m) for m in table["metric"]], dtype=pl.String)
    table = table.filter(pl.col("tells") & ~roles.is_in(_SHARED_ROLES))
    clock = pl.Series([role_of(m) in _CLOCK for m in table["metric"]], dtype=pl.Boolean)
    differing = int(table["differing"].filter(~clock).sum())
    compared = int(table["compared"].sum()) - int(table["differing"].filter(clock).sum())
    return compared >= fewest and differing <= (1 - _ALIKE) * compared
