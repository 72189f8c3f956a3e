"""Runs in the file store of MLflow: a folder with `meta.yaml`, and one file a metric, parameter and tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError
from eventstream.values import plain_text
from parsers.content.lines import Block, blocks
from parsers.finish import Reject
from parsers.mlflow_run import STATUS, Facts, add_metrics, mlflow_run
from parsers.places.beside import children, load_beside
from parsers.run import Run
from parsers.tables.columns import number, to_step
from parsers.tables.generic import Records

__all__ = ["read", "sniff"]

META = "meta.yaml"
#: Longest parameter or tag that is read: MLflow itself allows 8,000 characters, and 6,000 in parameters.
LIMIT = 1 << 16
#: Most folders inside one another in a metric's name; links, which could lead anywhere, are not followed.
DEEP = 32
#: Lines from which on a file is read as a table.
MANY = 64
_TABLE = pl.Schema({"time": pl.Int64, "value": pl.Float64, "step": pl.Int64})


def sniff(path: Path, head: bytes) -> bool:
    """Whether the folder is that of one run."""
    if head or not path.is_dir():
        return False
    try:
        with (path / META).open("rb") as file:
            lines = file.read(1 << 14).splitlines()
    except OSError:
        return False  # no such file, or none of ours
    keys = {line.split(b":")[0] for line in lines}
    return b"experiment_id" in keys and bool(keys & {b"run_id", b"run_uuid"})


def read(path: Path | str) -> Run:
    """The run in a folder of MLflow's file store (`mlruns/EXPERIMENT/RUN`).

    Each line of a metric's file is a scalar: time in milliseconds, value, step (null where old versions wrote none);
    a metric's name is its path below `metrics/`. Parameters are `run.config`, as numbers and truth values where
    their text is one. Identity, experiment and tags are an event `run`, the state in which the run ended an event
    `end`. The run's name is that of `meta.yaml`. A line that cannot be read is a reject, the others are read.

    Raises `InputError` when the folder has no `meta.yaml`. Source: mlflow.store.tracking.file_store of MLflow 1 to 3.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = Path(folder)
    ...     (root / "metrics" / "train").mkdir(parents=True)
    ...     _ = (root / META).write_text("experiment_id: '1'\\nrun_id: ab\\nrun_name: kind-sun\\n")
    ...     _ = (root / "metrics" / "train" / "loss").write_text("1700000000000 0.5 3\\n")
    ...     run = read(root)
    >>> run.name, run.scalars.select("step", "split", "metric", "value").row(0)
    ('kind-sun', (3, 'train', 'loss', 0.5))
    """
    path = Path(path) if isinstance(path, str) else path
    if not (path / META).is_file():
        raise InputError(f"{path}: no {META} here; name the folder of one run of MLflow")
    records = Records(str(path))
    facts = _facts(path, records)
    count = 0
    for name, file in _files(path / "metrics", records):
        count += _add_file(records, name, file, count)
    facts.params = dict(_texts(path / "params", records))
    facts.tags = dict(_texts(path / "tags", records))
    facts.name = facts.name or facts.tags.get("mlflow.runName", "")
    return mlflow_run(records, facts)


def _facts(path: Path, records: Records) -> Facts:
    found, rejects = load_beside(path, [META])
    above, _ = load_beside(path.parent, [META])  # the experiment; a run folder may stand alone
    records.rejects += rejects
    meta, experiment = found.get(META, {}), above.get(META, {})
    status = meta.get("status")
    return Facts(
        id=str(meta.get("run_id") or meta.get("run_uuid") or path.name),
        name=str(meta.get("run_name") or meta.get("name") or ""),
        experiment=str(experiment.get("name") or meta.get("experiment_id") or ""),
        status=STATUS.get(status, "") if isinstance(status, int) else str(status or ""),
        start=_millis(meta, "start_time"),
        end=_millis(meta, "end_time"),
        lifecycle=str(meta.get("lifecycle_stage") or ""),
    )


def _millis(meta: Mapping[str, Any], key: str) -> int | None:
    value = meta.get(key)
    return value if isinstance(value, int) and 0 < value < 2**53 else None


def _files(folder: Path, records: Records, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Path]]:
    """Name and path of each file at or below a folder."""
    for entry in children(folder):
        name = prefix + plain_text(entry.name)
        if not entry.is_dir():
            yield name, entry
        elif entry.is_symlink() or depth > DEEP:
            records.rejects.append(Reject(str(entry), "a link or too deep below the run; not followed"))
        else:
            yield from _files(entry, records, f"{name}/", depth + 1)


def _texts(folder: Path, records: Records) -> Iterator[tuple[str, str]]:
    for name, file in _files(folder, records):
        try:
            with file.open("rb") as opened:
                data = opened.read(LIMIT + 1)
        except OSError as error:
            records.rejects.append(Reject(str(file), f"cannot be read ({error.strerror or error})"))
            continue
        if len(data) > LIMIT:
            records.rejects.append(Reject(str(file), f"longer than {LIMIT:,} bytes; only its start was read"))
        yield name, data[:LIMIT].decode("utf-8", "replace")


def _add_file(records: Records, name: str, file: Path, first: int) -> int:
    """The numbers of one metric; how many there were."""
    count = 0
    try:
        for block in blocks(file):
            if isinstance(block, Reject):
                records.rejects.append(block)
                continue
            if not block.ended:
                block = _ended(block, str(file), records)
            table = _bulk(block)
            if table is None:
                table = _by_line(records, str(file), block)
            add_metrics(records, name, table, first + count)
            count += table.height
    except InputError as error:
        records.rejects.append(Reject(str(file), str(error)))
    return count


def _ended(block: Block, file: str, records: Records) -> Block:
    """The block without its last line: MLflow ends every line, and of one without its end digits may be missing."""
    data, _, last = block.data.rpartition(b"\n")
    line = block.first + block.count() - 1
    text = last[:200].decode("utf-8", "replace")
    records.rejects.append(Reject(file, "the last line is cut: it has no line end", line=line, text=text))
    return Block(data + b"\n" if data else b"", block.first)


def _bulk(block: Block) -> pl.DataFrame | None:
    """All lines at once; None where one of them is not three numbers."""
    if block.count() < MANY:
        return None
    try:
        table = pl.read_csv(
            block.data, separator=" ", has_header=False, new_columns=_TABLE.names(), schema=_TABLE, quote_char=None
        )
    except pl.exceptions.PolarsError:
        return None
    if table.height != block.count() or any(column.null_count() for column in table.get_columns()):
        return None
    return table


def _by_line(records: Records, file: str, block: Block) -> pl.DataFrame:
    rows = []
    for line, data in enumerate(block.lines(), block.first):
        parts = data.decode("utf-8", "replace").split()  # what follows the step names a data set
        time = to_step(parts[0]) if parts else None
        value = number(parts[1]) if len(parts) > 1 else None
        step = to_step(parts[2]) if len(parts) > 2 else None
        if time is None or value is None or (step is None and len(parts) > 2):
            if data.strip():
                text = data[:200].decode("utf-8", "replace")
                records.rejects.append(Reject(file, "not a time, a value and a step", line=line, text=text))
            continue
        rows.append((time, value, step))
    return pl.DataFrame(rows, schema=_TABLE, orient="row")
