"""Faults of the input contract: what a stage is handed, and what it is not, by its `inputs` and `outputs` events."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.injection.draft import Draft
from analysis.injection.fault import Fault
from parsers.tables.events import payload_object

__all__ = ["FAULTS"]

_RECORD = "record them: rec.inputs(step, 'forward', batch), or at.watch_inputs(model, rec)"


@dataclass(frozen=True, slots=True, eq=False)
class _Event:
    """One event of a stage: its row among the events, and its payload."""

    row: int
    step: int | None
    payload: dict[str, Any]

    @property
    def stage(self) -> str:
        return str(self.payload.get("stage") or "")

    @property
    def tensors(self) -> dict[str, Any]:
        held = self.payload.get("tensors")
        return held if isinstance(held, dict) else {}

    @property
    def statuses(self) -> dict[str, Any]:
        held = self.payload.get("status")
        return held if isinstance(held, dict) else {}


def _events(draft: Draft, kind: str) -> list[_Event]:
    found = []
    rows = draft.events.with_row_index("_row").filter(pl.col("kind") == kind).select("_row", "step", "payload")
    for row, step, text in rows.iter_rows():
        if payload := payload_object(text):
            found.append(_Event(row, step, payload))
    if not found:
        raise draft.refused(f"no {kind} of any stage were recorded; {_RECORD}")
    return found


def _rules(draft: Draft, direction: str, word: str) -> Iterator[tuple[str, str]]:
    """Stage and name of everything that the plan, or a contract event, requires or forbids."""
    told = [draft.run.plan.get(direction)]
    payloads = draft.events.filter(pl.col("kind") == "contract")["payload"]
    told += [payload_object(text).get(direction) for text in payloads]
    for stages in told:
        for stage, rule in stages.items() if isinstance(stages, dict) else ():
            names = rule.get(word) if isinstance(rule, dict) else None
            yield from ((str(stage), str(name)) for name in names or () if not set(str(name)) & set("*?["))


def _rewritten(draft: Draft, events: list[_Event], how: Callable[[dict[str, Any]], None]) -> None:
    """The payloads of some events, changed by `how`."""
    texts = draft.events["payload"].to_list()
    for event in events:
        payload = copy.deepcopy(event.payload)
        how(payload)
        texts[event.row] = json.dumps(payload)
    draft.events = draft.events.with_columns(payload=pl.Series("payload", texts, pl.String))


def _missing(direction: str) -> Callable[[Draft], None]:
    def plant(draft: Draft) -> None:
        events = _events(draft, direction)
        named = [(stage, name) for stage, name in _rules(draft, direction, "require")]
        held = [(s, n) for s, n in named if any(e.stage == s and n in e.tensors for e in events)]
        if not held:
            raise draft.refused(
                f"the plan requires nothing that a recorded stage held; say what is needed: "
                f"plan={{'{direction}': {{'{events[0].stage}': {{'require': [...]}}}}}}"
            )
        stage, name = held[0]

        def renamed(payload: dict[str, Any]) -> None:
            held = payload.get("tensors")
            if isinstance(held, dict) and name in held:
                payload["tensors"] = {f"other_{name}" if key == name else key: held[key] for key in held}

        _rewritten(draft, [e for e in events if e.stage == stage], renamed)

    return plant


def _onset(draft: Draft) -> int | None:
    """The step at which one more event comes."""
    draft.of_the_log = True
    return draft.begin(draft.longest(_RECORD)).step if len(draft.run.roles) else draft.run.last_step


def _forbidden(draft: Draft) -> None:
    events = _events(draft, "inputs")
    stages = {e.stage for e in events}
    named = [(stage, name) for stage, name in _rules(draft, "inputs", "forbid") if stage in stages]
    if not named:
        raise draft.refused("the plan forbids nothing in a recorded stage; say what it must not see: 'forbid': [...]")
    stage, name = named[0]
    last = [e for e in events if e.stage == stage][-1]
    payload = copy.deepcopy(last.payload)
    payload.setdefault("tensors", {})[name] = {"shape": [1], "dtype": "int64"}
    draft.add_event("inputs", payload, _onset(draft), like="inputs")


def _mixed(draft: Draft) -> None:
    events = [e for e in _events(draft, "inputs") if len(e.tensors) > 1]
    if not events:
        raise draft.refused("no stage was recorded with two tensors or more, which could lie apart")
    payload = copy.deepcopy(events[-1].payload)
    about = list(payload["tensors"].values())
    devices = [str(one.get("device") or "cpu") if isinstance(one, dict) else "cpu" for one in about]
    names = list(payload["tensors"])
    for name, device in zip(names, devices, strict=True):
        own = payload["tensors"][name] if isinstance(payload["tensors"][name], dict) else {}
        payload["tensors"][name] = {**own, "device": device}
    payload["tensors"][names[-1]]["device"] = "cpu" if devices[0] != "cpu" else "cuda:0"
    draft.add_event("inputs", payload, _onset(draft), like="inputs")


def _disabled(draft: Draft) -> None:
    """`size` of the status reports of an input call it DISABLED: the last ones."""
    events = [e for e in _events(draft, "inputs") if e.statuses]
    if not events:
        raise draft.refused("no status of an input was recorded; record it: rec.inputs(..., status={'speaker': 'OK'})")
    name = next(iter(events[-1].statuses))
    told = [e for e in events if name in e.statuses]
    count = min(max(round(draft.size * len(told)), 1), len(told))
    _rewritten(draft, told[-count:], lambda payload: payload["status"].update({name: "DISABLED"}))


FAULTS = (
    Fault(
        "missing-input",
        "an input that the plan requires stands under another name in every record of its stage",
        _missing("inputs"), placed=False,
    ),
    Fault(
        "missing-output",
        "an output that the plan requires stands under another name in every record of its stage",
        _missing("outputs"), placed=False,
    ),
    Fault("forbidden-input", "one more record of a stage holds an input that the plan forbids there", _forbidden),
    Fault("device-mismatch", "one more record of a stage has a tensor on another device", _mixed),
    Fault(
        "disabled-conditioning",
        "the last `size` of the status reports of an input call it DISABLED",
        _disabled, "share of the reports", 1.0, 0.0, 0.0, 1.0, placed=False,
    ),
)  # fmt: skip
