"""How a record becomes a line of strictly valid JSON: orjson where it is installed, the standard library otherwise."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

__all__ = ["LINE", "Dumps", "fast_dumps", "standard_dumps", "strict_line"]

#: Called as orjson's own `dumps` is, without a layer between: (record, None, LINE).
Dumps = Callable[[Any, None, int], bytes]

#: orjson's OPT_APPEND_NEWLINE.
LINE = 1 << 10


def fast_dumps() -> Dumps:
    """A function from a record to its line; TypeError or ValueError for values that are not plain and finite enough.

    orjson writes a NaN as null: callers check for it first, or go through `strict_line`.

    >>> fast_dumps()({"kind": "note", "step": 1}, None, LINE)
    b'{"kind":"note","step":1}\\n'
    """
    try:
        orjson = importlib.import_module("orjson")
    except ImportError:
        return standard_dumps
    return orjson.dumps  # type: ignore[no-any-return]


def standard_dumps(record: Any, _default: None = None, _option: int = LINE) -> bytes:
    """The line of a record by the standard library alone."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8") + b"\n"


def strict_line(record: Any, dumps: Dumps) -> bytes:
    """The line of a record of plain values; the standard library takes what orjson cannot, integers beyond 64 bits.

    >>> strict_line({"kind": "config", "payload": {"seed": 2**80}}, fast_dumps())
    b'{"kind":"config","payload":{"seed":1208925819614629174706176}}\\n'
    """
    try:
        return dumps(record, None, LINE)
    except TypeError:
        return standard_dumps(record)
