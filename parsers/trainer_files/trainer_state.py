"""`trainer_state.json` of the Hugging Face Trainer: its facts and its log history, also where the file is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eventstream.errors import InputError
from parsers.content.jsontext import plain_pairs
from parsers.content.lines import to_utf8
from parsers.finish import Reject

__all__ = ["State", "parse_state", "read_state"]

#: Largest file that is read: it is one JSON value and has to be held whole.
STATE_LIMIT = 1 << 30
#: After so many damaged places nothing more is looked for: the rest is no log.
MOST_DAMAGE = 200
_HISTORY = re.compile(r'"log_history"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(slots=True)
class State:
    """One file: `facts` are its keys beside the history, `entries` the objects of the history in the order logged."""

    file: str
    facts: dict[str, Any] = field(default_factory=dict)
    entries: list[Mapping[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The largest step that the file tells, -1 where it tells none."""
        steps = [self.facts.get("global_step"), *(entry.get("step") for entry in self.entries[-3:])]
        return max((int(s) for s in steps if isinstance(s, int | float) and s == s and abs(s) < 2**63), default=-1)


def read_state(path: Path) -> State:
    """The state in the file at `path`; raises `InputError` when it cannot be opened or is larger than 1 GiB."""
    try:
        size = path.stat().st_size
        if size > STATE_LIMIT:
            raise InputError(f"{path}: {size:,} bytes in one JSON value; more than {STATE_LIMIT:,} are not read")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_state(data, str(path))


def parse_state(data: bytes, file: str) -> State:
    """The state in `data`; `NaN` and `Infinity` are read as Python's json writes them.

    Of a damaged file the entries before and after the damage are read, as far as they can be told from each other, and
    each damaged place is a reject with its line.

    >>> state = parse_state(b'{"max_steps": 9, "log_history": [{"step": 1, "loss": NaN}, {"step": 2, "lo', "a.json")
    >>> state.facts, state.entries, state.rejects[0].reason[:30]
    ({'max_steps': 9}, [{'step': 1, 'loss': nan}], 'the file is cut inside an entr')
    """
    text = to_utf8(data)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _strictly_not(text)
    if isinstance(value, dict) and isinstance(value.get("log_history"), list):
        state = State(file, {k: v for k, v in value.items() if k != "log_history"})
        state.entries = _objects(value["log_history"], state)
        return state
    return _salvaged(text, file)


def _strictly_not(text: bytes) -> Any:
    """The value of what is JSON only to Python's json; None where it is none."""
    try:
        return json.loads(text, object_pairs_hook=plain_pairs)
    except (ValueError, RecursionError):  # UnicodeDecodeError and integers of too many digits are ValueErrors
        return None


def _objects(history: list[Any], state: State) -> list[Mapping[str, Any]]:
    if all(type(entry) is dict for entry in history):
        return history
    for place, entry in enumerate(history, 1):
        if not isinstance(entry, dict):
            reason = f"element {place} of log_history is no object"
            state.rejects.append(Reject(state.file, reason, text=str(entry)))
    return [entry for entry in history if isinstance(entry, dict)]


def _salvaged(data: bytes, file: str) -> State:
    state = State(file)
    text = data.decode("utf-8", "replace")
    begin = _HISTORY.search(text)
    if begin is None:
        state.rejects.append(Reject(file, "damaged, and no log_history can be found in it", text=text))
        return state
    _take_facts(state, text[: begin.start()].rstrip().rstrip(",") + "}", text, 0)
    end = _scan(state, text, begin.end())
    if end < len(text):
        _take_facts(state, "{" + text[end + 1 :].lstrip().removeprefix(","), text, end)
    return state


def _scan(state: State, text: str, place: int) -> int:
    """Take the entries from `place` on; gives where the history closes, or the length of the text where it does not."""
    decoder = json.JSONDecoder(object_pairs_hook=plain_pairs)
    while len(state.rejects) < MOST_DAMAGE:
        place = _end_of_gap(text, place)
        if place >= len(text):
            _reject(state, text, place, "the file is cut after an entry of log_history")
            return place
        if text[place] == "]":
            return place
        try:
            value, end = decoder.raw_decode(text, place)
        except RecursionError:
            _reject(state, text, place, "nested too deeply to be read; what follows is not read")
            return len(text)
        except ValueError as error:
            following = text.find("{", place + 1)
            if following < 0:
                _reject(state, text, place, f"the file is cut inside an entry of log_history ({_said(error)})")
                return len(text)
            _reject(state, text, place, f"an entry of log_history is damaged ({_said(error)})")
            place = following
            continue
        if isinstance(value, dict) and ("step" in value or "epoch" in value):
            state.entries.append(value)
        else:
            _reject(state, text, place, "not an entry of log_history: it has no step and no epoch")
        place = end
    _reject(state, text, place, f"more than {MOST_DAMAGE} damaged places; what follows is not read")
    return len(text)


def _end_of_gap(text: str, place: int) -> int:
    gap = _BETWEEN.match(text, place)
    return place if gap is None else gap.end()


def _said(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _take_facts(state: State, object_: str, text: str, place: int) -> None:
    try:
        state.facts |= json.loads(object_, object_pairs_hook=plain_pairs)
    except (ValueError, RecursionError):
        _reject(state, text, place, "the facts beside log_history are damaged and were not read")


def _reject(state: State, text: str, place: int, reason: str) -> None:
    line = text.count("\n", 0, place) + 1
    state.rejects.append(Reject(state.file, reason, line=line, text=text[place : place + 200].strip()))
