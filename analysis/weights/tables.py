"""The frames of `checkpoints`: what was read of the saves, put together with the save's name and step before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import polars as pl

from analysis.weights.differences import DIFFERENCES
from analysis.weights.drift_between import total_drift
from analysis.weights.reading import Kept, Reading
from analysis.weights.saved import is_buffer
from analysis.weights.spectra import SCHEMA as SPECTRA
from analysis.weights.statistics import STATISTICS
from parsers.checkpoints.tensors import DTYPES

__all__ = ["SAVES", "changes_of", "frame_of", "saves_frame", "spectra_of"]

_PLACE: dict[str, type[pl.DataType]] = {"save": pl.String, "step": pl.Int64}
#: Columns of the saves themselves; what the log says of them follows (`analysis.weights.joined.JOINED`).
SAVES = pl.Schema(
    {
        "save": pl.String,
        "series": pl.String,
        "step": pl.Int64,
        "epoch": pl.Float64,
        "rank": pl.Int64,
        "label": pl.String,
        "format": pl.String,
        "path": pl.String,
        "bytes": pl.Int64,
        "tensors": pl.Int64,
        "parameters": pl.Int64,
        "norm": pl.Float64,
        "update_ratio": pl.Float64,
    }
)


def saves_frame(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a save (`SAVES`)."""
    return pl.DataFrame([_row(kept) for reading in readings for kept in reading.saves], schema=SAVES, orient="row")


def _row(kept: Kept) -> tuple[object, ...]:
    weights = kept.statistics.filter(pl.col("role") == "weights")
    norms = weights.filter(_learned("dtype"))["norm"].drop_nulls().drop_nans().to_list()
    return (
        kept.save.name,
        kept.save.series,
        kept.step,
        kept.epoch,
        kept.save.rank,
        kept.save.label,
        kept.format,
        str(kept.save.path),
        kept.bytes,
        kept.statistics.height,
        int(weights["elements"].sum()),
        math.hypot(*norms) if norms else None,
        None if kept.changes is None else _ratio(kept.changes),
    )


def _ratio(changes: pl.DataFrame) -> float | None:
    """Norm of all updates of the weights over that of all weights before."""
    kept = (pl.col("role") == "weights") & _learned("dtype_a")
    return total_drift(changes.filter(kept & pl.col("status").is_in(["same", "changed"])))


def _learned(dtype: str) -> pl.Expr:
    """Rows of what training moves: counters and statistics of normalisation are none of it."""
    counted = [name for name, kind in DTYPES.items() if kind.kind in ("integer", "boolean")]
    buffers = pl.col("parameter").map_elements(is_buffer, return_dtype=pl.Boolean, skip_nulls=False)
    return ~pl.col(dtype).is_in(counted) & ~buffers


def frame_of(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a save and tensor: save, step, then the statistics."""
    found = [(kept, kept.statistics) for reading in readings for kept in reading.saves]
    return _stacked([_placed(table, save=kept.save.name, step=kept.step) for kept, table in found], _PLACE, STATISTICS)


def changes_of(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a tensor and pair of successive saves: before, save, step, then the differences."""
    parts = [
        _placed(kept.changes, before=kept.before, save=kept.save.name, step=kept.step)
        for reading in readings
        for kept in reading.saves
        if kept.changes is not None
    ]
    return _stacked(parts, {"before": pl.String, **_PLACE}, DIFFERENCES)


def spectra_of(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a save and matrix: save, step, then the spectra."""
    parts = [
        _placed(kept.spectra, save=kept.save.name, step=kept.step)
        for reading in readings
        for kept in reading.saves
        if kept.spectra is not None
    ]
    return _stacked(parts, _PLACE, pl.Schema(SPECTRA))


def _placed(table: pl.DataFrame, **place: object) -> pl.DataFrame:
    kinds: dict[str, type[pl.DataType]] = {"before": pl.String, **_PLACE}
    return table.select([*(pl.lit(value, kinds[name]).alias(name) for name, value in place.items()), pl.all()])


def _stacked(parts: Sequence[pl.DataFrame], place: dict[str, type[pl.DataType]], columns: pl.Schema) -> pl.DataFrame:
    return pl.concat(parts) if parts else pl.DataFrame(schema={**place, **columns})
