"""Numbers of a payload that are still on a device: taken out of it, and put back once they have arrived."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from eventstream.deferred import HostCopy, copies_of, on_device
from eventstream.values import MAX_DEPTH, plain_text

__all__ = ["Late", "split_late"]

_Place = tuple[str | int, ...]


class Late:
    """Copies on their way to the host, and where in the payload their numbers belong."""

    def __init__(self, tensors: Mapping[_Place, Any]) -> None:
        self._named = copies_of(tensors)  # type: ignore[arg-type] # places serve as names as well as texts do

    @property
    def copies(self) -> list[HostCopy]:
        """What has to arrive."""
        return [copy for _, copy in self._named]

    def fill(self, payload: Any) -> Any:
        """`payload`, which was made plain meanwhile, with the numbers in their places; waits for those on the way."""
        for places, copy in self._named:
            for place, number in zip(places, copy.numbers(), strict=True):
                payload = _put(payload, place, number)  # type: ignore[arg-type]
        return payload


def split_late(payload: Any) -> tuple[Any, Late | None]:
    """The payload with None for each one-number tensor of a device, and those tensors; None for no such tensor.

    Mappings, lists and tuples are looked into. The numbers are those of this moment, whatever is done to the tensors
    in place afterwards.

    >>> split_late({"kd": {"raw": 2.0}})
    ({'kd': {'raw': 2.0}}, None)
    """
    if "torch" not in sys.modules:
        return payload, None
    found: dict[_Place, Any] = {}
    rest = _without(payload, (), found)
    return (rest, Late(found)) if found else (payload, None)


def _without(value: Any, place: _Place, found: dict[_Place, Any]) -> Any:
    if on_device(value):
        found[place] = value
        return None
    if len(place) > MAX_DEPTH:
        return value
    if isinstance(value, Mapping):
        return {key: _without(inner, (*place, plain_text(key)), found) for key, inner in list(value.items())}
    if type(value) in (list, tuple):
        return [_without(inner, (*place, index), found) for index, inner in enumerate(value)]
    return value


def _put(payload: Any, place: _Place, number: Any) -> Any:
    if not place:
        return number
    inner = payload
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = number
    return payload
