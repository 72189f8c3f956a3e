"""One JSON document that may be damaged: what stands before the damage, and the objects that stand after it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from parsers.content.jsontext import UnreadableError, parse_line, plain_pairs
from parsers.content.lines import to_utf8
from parsers.finish import Reject

__all__ = ["DOCUMENT_LIMIT", "Document", "leading_value", "read_document"]

#: Largest document that is read: it is one value and has to be held whole.
DOCUMENT_LIMIT = 512 << 20
#: Deepest nesting that is followed in a damaged document.
_DEEPEST = 100
#: How many places after the damage are tried in vain for an object.
_MOST_TRIES = 5_000
_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+")'
    r"|(?P<scalar>-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][-+]?\d++)?(?=[\s,\]}])|true|false|null|NaN|-?Infinity)"
    r"|(?P<mark>[{}\[\],:]))"
)


@dataclass(slots=True)
class Document:
    """A document: its value (None where nothing of it can be read), the damage, and objects found after the damage."""

    value: Any
    rejects: list[Reject] = field(default_factory=list)
    after: list[dict[str, Any]] = field(default_factory=list)


def read_document(path: Path) -> Document:
    """The document in the file at `path`; raises `InputError` where it cannot be opened or is larger than 512 MiB.

    Of a damaged document the value is what stands before the damage, its open lists and objects closed there; whole
    objects that follow are in `after`, in their order, where they hold at least one number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.json")
    ...     _ = path.write_text('{"config": {"lr": 0.1}, "steps": [{"step": 1, "loss": 2.5}, {"step": 2, "lo')
    ...     document = read_document(path)
    >>> document.value, document.rejects[0].reason[:23]
    ({'config': {'lr': 0.1}, 'steps': [{'step': 1, 'loss': 2.5}, {'step': 2}]}, 'the document is damaged')
    """
    try:
        size = path.stat().st_size
        if size > DOCUMENT_LIMIT:
            raise InputError(f"{path}: {size:,} bytes in one JSON value; more than {DOCUMENT_LIMIT:,} are not read")
        data = to_utf8(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        value, note = parse_line(data)
    except UnreadableError as error:
        return _damaged(data.decode("utf-8", "replace"), str(path), str(error))
    return Document(value, [Reject(str(path), note)] if note else [])


def _damaged(text: str, file: str, reason: str) -> Document:
    place, closed = _whole_part(text)
    place = len(text) - len(text[place:].lstrip())
    line = text.count("\n", 0, place) + 1
    found = Document(None, [Reject(file, f"the document is damaged: {reason}", line=line, text=text[place:][:200])])
    try:
        found.value = json.loads(closed, object_pairs_hook=plain_pairs) if closed else None
    except (ValueError, RecursionError) as error:
        found.rejects.append(Reject(file, f"what stands before the damage cannot be read either: {error}"))
    found.after = list(_objects(text, place))
    return found


def _whole_part(text: str) -> tuple[int, str]:
    """Where the whole part of a document ends, and that part with what is open in it closed."""
    stack: list[str] = []
    want = "value"  # what may come next: value, key, colon or more (a comma or an end)
    place = safe = 0
    ends = ""
    while (token := _TOKEN.match(text, place)) and len(stack) < _DEEPEST:
        mark, after = token["mark"], token.end()
        if mark in ("{", "["):
            if want != "value":
                break
            stack.append(mark)
            want = "key" if mark == "{" else "value"
        elif mark in ("}", "]"):
            empty = text[place - 1 : place] in ("{", "[")  # nothing stands between the brackets
            if not stack or (stack[-1] == "{") != (mark == "}") or (want != "more" and not empty):
                break
            stack.pop()
            want = "more"
        elif mark == ",":
            if want != "more" or not stack:
                break
            place, want = after, "key" if stack[-1] == "{" else "value"
            continue
        elif mark == ":":
            if want != "colon":
                break
            place, want = after, "value"
            continue
        elif want == "key" and token["string"]:
            place, want = after, "colon"
            continue
        elif want == "value":
            want = "more"
        else:
            break
        place = safe = after
        ends = "".join("}" if s == "{" else "]" for s in reversed(stack))
    return place, text[:safe] + ends


def _objects(text: str, place: int) -> Iterator[dict[str, Any]]:
    """Whole objects with a number in them from `place` on: the innermost damage is passed over."""
    decoder, tries = json.JSONDecoder(object_pairs_hook=plain_pairs), 0
    while tries < _MOST_TRIES:
        place = text.find("{", place)
        if place < 0:
            return
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place, tries = place + 1, tries + 1
            continue
        place = end
        if any(isinstance(v, int | float) and not isinstance(v, bool) for v in value.values()):
            yield value


def leading_value(text: bytes) -> tuple[Any, str]:
    """The JSON value at the beginning of a piece of a line, None where it is damaged, and what was wrong with it.

    >>> leading_value(b'{"a": 1} [rank 3] done')
    ({'a': 1}, 'text runs on after the record at character 9; the record was read')
    """
    try:
        return parse_line(text)
    except UnreadableError as error:
        reason = str(error)
    try:
        value, end = json.JSONDecoder(object_pairs_hook=plain_pairs).raw_decode(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None, reason
    return value, f"text runs on after the record at character {end + 1}; the record was read"
