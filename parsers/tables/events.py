"""The rows of events as the table of a run, and what their payloads say."""

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

__all__ = ["event_frame", "payload_object", "payload_text"]

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


def payload_object(text: str | None) -> dict[str, Any]:
    """What the payload of an event says: its JSON object; empty where it is damaged, absent, or another value.

    Nothing is raised: a damaged line is a reject of its reader, and a foreign event may have any text as its payload.

    >>> payload_object('{"path":"a.pt"}'), payload_object('{"path":'), payload_object("[1]"), payload_object(None)
    ({'path': 'a.pt'}, {}, {}, {})
    """
    try:
        told = orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


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
