"""What is the same in every store of MLflow: how its facts become the configuration and the events of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from parsers.run import Run
from parsers.tables.assemble import INDEX
from parsers.tables.columns import number, timestamp
from parsers.tables.generic import Records

__all__ = ["Facts", "add_metrics", "mlflow_run", "plain_value"]

#: Status of a run, as the file store numbers it and as the database names it, and what it is as an end.
STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
ENDS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}
_WORDS: dict[str, Any] = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
#: Beyond, a float does not hold every whole number.
_EXACT = 2**53


@dataclass(slots=True)
class Facts:
    """What a store says of one run beside its metrics; times in milliseconds since 1970."""

    id: str
    name: str = ""
    experiment: str = ""
    status: str = ""
    start: int | None = None
    end: int | None = None
    lifecycle: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def plain_value(text: str) -> Any:
    """A parameter, which MLflow keeps as text, as the number or truth value that was logged.

    >>> plain_value("0.1"), plain_value("12"), plain_value("True"), plain_value("adam"), plain_value("007")
    (0.1, 12, True, 'adam', '007')
    """
    if text in _WORDS:
        return _WORDS[text]
    found = number(text)
    if found is None or (len(text) > 1 and text[0] == "0" and text[1].isdigit()):
        return text  # a zero in front is a name, not a number
    if text.lstrip("+-").isdigit():
        return int(text) if abs(found) <= _EXACT else text
    return found


def add_metrics(records: Records, tag: str | pl.Series, table: pl.DataFrame, first: int) -> None:
    """Rows of `time` (milliseconds), `value` and `step`; `first` is the place of the first among all of the run."""
    micros = pl.when(pl.col("time").is_between(1, 4_102_444_800_000)).then(pl.col("time") * 1000)
    rows = table.select(
        pl.int_range(first, first + table.height, dtype=pl.Int64, eager=True).alias("order"),
        pl.lit(0, pl.Int32).alias("rank"),
        pl.lit(0, pl.Int32).alias("attempt"),
        pl.col("step"),
        pl.lit(None, pl.Float64).alias("epoch"),
        micros.cast(INDEX["time"]).alias("time"),
        pl.lit("").alias("split"),
        (pl.lit(tag) if isinstance(tag, str) else tag).alias("tag"),
        pl.col("value"),
    )
    if rows.height:
        records.pieces.add_long(rows)


def mlflow_run(records: Records, facts: Facts) -> Run:
    """The run of everything that was read."""
    config = {key: plain_value(value) for key, value in facts.params.items()}
    records.config.update(config)
    about: Mapping[str, Any] = {
        "id": facts.id, "name": facts.name, "experiment": facts.experiment, "lifecycle": facts.lifecycle,
        "tags": facts.tags,
    }  # fmt: skip
    records.event(_at(facts.start), "run", {key: value for key, value in about.items() if value})
    if config:
        records.event(_at(facts.start), "config", config)
    if facts.status in ENDS:
        records.event((2**62, *_at(facts.end)[1:]), "end", {"status": ENDS[facts.status]})
    return records.run(facts.name or facts.id, "mlflow")


def _at(millis: int | None) -> tuple[Any, ...]:
    known = millis is not None and timestamp(millis) is not None
    return 0, 0, 0, None, None, millis * 1000 if known and millis is not None else None, ""
