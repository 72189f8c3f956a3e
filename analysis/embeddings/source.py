"""Where embeddings come from: the events of a run, a Parquet file, or an array with labels; read one set at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from analysis.embeddings.vectors import Labels, Vectors, prepare
from eventstream.errors import InputError
from eventstream.vectors import part_name
from parsers.run import Run

__all__ = ["EmbeddingSet", "Unread", "from_array", "from_file", "from_run"]


@dataclass(frozen=True, eq=False)
class EmbeddingSet:
    """The vectors of one step and split. `misfit` rows had another number of dimensions and were left out."""

    step: int | None
    split: str
    vectors: Vectors
    misfit: int = 0


@dataclass(frozen=True, slots=True)
class Unread:
    """A file of embeddings that a run names but that could not be read, and why."""

    file: str
    reason: str


def from_array(vectors: ArrayLike, labels: Labels | None) -> Iterator[EmbeddingSet]:
    """The one set that an array (utterances, dimensions) is."""
    yield EmbeddingSet(None, "", prepare(vectors, labels))


def from_file(path: str | Path, labels: Labels | None) -> Iterator[EmbeddingSet]:
    """The set in a Parquet file with the columns `vector` and, where known, `label` and `path`.

    A file that a recorder wrote has a column `step`: each of its steps is a set, in their order. With `labels` given
    for all rows, all rows are one set.
    """
    try:
        table = pl.read_parquet(path)
        if labels is None and table.schema.get("step") == pl.Int64:
            for (step,), part in table.sort("step", maintain_order=True).group_by("step", maintain_order=True):
                yield _joined(step if isinstance(step, int) else None, "", [_checked(part)], None)
        else:
            yield _joined(None, "", [_checked(table)], labels)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def from_run(run: Run) -> Iterator[EmbeddingSet | Unread]:
    """The embeddings of each step and split of a run, in order of the steps; files that cannot be read as `Unread`.

    The dead branch of a resumed run is left out; what several ranks or calls wrote at one step is one set.
    """
    events = run.live(run.events_of("embeddings"))
    here = Path(run.path)
    folder = here if here.is_dir() else here.parent
    for (step, split), group in events.sort("step", maintain_order=True).group_by(
        ["step", "split"], maintain_order=True
    ):
        tables = []
        for payload in group["payload"]:
            found = _named_table(folder, payload)
            if isinstance(found, Unread):
                yield found
            else:
                tables.append(found)
        if tables:
            whole = step if isinstance(step, int) else None
            try:
                yield _joined(whole, str(split or ""), tables, None)
            except ValueError as error:
                yield Unread(f"step {step}", str(error))


def _named_table(folder: Path, payload: str | None) -> pl.DataFrame | Unread:
    try:
        content = json.loads(payload or "null")
    except ValueError as error:
        return Unread("?", f"the event is not JSON: {error}")
    name = content.get("file") if isinstance(content, dict) else None
    if not isinstance(name, str):
        return Unread("?", "the event names no file")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return Unread(name, "lies outside the run's folder")
    part = content.get("part")
    try:
        return _checked(pl.read_parquet(path) if part is None else _row_group(folder, name, part))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        return Unread(name, f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _row_group(folder: Path, name: str, part: object) -> pl.DataFrame:
    """Row group `part` of a file that may not have been made of its parts yet, or is just being made."""
    import pyarrow.parquet as pq

    if not isinstance(part, int) or not 0 <= part < 1000:
        raise ValueError(f"the event's part is {part!r}; expected the number of a row group")
    alone = folder / part_name(name, part)
    with suppress(FileNotFoundError):
        if not (folder / name).exists():
            return pl.read_parquet(alone)
    whole = pq.ParquetFile(folder / name)
    if part >= whole.num_row_groups:
        raise ValueError(f"has {whole.num_row_groups} row groups; the event names number {part}")
    return cast(pl.DataFrame, pl.from_arrow(whole.read_row_group(part)))


def _checked(frame: pl.DataFrame) -> pl.DataFrame:
    if "vector" not in frame.columns:
        raise ValueError(f"no column 'vector'; it has: {', '.join(frame.columns) or 'none'}")
    kind = frame.schema["vector"]
    if not isinstance(kind, pl.List | pl.Array) or not kind.inner.is_numeric():
        raise ValueError(f"column 'vector' holds {kind}; expected lists of numbers")
    for name in ("label", "path"):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    return frame.select("vector", pl.col("label", "path").cast(pl.String))


def _joined(step: int | None, split: str, tables: list[pl.DataFrame], labels: Labels | None) -> EmbeddingSet:
    """All tables of one step as one set; rows of another length than most are left out and counted."""
    parts = [_uniform(t) for t in tables]
    sizes: dict[int, int] = {}
    for t, _ in parts:
        sizes[_dim(t)] = sizes.get(_dim(t), 0) + t.height
    most = max(sizes, key=lambda d: sizes[d], default=0)
    kept = [t for t, _ in parts if _dim(t) == most]
    misfit = sum(n for _, n in parts) + sum(t.height for t, _ in parts if _dim(t) != most)
    frame = kept[0] if len(kept) == 1 else pl.concat(kept)
    given: Any = frame["label"] if labels is None else labels
    if labels is not None and misfit:
        raise ValueError(f"{misfit} rows have another number of dimensions: labels cannot be matched to rows")
    vectors = frame["vector"].to_numpy() if frame.height else np.zeros((0, most), np.float32)
    return EmbeddingSet(step, split, prepare(vectors, given, frame["path"]), misfit)


def _dim(frame: pl.DataFrame) -> int:
    kind = frame.schema["vector"]
    assert isinstance(kind, pl.Array)
    return int(kind.shape[0])


def _uniform(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows whose vector has the commonest length, as fixed-size float32 lists, and how many were left out.

    A null vector, or a null in one, becomes NaN, which `prepare` counts as not finite.
    """
    kind = frame.schema["vector"]
    if isinstance(kind, pl.Array):
        dim = int(kind.shape[0])
        lists = frame.with_columns(pl.col("vector").arr.to_list())
        if not frame["vector"].null_count() and kind.inner in (pl.Float32, pl.Float64):
            return frame, 0
    else:
        lists = frame
        lengths = frame["vector"].list.len().drop_nulls().mode()
        dim = int(lengths.max()) if len(lengths) else 0  # type: ignore[arg-type]
    nothing = pl.lit([float("nan")] * dim, dtype=pl.List(pl.Float64))
    filled = lists.with_columns(
        pl.col("vector").cast(pl.List(pl.Float64)).fill_null(nothing).list.eval(pl.element().fill_null(float("nan")))
    )
    fitting = filled.filter(pl.col("vector").list.len() == dim)
    return fitting.with_columns(pl.col("vector").cast(pl.Array(pl.Float64, dim))), frame.height - fitting.height
