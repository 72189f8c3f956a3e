"""Numbers, texts and truths beside the tensors: flat, by dotted path, bounded in number and length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from parsers.checkpoints.checkpoint import MOST_VALUES

__all__ = ["LONGEST_TEXT", "Value", "bounded", "flat"]

Value = float | int | str | bool | None
#: Longer texts (tables of tags, licences) are cut here.
LONGEST_TEXT = 1_000
#: Deeper nesting than this says nothing of a checkpoint.
_DEEPEST = 20


def bounded(values: Mapping[str, Value]) -> dict[str, Value]:
    """The first `MOST_VALUES` of them, texts cut at `LONGEST_TEXT` characters.

    >>> len(bounded({"licence": "x" * 5000})["licence"])
    1000
    """
    return {key: _short(value) for key, value in islice(values.items(), MOST_VALUES)}


def flat(value: Any, name: str) -> dict[str, Value]:
    """A JSON value as numbers and texts by their dotted path below `name`.

    >>> flat({"rope": {"theta": 10000.0}, "layers": [2, 4]}, "config")
    {'config.rope.theta': 10000.0, 'config.layers.0': 2, 'config.layers.1': 4}
    """
    return dict(islice(_walked(value, name, _DEEPEST), MOST_VALUES))


def _walked(value: Any, name: str, depth: int) -> Iterator[tuple[str, Value]]:
    if value is None or isinstance(value, (bool, int, float, str)):
        yield name, _short(value)
    elif depth and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walked(inner, f"{name}.{key}", depth - 1)
    elif depth and isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _walked(inner, f"{name}.{place}", depth - 1)


def _short(value: Value) -> Value:
    return value[:LONGEST_TEXT] if isinstance(value, str) else value
