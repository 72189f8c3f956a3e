"""One line of a contract dump as what it says: what a stage was given, what it lacked, what it may not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["MARKED", "STEP", "Said", "read_line"]

#: A line that may say something, in a form that the tables' own regular expressions understand too.
MARKED = (
    r"(?i:(?:in|out)put keys:|found '|removing '|cleaned kwargs:|calling \w+ with:|still found in kwargs)"
    r"|FOUND \w+ IN \w+ METHOD|\b(?:DISABLED|ENABLED|FOUND|MISSING|PRESENT|ACTIVE|INACTIVE)\b"
)
#: The step that the lines after it belong to: at the beginning of a message, or with a sign before the number.
STEP = (
    r"(?i)(?:^\W*|[\])|:-]\s+)(?:global[_ ]|training )?step\s*[:=#]?\s*(\d{1,18})\b"
    r"|\b(?:global_)?step\s*[:=#]\s*(\d{1,18})\b"
)
_SOURCE = re.compile(r"\b(?:logger|logging|log|warnings|self\.logger)\.\w+\(|\bprint\(|\braise \w+\(")
_STAGE = re.compile(
    r"\b(training_step|prediction_step|evaluation_step|_prepare_inputs|compute_loss|_prepare_model_inputs_from_dict"
    r"|collate_fn|forward)\b"
)
_KEYS = re.compile(
    r"(?:(?P<way>[Ii]nput|[Oo]utput|INPUT|OUTPUT) [Kk](?:eys|EYS)|Cleaned kwargs|Calling (?P<model>\w+) with)"
    r"\s*:\s*(?P<quote>[`\"]?)(?:(?:o?dict_keys|list|set)\()?\[(?P<list>[^\]]*)(?P<close>\]?)"
)
_NAME = re.compile(r"'((?:[^'\\]|\\.){0,300}+)'|\"((?:[^\"\\]|\\.){0,300}+)\"")
_FOUND = re.compile(r"(?P<quote>[\"`]?)[Ff]ound '(?P<name>[^']{1,200})' in (?P<stage>\w+) inputs(?P<rest>[^\"`]*)")
_REMOVING = re.compile(r"(?P<quote>[\"`]?)Removing '(?P<name>[^']{1,200})' from inputs")
_REACHED = re.compile(r"(?P<quote>[\"`]?)FOUND (?P<name>\w+) IN (?P<stage>\w+) METHOD")
_STILL = re.compile(r"(?P<quote>[\"`]?)(?:CRITICAL: )?(?P<name>\w+) still found in kwargs")
_WORD = r"DISABLED|ENABLED|NOT[ _]FOUND|FOUND|MISSING|NOT PRESENT|PRESENT|NOT ACTIVE|INACTIVE|ACTIVE"
_STATUS = re.compile(
    r"(?P<quote>[\"`]?)\b(?P<name>[A-Za-z][\w/]{0,60}(?:[ -][A-Za-z][\w/]{0,60}){0,5}?)(?:\s+Status|\s+STATUS)?\s*:\s*"
    rf"(?:\[[ xX!+-]\]\s*)?(?:[^\x00-\x7f]{{1,12}}\s*)?(?P<status>(?:{_WORD})(?:\s+(?:or|OR|and|AND)\s+(?:{_WORD}))*)\b"
)
#: What a status must be about to be one of a tensor: files and servers are found or missing too.
_TENSOR = re.compile(
    r"logits?|labels?|\bids?\b|mask|embeddings?|features?|tokens?|audio|mel|spectrogram|pixel|images?|values?|hidden"
    r"|attention|inputs?|outputs?|waveforms?|speaker|codes?|conditioning|whisper|reward|states?",
    re.IGNORECASE,
)
_OUTPUT = re.compile(r"\b(logits?|outputs?|predictions?|loss|hidden|generated)\b", re.IGNORECASE)
_LEVELS = re.compile(r"^(?:(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\s+)+")


@dataclass(frozen=True, slots=True)
class Said:
    """What one message says: `kind` is inputs or outputs, `forbidden` the name that the stage may not pass on."""

    kind: str
    stage: str
    names: tuple[str, ...] = ()
    status: dict[str, str] = field(default_factory=dict)
    forbidden: str = ""
    #: What else is known: the model that was called, whether the line only quotes the message.
    about: dict[str, object] = field(default_factory=dict)
    #: What could not be read of it.
    damage: str = ""


def read_line(text: str) -> Iterator[Said]:
    """What a line says, in the order of the line; nothing where it is a line of source code or of something else.

    >>> [(s.kind, s.stage, s.names) for s in read_line("FOUND LABELS IN FORWARD METHOD! Input keys: ['input_ids']")]
    [('inputs', 'forward', ('labels', 'input_ids'))]
    >>> [(s.kind, s.status) for s in read_line("Logits: NOT FOUND")]
    [('outputs', {'Logits': 'NOT FOUND'})]
    >>> list(read_line("    logger.warning(\\"Found 'labels' in training_step inputs - removing it!\\")"))
    []
    """
    if _SOURCE.search(text):
        return
    keys = _KEYS.search(text)
    reached = _REACHED.search(text)
    if reached:
        name = reached["name"].lower()
        listed, damage = _names(keys) if keys else ((), "")
        names = listed if name in listed else (name, *listed)
        yield Said("inputs", reached["stage"].lower(), names, forbidden=name, about=_about(reached), damage=damage)
    elif keys:
        yield _keys(text, keys)
    for match in _FOUND.finditer(text):
        unwanted = match["name"] if "remov" in match["rest"].lower() else ""
        yield Said("inputs", match["stage"], (match["name"],), forbidden=unwanted, about=_about(match))
    for match in _REMOVING.finditer(text):
        name = match["name"]
        yield Said(
            "inputs", _stage(text[: match.start()]) or "_prepare_inputs", (name,), forbidden=name, about=_about(match)
        )
    for match in _STILL.finditer(text):
        name = match["name"].lower()
        yield Said("inputs", _stage(text[: match.start()]) or "forward", (name,), forbidden=name, about=_about(match))
    yield from _statuses(text)


def _about(match: re.Match[str]) -> dict[str, object]:
    return {"quoted": True} if match["quote"] else {}


def _stage(text: str) -> str:
    found = _STAGE.search(text)
    return found[1] if found else ""


def _keys(text: str, match: re.Match[str]) -> Said:
    names, damage = _names(match)
    kind = "outputs" if (match["way"] or "").lower() == "output" else "inputs"
    about = _about(match) | ({"model": match["model"]} if match["model"] else {})
    stage = _stage(text[: match.start()]) or ("" if match["way"] else "forward")
    return Said(kind, stage, names, about=about, damage=damage)


def _names(match: re.Match[str]) -> tuple[tuple[str, ...], str]:
    """The names of a printed list: only quoted text is read, nothing is evaluated; and what is wrong with it."""
    found = tuple(dict.fromkeys(a or b for a, b in _NAME.findall(match["list"]) if a or b))
    if not match["close"]:
        return found, "the list of keys is cut"
    return found, "the list holds no names in quotes" if not found and match["list"].strip() else ""


def _statuses(text: str) -> Iterator[Said]:
    for match in _STATUS.finditer(text):
        name = _LEVELS.sub("", match["name"])
        if name and _TENSOR.search(name):
            kind = "outputs" if _OUTPUT.search(name) else "inputs"
            stage = _stage(text[: match.start()])
            yield Said(kind, stage, status={name: " ".join(match["status"].split())}, about=_about(match))
