"""The JSON object of judged runs: what `aftertrain check --format json` prints and `report.json` holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from analysis.diagnose import Diagnosis
from analysis.findings import Finding, status_of
from analysis.indicators.table import states_of

__all__ = ["VERSION", "diagnosis_json", "to_json"]

#: Raised when a reader of version 1 could misread the object; new keys alone do not raise it.
VERSION = 1
_SURROGATES = re.compile("[\ud800-\udfff]")


def diagnosis_json(diagnoses: Iterable[Diagnosis]) -> dict[str, Any]:
    """The judgement of several runs as one object of plain dicts, lists, strings, finite numbers, true, false and null.

    Keys: `version` (1), `status` (of the worst run; healthy for no run) and `runs`, one object a run with `run`,
    `path`, `format`, `status`, `summary` (a sentence), `findings` (worst first), `incidents`, `not_applicable`,
    `rejects` (how many), `health` (the status of each indicator of `at.health` that is known), `plan` (`understood`:
    each entry of the plan with where it was read; `not_understood`: sentences). Each of `incidents`
    (worst first) has `story`, `severity`, `first_step`, `last_step`, `root` and `followers` (places in `findings`, from
    0; every finding is in exactly one incident), `why` (one reason a follower), `causes` and `suggestions`. NaN and
    infinities are the strings "NaN", "Infinity" and "-Infinity"; a file name that is not Unicode has U+FFFD where it is
    broken.

    >>> diagnosis_json([])
    {'version': 1, 'status': 'healthy', 'runs': []}
    """
    judged = list(diagnoses)
    findings: list[Finding] = [f for d in judged for f in d.findings]
    return {"version": VERSION, "status": status_of(findings), "runs": [_run(d) for d in judged]}


def _run(diagnosis: Diagnosis) -> dict[str, Any]:
    made: dict[str, Any] = _plain(
        {
            "run": diagnosis.run,
            "path": diagnosis.source.path,
            "format": diagnosis.source.format,
            "status": diagnosis.status,
            "summary": diagnosis.summary,
            "findings": [f.to_dict() for f in diagnosis.findings],
            "incidents": [i.to_dict(diagnosis.findings) for i in diagnosis.incidents],
            "not_applicable": [n.to_dict() for n in diagnosis.not_applicable],
            "rejects": diagnosis.source.rejects.height,
            "health": {name: state for name, state in states_of(diagnosis).items() if state != "unknown"},
            "plan": {
                "understood": dict(diagnosis.source.planned.sources),
                "not_understood": list(diagnosis.source.planned.not_understood),
            },
        }
    )
    return made


def _plain(value: Any) -> Any:
    """Halves of surrogate pairs, as Python reads undecodable file names, have no place in UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def to_json(diagnoses: Iterable[Diagnosis]) -> str:
    """`diagnosis_json` as strictly valid text, indented by two, with a line break at its end.

    >>> print(to_json([]), end="")
    {
      "version": 1,
      "status": "healthy",
      "runs": []
    }
    """
    return json.dumps(diagnosis_json(diagnoses), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
