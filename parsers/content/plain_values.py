"""Values of a configuration as JSON and back exactly: NaN, large numbers, keys that are no text, dates, tuples."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Form", "UnkeptError", "plain", "restored"]

#: Marks what JSON has no form for: {"$": what it is, "v": its plain form}.
_MARK = "$"
#: Beyond this many bits a number is written in base 16, which has no limit and takes no quadratic time.
_BITS = 64


class UnkeptError(ValueError):
    """A value that has no plain form."""


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one more type become plain, or are made again: `change` does one of the two."""

    name: str
    type: type
    change: Callable[[Any], Any]


_FORMS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", bytes.hex),
    dt.datetime: ("datetime", dt.datetime.isoformat),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", dt.time.isoformat),
}
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
}
_SEVERAL: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}


def plain(value: Any, forms: Sequence[Form] = ()) -> Any:
    """`value` in what `json` writes and reads without loss; raises `UnkeptError` where there is no such form.

    >>> plain({1: (2, None)})
    {'$': 'dict', 'v': [[1, {'$': 'tuple', 'v': [2, None]}]]}
    """
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if value.bit_length() <= _BITS else _marked("int", f"{value:x}")
    if kind is list:
        return [plain(one, forms) for one in value]
    if kind in _SEVERAL:
        return _marked(_SEVERAL[kind], [plain(one, forms) for one in value])
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value) and _MARK not in value:
            return {key: plain(one, forms) for key, one in value.items()}
        return _marked("dict", [[plain(key, forms), plain(one, forms)] for key, one in value.items()])
    for form in forms:
        if kind is form.type:
            return _marked(form.name, form.change(value))
    if kind not in _FORMS:
        raise UnkeptError(f"{kind.__name__} has no plain form")
    name, change = _FORMS[kind]
    return _marked(name, change(value))


def _marked(name: str, value: Any) -> dict[str, Any]:
    return {_MARK: name, "v": value}


def restored(value: Any, forms: Sequence[Form] = ()) -> Any:
    """The value that `plain` made plain; mappings come back as `dict`.

    >>> restored(plain({1: (2, None)}))
    {1: (2, None)}
    """
    if isinstance(value, list):
        return [restored(one, forms) for one in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {key: restored(one, forms) for key, one in value.items()}
    name, inner = value[_MARK], value["v"]
    for form in forms:
        if name == form.name:
            return form.change(inner)
    if name in _MAKERS:
        return _MAKERS[name](inner)
    items = restored(inner, forms)
    if name == "dict":
        return dict(items)
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[name](items)
