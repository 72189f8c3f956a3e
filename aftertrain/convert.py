"""`convert`: one run written as Parquet, JSONL, CSV or TensorBoard events, nothing of the scalars lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from eventstream.errors import InputError, unknown_name
from eventstream.optional import need
from eventstream.records import non_finite_name
from parsers.run import Run

__all__ = ["convert"]

_SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", "": "tensorboard"}


def convert(run: Run, out: str | os.PathLike[str], *, format: str | None = None) -> Path:
    """Path of what was written: the tidy scalars of `run` as `parquet`, `jsonl` (with events), `csv` or `tensorboard`.

    `format=None` goes by the suffix of `out`; a folder or a name without suffix is a TensorBoard log folder. Parquet
    holds every column of the scalars; in JSONL and CSV numbers that are not finite are the strings NaN, Infinity and
    -Infinity. TensorBoard has one value a step and tag in float32: rank, attempt and epoch are not kept there, and
    rows without a step are numbered. An existing file raises `InputError`: nothing is overwritten.
    """
    target = Path(out)
    chosen = format or ("tensorboard" if target.is_dir() else _SUFFIXES.get(target.suffix.lower()))
    if chosen is None:
        raise InputError(f"{out}: {unknown_name('suffix', target.suffix, [s for s in _SUFFIXES if s])}; or pass format")
    if chosen not in _WRITERS:
        raise InputError(unknown_name("format", chosen, _WRITERS))
    if target.is_file():
        raise InputError(f"{out}: is there already; remove it or write to another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[chosen](run, target)
    return target


def _parquet(run: Run, target: Path) -> None:
    run.lazy().sink_parquet(target, compression="zstd")


def _text_numbers(run: Run) -> pl.LazyFrame:
    value = pl.col("value")
    special = (
        pl.when(value.is_nan())
        .then(pl.lit("NaN"))
        .when(value.is_infinite())
        .then(pl.when(value > 0).then(pl.lit("Infinity")).otherwise(pl.lit("-Infinity")))
    )
    return run.lazy().with_columns(value=pl.coalesce(special, value.cast(pl.String)))


def _csv(run: Run, target: Path) -> None:
    _text_numbers(run).sink_csv(target, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")


def _jsonl(run: Run, target: Path) -> None:
    import orjson

    with target.open("wb") as file:
        for batch in run.scalars.iter_slices(50_000):
            for row in batch.iter_rows(named=True):
                file.write(orjson.dumps({k: _plain(v) for k, v in row.items() if v is not None}) + b"\n")
        for row in run.events.iter_rows(named=True):
            row["payload"] = orjson.loads(row["payload"])
            file.write(orjson.dumps({k: v for k, v in row.items() if v is not None}) + b"\n")


def _plain(value: object) -> object:
    return non_finite_name(value) if isinstance(value, float) and value - value != 0 else value


def _tensorboard(run: Run, target: Path) -> None:
    writer_module = need(
        "tensorboard.summary.writer.event_file_writer", feature="writing TensorBoard events", extra="tensorboard"
    )
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    writer = writer_module.EventFileWriter(str(target))
    try:
        for (tag, split), rows in run.scalars.group_by(["tag", "split"], maintain_order=True):
            name = tag if not split or split in str(tag) else f"{split}/{tag}"
            for number, (step, time, value) in enumerate(rows.select("step", "time", "value").iter_rows()):
                event = Event(
                    wall_time=time.timestamp() if time is not None else 0.0,
                    step=number if step is None else step,
                    summary=Summary(value=[Summary.Value(tag=str(name), simple_value=value)]),
                )
                writer.add_event(event)
    finally:
        writer.close()


_WRITERS: dict[str, Callable[[Run, Path], None]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "csv": _csv,
    "tensorboard": _tensorboard,
}
