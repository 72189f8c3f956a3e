"""How a record becomes a line of strictly valid JSON: orjson where it is installed, the standard library otherwise."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any

__all__ = ["Dumps", "fast_dumps", "strict_line"]

Dumps = Callable[[Any], bytes]


def fast_dumps() -> Dumps:
    """A function from a record to its line; TypeError or ValueError for values that are not plain and finite enough.

    orjson writes a NaN as null: callers check for it first, or go through `strict_line`.

    >>> fast_dumps()({"kind": "note", "step": 1})
    b'{"kind":"note","step":1}\\n'
    """
    try:
        orjson = importlib.import_module("orjson")
    except ImportError:
        return _standard
    return functools.partial(orjson.dumps, option=orjson.OPT_APPEND_NEWLINE)


def _standard(record: Any) -> bytes:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8") + b"\n"


def strict_line(record: Any, dumps: Dumps) -> bytes:
    """The line of a record of plain values; the standard library takes what orjson cannot, integers beyond 64 bits.

    >>> strict_line({"kind": "config", "payload": {"seed": 2**80}}, fast_dumps())
    b'{"kind":"config","payload":{"seed":1208925819614629174706176}}\\n'
    """
    try:
        return dumps(record)
    except TypeError:
        return _standard(record)
