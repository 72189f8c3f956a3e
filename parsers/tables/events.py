"""The rows of events as the table of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from eventstream.records import encode_numbers
from parsers.tables.attempts import attempt_of
from parsers.tables.rows import INDEX, row_frame

__all__ = ["event_frame", "payload_text"]

_EVENT: dict[str, pl.DataType | type[pl.DataType]] = {**INDEX, "kind": pl.String, "payload": pl.String}


def payload_text(payload: object) -> str:
    """The payload of an event as JSON: numbers that are not finite as strings, integers of any size.

    >>> payload_text({"best": float("inf"), "seed": 2**70})
    '{"best":"Infinity","seed":1180591620717411303424}'
    """
    plain = encode_numbers(payload)
    try:
        return orjson.dumps(plain).decode()
    except TypeError:  # an integer of more than 64 bits, which orjson does not write
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def event_frame(rows: list[tuple[Any, ...]], opened: Mapping[int, npt.NDArray[np.int64]] | None = None) -> pl.DataFrame:
    """Rows of order, rank, attempt, step, epoch, time (microseconds since 1970), split, kind and payload as a table.

    `opened` is what `parsers.tables.attempts.restarts` found: the attempts are then numbered by it.

    >>> event_frame([(0, 0, 0, 5, None, 1_700_000_000_000_000, "", "note", '{"text":"hi"}')])["kind"].to_list()
    ['note']
    """
    frame = row_frame(rows, _EVENT)
    if not opened:
        return frame
    attempt = attempt_of(frame["rank"].to_numpy(), frame["order"].to_numpy(), opened)
    return frame.with_columns(pl.Series("attempt", attempt))
