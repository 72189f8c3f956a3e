"""The end of a text log: whether its last line was cut, and how the training ended."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["ending", "may_be_cut"]

_NUMBERS = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)")
_ERROR = re.compile(r"^(?:\S+ )?([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)(?:: .*)?)$")
_CANCELLED = re.compile(r"\*\*\* (?:JOB|STEP) \S+ .*CANCELLED AT \S+(?: DUE TO [A-Z ]+)?|received SIGTERM|Terminated$")


def may_be_cut(line: str, earlier: str) -> bool:
    """Whether the number at the very end of `line` has fewer digits than the number in its place in `earlier`.

    A line that does not end in a number is whole when its pattern matched. Without an earlier line nothing is known,
    and the line is taken as cut.

    >>> may_be_cut("step 3 loss 1.2", "step 2 loss 1.234"), may_be_cut("step 3 loss 1.201", "step 2 loss 1.234")
    (True, False)
    """
    found = list(_NUMBERS.finditer(line))
    if not found or found[-1].end() != len(line):
        return False
    before = _NUMBERS.findall(earlier)
    if len(before) < len(found):
        return True
    return _digits(found[-1][0]) < _digits(before[len(found) - 1])


def _digits(number: str) -> tuple[bool, int]:
    """Whether there is an exponent, and the digits behind the point, or all digits of a whole number."""
    mantissa, _, exponent = number.lower().partition("e")
    _, point, decimals = mantissa.partition(".")
    if exponent:
        return True, len(exponent)
    return False, len(decimals) if point else len(mantissa)


def ending(tail: str) -> dict[str, Any] | None:
    """How the last lines say that the training ended: the payload of an `end` event, or None where they say nothing.

    >>> ending("epoch 3\\nTraceback (most recent call last):\\n  File 'a.py', line 1\\nKeyError: 'path'\\n")
    {'status': 'failed', 'error': "KeyError: 'path'"}
    """
    lines = [line.strip() for line in tail.split("\n") if line.strip()]
    for line in reversed(lines[-60:]):
        if cancelled := _CANCELLED.search(line):
            return {"status": "interrupted", "error": cancelled[0].strip("* ")[:200]}
        if _ERROR.match(line) and "Traceback (most recent call last)" in tail and "Warning" not in line:
            status = "interrupted" if "KeyboardInterrupt" in line else "failed"
            return {"status": status, "error": line[:500]}
    return None
