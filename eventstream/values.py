"""Foreign values as plain ones, by duck typing: NumPy and torch numbers, paths, dates, dataclasses, namespaces."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import math
import os
from collections.abc import Callable, Mapping, Set
from typing import Any

__all__ = ["describe_tensor", "plain", "plain_text", "to_int", "to_number"]

#: Deeper than any configuration; a structure that holds itself ends here.
MAX_DEPTH = 32
#: Arrays up to this many elements are written out; larger ones are data, not a description of a run.
MAX_ELEMENTS = 10_000
_INT64 = range(-(2**63), 2**63)

Report = Callable[[str], None]


def plain_text(value: object) -> str:
    r"""`value` as text that UTF-8 can hold: lone surrogates (from undecodable file names) become their escape.

    >>> plain_text("caf\udce9")
    'caf\\udce9'
    """
    text = value if type(value) is str else str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def to_number(value: object) -> int | float | None:
    """`value` as a plain int or float, None for None; TypeError or ValueError where it is not one number.

    Booleans become 0 and 1; NumPy scalars, one-element tensors and arrays (also what only has `__array__`) what their
    `item()` gives; Decimal and Fraction floats; integers outside 64 bits floats, so that every reader can hold them.
    Text and complex numbers are no numbers.

    >>> from decimal import Decimal
    >>> to_number(True), to_number(Decimal("0.5")), to_number(2**60), to_number(2**70)
    (1, 0.5, 1152921504606846976, 1.1805916207174113e+21)
    """
    if value is None or type(value) is float:
        return value
    if isinstance(value, int):
        whole = int(value)  # of a subclass, `in` would walk through the range
        return whole if whole in _INT64 else float(whole)
    if isinstance(value, (float, decimal.Decimal, fractions.Fraction)):
        return float(value)
    if not isinstance(value, (str, bytes, bytearray)) and (inner := _item(value)) is not value:
        return to_number(inner)
    raise TypeError(f"{type(value).__name__} is not a number")


def _item(value: object) -> object:
    """What a one-element array holds, or the value itself where it is no array."""
    item = getattr(value, "item", None)
    if not callable(item):
        array = getattr(value, "__array__", None)
        return _item(array()) if callable(array) else value
    inner = item()
    if getattr(inner, "item", None) is not None and type(inner) is type(value):
        return value  # a longdouble gives itself
    return inner


def to_int(value: object) -> int | None:
    """`value` as an integer of 64 bits, None for None; TypeError or ValueError where it is not a whole number.

    >>> to_int(3.0), to_int(None)
    (3, None)
    """
    number = to_number(value)
    if number is None:
        return None
    if not math.isfinite(number) or number != int(number) or int(number) not in _INT64:
        raise ValueError(f"{number!r} is not a whole number of 64 bits")
    return int(number)


def plain(value: object, non_finite: Callable[[float], str], unknown: Report | None = None, depth: int = 0) -> Any:
    """`value` as plain dicts, lists, strings, numbers, booleans and None; see `records.encode_numbers`."""
    if value is None or type(value) in (str, bool, int, float):
        return _plain_leaf(value, non_finite)
    if depth > MAX_DEPTH:
        return _text_of(value, unknown, "is nested too deeply or holds itself")
    inner = _opened(value, unknown)
    if isinstance(inner, Mapping):
        return {plain_text(k): plain(v, non_finite, unknown, depth + 1) for k, v in list(inner.items())}
    if isinstance(inner, list):
        return [plain(v, non_finite, unknown, depth + 1) for v in inner]
    return _plain_leaf(inner, non_finite)


def _plain_leaf(value: Any, non_finite: Callable[[float], str]) -> Any:
    if type(value) is float:
        return value if math.isfinite(value) else non_finite(value)
    return plain_text(value) if isinstance(value, str) else value


def _opened(value: Any, unknown: Report | None) -> Any:
    """One level of a foreign value as a mapping, a list or a plain leaf."""
    if isinstance(value, enum.Enum):
        return _opened(value.value, unknown)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, (str, Mapping)):
        return value
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Set):
        return sorted(value, key=lambda v: (type(v).__name__, str(v)))
    if isinstance(value, (decimal.Decimal, fractions.Fraction)):
        return float(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _opened_array(value, unknown)


def _opened_array(value: Any, unknown: Report | None) -> Any:
    listed, shape = getattr(value, "tolist", None), getattr(value, "shape", None)
    if callable(listed) and shape is not None:
        if math.prod(shape) <= MAX_ELEMENTS:
            inner = listed()
            return inner if isinstance(inner, (list, str, int, float)) else _text_of(inner, unknown, "has no JSON form")
        return _text_of(f"{type(value).__name__} of shape {tuple(shape)}", unknown, "is too large for a record")
    if type(value).__name__ == "Namespace" and hasattr(value, "__dict__"):
        return vars(value)
    if isinstance(value, type) or type(value).__module__.partition(".")[0] in ("numpy", "torch"):
        return str(value)  # dtypes and devices say themselves
    return _text_of(value, unknown, "has no JSON form")


def _text_of(value: object, unknown: Report | None, why: str) -> str:
    # The type and not the whole text: a structure that holds itself has no end, and an address says nothing.
    text = value if isinstance(value, str) else f"<{type(value).__name__}>"
    if unknown is not None:
        unknown(f"{text} {why}; its name is recorded in its place")
    return text


def describe_tensor(value: object) -> dict[str, Any]:
    """Shape, dtype and device of anything like a tensor; of anything else, its type and, where it has one, its length.

    >>> describe_tensor([1, 2, 3])
    {'shape': [3], 'dtype': 'list', 'device': None}
    """
    if isinstance(value, Mapping):
        return {"shape": value.get("shape"), "dtype": value.get("dtype"), "device": value.get("device")}
    shape, dtype, device = (getattr(value, key, None) for key in ("shape", "dtype", "device"))
    if shape is None:
        size = [len(value)] if isinstance(value, (list, tuple)) else None
        return {"shape": size, "dtype": type(value).__name__, "device": None}
    return {
        "shape": [int(n) for n in shape],
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
        "device": None if device is None else str(device),
    }
