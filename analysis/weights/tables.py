"""The frames of `checkpoints`: what was read of the saves, put together with the save's name and step before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl

from analysis.weights.differences import DIFFERENCES
from analysis.weights.drift_between import drift_of
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
    saves = [kept for reading in readings for kept in reading.saves]
    counted = zip(_weights(saves), _norms(saves), _ratios(saves), strict=True)
    rows = [(*_told(kept), *numbers) for kept, numbers in zip(saves, counted, strict=True)]
    return pl.DataFrame(rows, schema=SAVES, orient="row")


def _told(kept: Kept) -> tuple[object, ...]:
    save = kept.save
    named = (save.name, save.series, kept.step, kept.epoch, save.rank, save.label, kept.format, str(save.path))
    return (*named, kept.bytes, kept.statistics.height)


def _weights(saves: Sequence[Kept]) -> list[int]:
    """Elements of the weights of each save: also those of quantised ones, but neither counters nor statistics."""
    rows = _numbered([kept.statistics for kept in saves], "role", "parameter", "elements")
    rows = rows.filter(pl.col("role") == "weights")
    return [sum(table[0]) for table in _of_each(_no_buffers(rows), len(saves), "elements")]


def _norms(saves: Sequence[Kept]) -> list[float | None]:
    """The norm of all weights of each save; None where none is known."""
    rows = _numbered([kept.statistics for kept in saves], "role", "parameter", "dtype", "norm")
    rows = _learned(rows.filter(pl.col("role") == "weights"), "dtype").drop_nulls("norm").drop_nans("norm")
    known = _of_each(rows, len(saves), "norm")
    return [math.hypot(*norms) if norms else None for (norms,) in known]


def _ratios(saves: Sequence[Kept]) -> list[float | None]:
    """Norm of all updates of the weights of each save over that of all weights before."""
    columns = ("role", "parameter", "dtype_a", "status", "update_norm", "norm_a")
    rows = _numbered([kept.changes for kept in saves], *columns)
    rows = rows.filter((pl.col("role") == "weights") & pl.col("status").is_in(["same", "changed"]))
    known = _of_each(_learned(rows, "dtype_a"), len(saves), "update_norm", "norm_a")
    return [drift_of(*norms) for norms in known]


def _numbered(tables: Sequence[pl.DataFrame | None], *columns: str) -> pl.DataFrame:
    """Some columns of all tables one below the other, with the number of the table."""
    known = [(number, table) for number, table in enumerate(tables) if table is not None]
    if not known:
        return pl.DataFrame(schema={"number": pl.Int64, **dict.fromkeys(columns, pl.Null)})
    numbers = np.repeat([number for number, _ in known], [table.height for _, table in known])
    taken = [pl.DataFrame([table[name] for name in columns]) for _, table in known]
    return pl.concat(taken, rechunk=True).with_columns(number=pl.Series(numbers, dtype=pl.Int64))


def _of_each(rows: pl.DataFrame, count: int, *columns: str) -> list[tuple[list[Any], ...]]:
    """The values of some columns for each number, whose rows stand together."""
    counts = np.bincount(rows["number"].to_numpy(), minlength=count).tolist()
    starts = [0, *accumulate(counts)]
    values = [rows[name].to_list() for name in columns]
    return [tuple(one[start : start + many] for one in values) for start, many in zip(starts, counts, strict=False)]


def _learned(rows: pl.DataFrame, dtype: str) -> pl.DataFrame:
    """Rows of what training moves: counters and statistics of normalisation are none of it."""
    counted = [name for name, kind in DTYPES.items() if kind.kind in ("integer", "boolean")]
    return _no_buffers(rows.filter(~pl.col(dtype).is_in(counted)))


def _no_buffers(rows: pl.DataFrame) -> pl.DataFrame:
    buffers = [name for name in rows["parameter"].unique() if is_buffer(name)]
    return rows.filter(~pl.col("parameter").is_in(buffers))


def frame_of(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a save and tensor: save, step, then the statistics."""
    found = [(kept, kept.statistics) for reading in readings for kept in reading.saves]
    return _stacked(found, _PLACE, STATISTICS)


def changes_of(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a tensor and pair of successive saves: before, save, step, then the differences."""
    found = [(kept, kept.changes) for reading in readings for kept in reading.saves if kept.changes is not None]
    return _stacked(found, {"before": pl.String, **_PLACE}, DIFFERENCES)


def spectra_of(readings: Iterable[Reading]) -> pl.DataFrame:
    """One row a save and matrix: save, step, then the spectra."""
    found = [(kept, kept.spectra) for reading in readings for kept in reading.saves if kept.spectra is not None]
    return _stacked(found, _PLACE, pl.Schema(SPECTRA))


def _stacked(
    found: Sequence[tuple[Kept, pl.DataFrame]], place: dict[str, type[pl.DataType]], columns: pl.Schema
) -> pl.DataFrame:
    """The tables one below the other, with the save that each row is of before its columns."""
    if not found:
        return pl.DataFrame(schema={**place, **columns})
    told: dict[str, Sequence[str | int | None]] = {
        "before": [kept.before for kept, _ in found],
        "save": [kept.save.name for kept, _ in found],
        "step": [kept.step for kept, _ in found],
    }
    rows = pl.Series(np.repeat(np.arange(len(found)), [table.height for _, table in found]))
    placed = [pl.Series(name, told[name], kind).gather(rows) for name, kind in place.items()]
    table = pl.concat([table for _, table in found], rechunk=True)
    return pl.DataFrame([*placed, *table])
