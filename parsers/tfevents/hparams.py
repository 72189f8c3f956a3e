"""Configuration in TensorBoard's files: the hparams plugin, and texts that hold a configuration as JSON."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.protobuf import WireError, body, fields, integer, text
from parsers.tables.columns import CONFIG_KEYS

__all__ = ["read_hparams", "stated_config"]

#: Nesting of google.protobuf.Value that is followed; beyond it the value is left out.
DEPTH = 32
_STATUS = {1: "success", 2: "failure", 3: "running"}
_PRE = re.compile(r"\s*<pre>(.*)</pre>\s*", re.DOTALL)
#: Tags of texts that hold a configuration, beside the keys of JSON logs: Coqui's trainer writes the whole of it under
#: the first, Hugging Face's the model's part, kept under its name, under the second.
WHOLE, MODEL = "model-config", "model_config"


def read_hparams(data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events (kind, payload) of an HParamsPluginData: `config` with the hyper-parameters, `session` with the rest.

    The status of a session that torch writes says nothing of the training: it is written with the hyper-parameters.
    """
    for number, value in fields(data):
        if number == 3:
            hparams, session = _start(body(value))
            yield "config", hparams
            if session:
                yield "session", session
        elif number == 4:
            status = integer(dict(fields(body(value))).get(1, 0))
            yield "session", {"status": _STATUS.get(status, "unknown")}


def _start(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    hparams: dict[str, Any] = {}
    session: dict[str, Any] = {}
    for number, value in fields(data):
        if number == 1:
            entry = dict(fields(body(value)))
            hparams[text(entry.get(1, b""))] = _plain(body(entry.get(2, b"")))
        elif number in (2, 3, 4):
            session[{2: "model_uri", 3: "monitor_url", 4: "group_name"}[number]] = text(value)
    return hparams, {key: value for key, value in session.items() if value}


def _plain(data: bytes, depth: int = 0) -> Any:
    """A google.protobuf.Value as a Python value."""
    found: Any = None
    for number, value in fields(data):
        if number == 2:
            found = _double(value)
        elif number == 3:
            found = text(value)
        elif number == 4:
            found = bool(integer(value))
        elif number == 5 and depth < DEPTH:
            entries = [dict(fields(body(one))) for key, one in fields(body(value)) if key == 1]
            found = {text(e.get(1, b"")): _plain(body(e.get(2, b"")), depth + 1) for e in entries}
        elif number == 6 and depth < DEPTH:
            found = [_plain(body(one), depth + 1) for key, one in fields(body(value)) if key == 1]
    return found


def _double(value: int | bytes) -> float:
    data = body(value)
    if len(data) != 8:
        raise WireError(f"a number of {len(data)} bytes where 8 belong")
    return float(struct.unpack("<d", data)[0])


def stated_config(tag: str, texts: list[str]) -> dict[str, Any]:
    """The configuration that a text under `args`, `config`, `hparams` or `model_config` holds as JSON, else nothing.

    >>> stated_config("args/text_summary", ['{"learning_rate": 0.1}']), stated_config("sample", ['{"a": 1}'])
    ({'learning_rate': 0.1}, {})
    """
    name = tag.removesuffix("/text_summary")
    if len(texts) != 1 or name not in CONFIG_KEYS | {WHOLE, MODEL}:
        return {}
    inside = _PRE.fullmatch(texts[0])
    try:
        found, _ = parse_line((inside[1] if inside else texts[0]).encode("utf-8", "replace"))
    except UnreadableError:
        return {}  # prose or a table: the text is an event in any case
    if not isinstance(found, dict):
        return {}
    return {name: found} if name == MODEL else found
