"""Text out of a log made fit to show: one line, bounded, without control characters; numbers short enough to read."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from eventstream.records import non_finite_name

__all__ = ["clean", "counted", "flatten", "number", "span"]

#: What stands for a character that must not reach a page: controls, direction overrides, halves of surrogate pairs.
REPLACEMENT = "\ufffd"
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn"}
_SPACES = {"Zl", "Zp"}


def clean(text: object, limit: int = 120) -> str:
    """`text` as one line of at most `limit` characters, its middle cut out where it is longer.

    Line breaks and tabs become spaces; control characters, marks that turn the writing direction and lone surrogates
    become U+FFFD, so that a name can neither reorder the words around it nor break the file it is written to.

    >>> clean("loss\\n\\x00a\\u202eb"), clean("x" * 50, 11)
    ('loss \ufffda\ufffdb', 'xxxxxxx…xxx')
    """
    given = str(text)
    if len(given) > limit:
        tail = limit * 3 // 10
        given = f"{given[: limit - tail - 1]}…{given[len(given) - tail :]}"
    return "".join(_safe(character) for character in given).strip()


def _safe(character: str) -> str:
    if " " <= character <= "~":
        return character
    category = unicodedata.category(character)
    if character in "\n\r\t" or category in _SPACES:
        return " "
    return REPLACEMENT if category in _UNSAFE else character


def number(value: object, limit: int = 120) -> str:
    """A number, flag or short string of an evidence table: four significant digits, thousands apart.

    >>> number(0.000123456), number(1234567), number(12345.678), number(True), number(None), number(float("nan"))
    ('0.0001235', '1,234,567', '12,350', 'yes', 'none', 'NaN')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.3e}" if abs(value) < 10**300 else "a huge integer"
    if isinstance(value, float):
        return _real(value)
    return clean(value, limit)


def _real(value: float) -> str:
    if not math.isfinite(value):
        return non_finite_name(value)
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3e}"
    if abs(value) >= 1000:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:.4g}"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things in words.

    >>> counted(1, "run"), counted(1200, "piece of input", "pieces of input")
    ('1 run', '1,200 pieces of input')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def span(first: int | None, last: int | None) -> str:
    """The steps of a finding in words; empty for a finding about the whole run.

    >>> span(4210, 4216), span(7, 7), span(None, None)
    ('steps 4,210 to 4,216', 'step 7', '')
    """
    if first is None:
        return "" if last is None else f"up to step {last:,}"
    if last is None or last == first:
        return f"step {first:,}"
    return f"steps {first:,} to {last:,}"


def flatten(tree: Mapping[str, Any], *, limit: int = 200) -> tuple[list[tuple[str, str]], int]:
    """Keys (joined by dots) and values of a nested configuration as text, at most `limit`, and how many there are.

    >>> flatten({"lr": 1e-3, "model": {"layers": [2, 2], "act": None}})
    ([('lr', '0.001'), ('model.layers', '[2, 2]'), ('model.act', 'none')], 3)
    """
    rows: list[tuple[str, str]] = []
    count = 0
    for count, (key, value) in enumerate(_leaves(tree), start=1):
        if count <= limit:
            rows.append((clean(key), number(value, 300)))
    return rows, count


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Leaves in the order written, without recursion: a configuration may be nested deeper than Python's stack."""
    stack: list[tuple[str, Any]] = [(str(k), v) for k, v in reversed(list(tree.items()))]
    while stack:
        key, value = stack.pop()
        if isinstance(value, Mapping) and value:
            stack += [(f"{key[:200]}.{k}", v) for k, v in reversed(list(value.items()))]
        else:
            yield key, value
