"""Byte ranges of a file that several things claim: which of them overlap, and which bytes nothing claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["holes", "overlapping"]


def overlapping(spans: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Each name whose range (first byte, byte after the last) shares bytes with another's, with one such other.

    Empty ranges share nothing.

    >>> overlapping({"a": (0, 8), "b": (4, 12), "c": (12, 16)})
    {'a': 'b', 'b': 'a'}
    """
    found: dict[str, str] = {}
    furthest, reach = "", 0
    for name, (first, end) in sorted(spans.items(), key=lambda one: one[1]):
        if first >= end:
            continue
        if furthest and first < reach:
            found.setdefault(furthest, name)
            found[name] = furthest
        if end > reach or not furthest:
            furthest, reach = name, end
    return found


def holes(spans: Iterable[tuple[int, int]], total: int) -> list[tuple[int, int]]:
    """Ranges of the bytes 0 to `total` that no range covers, in their order.

    >>> holes([(8, 12), (0, 4)], 16)
    [(4, 8), (12, 16)]
    """
    found: list[tuple[int, int]] = []
    reach = 0
    for first, end in sorted(spans):
        if first > reach:
            found.append((reach, first))
        reach = max(reach, end)
    return [*found, (reach, total)] if reach < total else found
