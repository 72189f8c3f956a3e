"""`convert`: one run written as Parquet, JSONL, CSV, TensorBoard events or a W&B run, nothing of the scalars lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError, unknown_name
from eventstream.mirrors import About, full_tag
from eventstream.records import encode_numbers, strict_number
from parsers.naming.names import split_tag
from parsers.run import Run

__all__ = ["convert"]

_SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", "": "tensorboard"}


def convert(run: Run, out: str | os.PathLike[str], *, format: str | None = None) -> Path:
    """Path of what was written: the scalars of `run` as Parquet, JSONL (with events), CSV, TensorBoard or a W&B run.

    `format` is `parquet`, `jsonl`, `csv`, `tensorboard` or `wandb`; None goes by the suffix of `out`, and a folder or a
    name without suffix is a TensorBoard log folder. Parquet holds every column of the scalars; in JSONL and CSV numbers
    that are not finite are the strings NaN, Infinity and -Infinity. TensorBoard has one value a step and tag in
    float32: rank, attempt and epoch are not kept there, and rows without a step are numbered. `wandb` makes an offline
    run in the folder `out`, where of several values of one step and key the last counts. Both take the configuration
    along and are written as the recorder's mirrors write them. An existing file raises `InputError`: nothing is
    overwritten.
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

    def content(payload: str | None) -> Any:
        try:
            return orjson.loads(payload or "null")
        except orjson.JSONDecodeError:
            return payload  # damaged, or a text of a foreign writer: kept as it is

    with target.open("wb") as file:
        for batch in run.scalars.iter_slices(50_000):
            for row in batch.iter_rows(named=True):
                file.write(orjson.dumps({k: strict_number(v) for k, v in row.items() if v is not None}) + b"\n")
        for row in run.events.iter_rows(named=True):
            row["payload"] = content(row["payload"])
            file.write(orjson.dumps({k: v for k, v in row.items() if v is not None}) + b"\n")


def _tensorboard(run: Run, target: Path) -> None:
    from eventstream.tensorboard_mirror import TensorBoardMirror

    mirror = TensorBoardMirror(target)
    try:
        if run.config:
            mirror.write(_config(run))
        for step, time, _, pairs in _by_step(run, ["attempt", "step", "time"]):
            mirror.add(step, 0.0 if time is None else time, pairs)
    finally:
        mirror.close()


def _wandb(run: Run, target: Path) -> None:
    from eventstream.wandb_mirror import WandbMirror

    mirror = WandbMirror(target)
    mirror.begin(About(run.name, target))
    try:
        if run.config:
            mirror.write(_config(run))
        # W&B takes one number a step and key, in the order of steps: of several attempts the last one counts.
        for step, time, epoch, pairs in _by_step(run, ["step", "attempt", "time"]):
            mirror.add(step, time, pairs, epoch=epoch)
    finally:
        mirror.close()


def _config(run: Run) -> dict[str, Any]:
    return {"kind": "config", "step": None, "time": 0.0, "payload": encode_numbers(run.config)}


_Step = tuple[int | None, float | None, float | None, list[tuple[str, float]]]


def _by_step(run: Run, order: list[str]) -> Iterator[_Step]:
    """Step, time, epoch, and the tags and values of what was logged together; rows without a step come first."""
    rows = run.scalars.sort(order, maintain_order=True).with_columns(pl.col("time").dt.epoch("us"))
    together = rows.group_by("attempt", "step", "time", "split", "epoch", maintain_order=True).agg("tag", "value")
    columns = together.select("step", "time", "epoch", "split", "tag", "value")
    for step, time, epoch, split, tags, values in columns.iter_rows():
        pairs = [(full_tag(tag, _unsaid(tag, split)), value) for tag, value in zip(tags, values, strict=True)]
        yield step, None if time is None else time / 1e6, epoch, pairs


def _unsaid(tag: str, split: str) -> str:
    """The split where the tag does not say it in one of its spellings (`val_loss` says eval)."""
    return "" if split_tag(tag)[0] == split else split


_WRITERS: dict[str, Callable[[Run, Path], None]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
