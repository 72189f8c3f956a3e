"""Runs in the SQLite store of MLflow (`mlflow.db`): many runs in one file, opened for reading only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from eventstream.errors import InputError, unknown_name
from parsers.finish import Reject
from parsers.mlflow_run import Facts, add_metrics, mlflow_run
from parsers.run import Run
from parsers.tables.columns import number, to_step
from parsers.tables.generic import Records

__all__ = ["read", "runs", "sniff"]

MAGIC = b"SQLite format 3\x00"
TABLES = {"experiments", "runs", "metrics", "params", "tags"}
#: A database that is not a local file (inside an archive, remote) is held in memory up to this size.
LIMIT = 1 << 30
#: MLflow writes infinities as the largest number that a double holds.
LARGEST = 1.7976931348623157e308
#: What reading a damaged database raises: SQLite's own errors, and Python's where a name in it is no text.
_BROKEN = (sqlite3.DatabaseError, UnicodeDecodeError)
_ROWS = pl.Schema({"order": pl.Int64, "tag": pl.String, "time": pl.Int64, "value": pl.Float64, "step": pl.Int64})


def sniff(path: Path, head: bytes) -> bool:
    """Whether the file is a database with the tables of MLflow."""
    if not head.startswith(MAGIC):
        return False
    try:
        with _opened(path) as base:
            return _tables(base) >= TABLES
    except (InputError, *_BROKEN):
        return False  # a damaged or foreign database: nothing says that it was written by MLflow


def runs(path: Path | str) -> list[str]:
    """The identifiers of the runs in the store, in the order of their beginning."""
    path = Path(path) if isinstance(path, str) else path
    return [row[0] for row in _listed(path)]


def _listed(path: Path) -> list[tuple[str, str]]:
    """Identifier and name of each run."""
    with _readable(path) as base:
        name = _column(base, "runs", "name")
        rows = base.execute(f"SELECT run_uuid, {name} FROM runs ORDER BY start_time, rowid").fetchall()  # noqa: S608
    return [(str(row[0]), str(row[1] or "")) for row in rows]


def read(path: Path | str, name: str | None = None) -> Run:
    """One run of an `mlflow.db`: `name` is its identifier or its name; it may be left out where the store has one run.

    Scalars are the rows of the table `metrics` in the order written; NaN is told by its own column, and the largest
    double, as which MLflow stores infinity, is infinity again. Parameters are `run.config`; identity, experiment
    and tags an event `run`; the state in which the run ended an event `end`. The file is opened read-only and nothing
    beside it is written or locked; what stands in a write-ahead log (`-wal`) beside it and was never merged is not
    read, and a reject says so. Of a damaged database the rows before and after the damage are read.

    Raises `InputError` where the file is no store of MLflow, has no such run, or several and no name was given.
    Source: mlflow.store.tracking.dbmodels of MLflow 1 to 3.

    >>> read("no/such/mlflow.db")
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: no/such/mlflow.db: cannot be read (unable to open database file)
    """
    path = Path(path) if isinstance(path, str) else path
    which = _chosen(path, name)
    records = Records(str(path))
    with _readable(path) as base:
        facts = _facts(base, which)
        _add_rows(base, records, which)
        for kind, target in (("params", facts.params), ("tags", facts.tags)):
            target.update(_pairs(base, records, kind, which))
    if (path.parent / f"{path.name}-wal").is_file() and (path.parent / f"{path.name}-wal").stat().st_size:
        text = "its write-ahead log (-wal) was never merged; what stands only there is not read"
        records.rejects.append(Reject(str(path), text))
    facts.name = facts.name or facts.tags.get("mlflow.runName", "")
    return mlflow_run(records, facts)


def _chosen(path: Path, name: str | None) -> str:
    known = _listed(path)
    if name is None:
        if len(known) != 1:
            shown = ", ".join(given or key for key, given in known[:5]) + (", ..." if len(known) > 5 else "")
            what = f"{len(known)} runs here ({shown}); name one of them" if known else "a store without runs"
            raise InputError(f"{path}: {what}")
        return known[0][0]
    found = [key for key, given in known if name == key] or [key for key, given in known if name == given]
    if not found:
        raise InputError(f"{path}: {unknown_name('run', name, [given or key for key, given in known])}")
    if len(found) > 1:
        raise InputError(
            f"{path}: {len(found)} runs are called {name!r}; name one by its identifier: {', '.join(found)}"
        )
    return found[0]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if _is_local(path):
        # immutable: no lock and no journal is looked for, so that an archived file stays as it is
        address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as base:
            yield _set_up(base)
        return
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise InputError(f"{path}: more than {LIMIT:,} bytes; copy the database to a local folder to read it")
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(data)
        yield _set_up(base)


def _is_local(path: Path) -> bool:
    return type(path) is type(Path())


def _set_up(base: sqlite3.Connection) -> sqlite3.Connection:
    base.text_factory = lambda data: data.decode("utf-8", "replace")
    base.execute("PRAGMA trusted_schema = OFF")  # a view of a foreign file runs no function of its own
    return base


@contextmanager
def _readable(path: Path) -> Iterator[sqlite3.Connection]:
    """The open store; what SQLite cannot read is an error of the input."""
    try:
        with _opened(path) as base:
            if not _tables(base) >= TABLES:
                raise InputError(f"{path}: a database without the tables of MLflow ({', '.join(sorted(TABLES))})")
            yield base
    except (*_BROKEN, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _tables(base: sqlite3.Connection) -> set[str]:
    return {str(row[0]) for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _column(base: sqlite3.Connection, table: str, column: str, otherwise: str = "NULL") -> str:
    """The column where the table has it (older versions of MLflow lack some), else a constant."""
    known = {row[1] for row in base.execute(f"PRAGMA table_info({table})")}
    return column if column in known else otherwise


def _facts(base: sqlite3.Connection, run: str) -> Facts:
    name = "NULL" if _column(base, "runs", "name") == "NULL" else "runs.name"
    row = base.execute(
        f"SELECT {name}, experiments.name, status, start_time, end_time, runs.lifecycle_stage FROM runs "  # noqa: S608
        "LEFT JOIN experiments ON experiments.experiment_id = runs.experiment_id WHERE run_uuid = ?",
        (run,),
    ).fetchone()
    if row is None:  # an identifier that is no text, which MLflow never writes
        return Facts(run)
    texts = [str(value or "") for value in row]
    return Facts(run, texts[0], texts[1], texts[2], to_step(row[3]), to_step(row[4]), texts[5])


def _add_rows(base: sqlite3.Connection, records: Records, run: str) -> None:
    step, is_nan = _column(base, "metrics", "step"), _column(base, "metrics", "is_nan", "0")
    query = f"SELECT rowid, key, timestamp, value, {step}, {is_nan} FROM metrics WHERE run_uuid = ? ORDER BY rowid"  # noqa: S608
    rows, damage = _fetched(base, query, run)
    if damage:
        after, _ = _fetched(base, f"{query} DESC", run)
        known = {row[0] for row in rows}
        rows += sorted(row for row in after if row[0] not in known)
        records.rejects.append(Reject(records.file, f"metrics of {run} are damaged ({damage}); the others were read"))
    table = pl.DataFrame(list(_numbers(rows, records)), schema=_ROWS, orient="row")
    add_metrics(records, table["tag"], table, 0)


def _fetched(base: sqlite3.Connection, query: str, run: str) -> tuple[list[Any], str]:
    """The rows up to the damage, and what that is; empty where all is well."""
    rows: list[Any] = []
    try:
        rows.extend(base.execute(query, (run,)))
    except _BROKEN as error:
        return rows, str(error)
    return rows, ""


def _numbers(rows: list[Any], records: Records) -> Iterator[tuple[int, str, int | None, float, int | None]]:
    for place, key, time, value, step, is_nan in rows:
        found = number(value)
        if is_nan:
            found = float("nan")
        elif found is None:
            records.reject(place, f"{str(key)[:80]!r} holds {str(value)[:40]!r}, which is no number")
            continue
        elif abs(found) >= LARGEST:
            found = float("inf") if found > 0 else float("-inf")
        yield place, str(key), to_step(time), found, to_step(step)


def _pairs(base: sqlite3.Connection, records: Records, table: str, run: str) -> dict[str, str]:
    rows, damage = _fetched(base, f"SELECT key, value FROM {table} WHERE run_uuid = ?", run)  # noqa: S608
    if damage:
        records.rejects.append(Reject(records.file, f"{table} of {run} are damaged ({damage})"))
    return {str(key): str(value) for key, value in rows}
