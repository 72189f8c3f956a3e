"""Other programs that judge training logs, run on the very same logs: trainproof, losslint, trainspotter.

They are optional, and live in environments of their own, so that what they need stays out of ours:

    cd .work/peers && for name in losslint trainproof trainspotter; do python -m venv $name; done
    losslint/bin/pip install 'losslint[tb,fast]==0.4.1'
    trainproof/bin/pip install trainproof==0.22.0
    trainspotter/bin/pip install 'trainspotter[tensorboard]==0.2.6'

They are fed generously. Each gets every file that it claims to read (trainspotter: the folder of TensorBoard events),
and what it says of several is put together. Our own event stream, which nobody else claims to read, is given as flat
JSONL, and names in JSONL are put into the form that all of them know (`loss`, `eval_loss`). Findings of any level count
as found; alarms are those that they call a warning or worse.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.peers_files import logs_of
from benchmarks.faults.peers_kinds import LOSSLINT, TRAINPROOF, TRAINSPOTTER
from benchmarks.faults.score_found import Found, Told
from benchmarks.faults.score_judging import Judge
from benchmarks.faults.score_truth import Truth

__all__ = ["HOME", "PEERS", "installed"]

HOME = Path(__file__).parents[2] / ".work" / "peers"
_LIMIT_S = 60.0
#: None: it could not read the log.
Report = list[Found] | None
_SEVERITIES = {"error": "critical", "FAIL": "critical", "WARN": "warning", "warning": "warning"}
_PLACE = re.compile(r"(?:[Ss]teps?:? ?\[?)(\d+)")


def _severity(level: str) -> str:
    return _SEVERITIES.get(level, "info")


def _losslint(report: Mapping[str, Any]) -> Report:
    if not any("loss" in name for run in report["runs"] for name in run["series"]):
        return None
    found = []
    for one in report["findings"]:
        details = one["details"]
        steps = details.get("steps") or [step for _, step in details.get("backtracks", [])]
        first = steps[0] if steps else details.get("since_step")
        found.append(
            Found(one["check"], _severity(one["severity"]), one["message"], first, None, details.get("series"))
        )
    return found


def _trainproof(report: Mapping[str, Any]) -> Report:
    if report["error"] is not None or not report["reports"]:
        return None
    said = [one for judged in report["reports"] for one in judged["findings"]]
    if any(one["id"] in ("TP-NO-LOSS", "TP-NO-RECORDS", "TP-NOT-CHECKED") for one in said):
        return None
    found = []
    for one in said:
        if one["id"] in TRAINPROOF:
            text = f"{one['message']} {one['evidence']}"
            place = _PLACE.search(one["evidence"])
            found.append(Found(one["id"], _severity(one["level"]), text, int(place[1]) if place else None))
    return found


def _trainspotter(report: Mapping[str, Any]) -> Report:
    judged = {"train/loss", "eval/loss", "lr", "grad_norm", "step_time", "throughput"}
    if not judged & set(report["run"]["metrics"]):
        return None
    return [
        Found(
            one["title"], _severity(one["severity"]), one["message"], one["step_start"], one["step_end"], one["metric"]
        )
        for one in report["findings"]
    ]


#: How each is called, and what its JSON means.
_CALLS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Report]]] = {
    "losslint": (("check", "--format", "json"), _losslint),
    "trainproof": (("doctor", "--json"), _trainproof),
    "trainspotter": (("analyze", "--output", "json"), _trainspotter),
}
_KINDS = {"losslint": LOSSLINT, "trainproof": TRAINPROOF, "trainspotter": TRAINSPOTTER}
PEERS = tuple(_CALLS)


def _asked(name: str, log: Path) -> tuple[Report, str]:
    """What a program says of one file or folder, and why it could say nothing."""
    arguments, meaning = _CALLS[name]
    command = [str(HOME / name / "bin" / name), *arguments, str(log)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {_LIMIT_S:g} s"
    if ended.returncode not in (0, 1):
        return None, (ended.stderr or ended.stdout).decode(errors="replace").strip()[-300:]
    try:
        report = json.loads(ended.stdout)
    except json.JSONDecodeError:
        return None, ended.stderr.decode(errors="replace").strip()[-300:]
    said = meaning(report)
    return said, "" if said is not None else "nothing in it that it judges"


def _judged(name: str, truth: Truth, logs: Path) -> Told:
    with tempfile.TemporaryDirectory() as folder:
        answers = [_asked(name, log) for log in logs_of(name, logs / truth.path, Path(folder))]
    said = [report for report, _ in answers if report is not None]
    if not said:
        return Told(truth.id, read=False, error="; ".join(why for _, why in answers) or "no file that it reads")
    return Told(truth.id, read=True, found=tuple(_apart(one for report in said for one in report)))


def _apart(found: Iterator[Found]) -> list[Found]:
    """Each finding once, where several files of a run say the same."""
    return list({(one.name, one.metric, one.first_step): one for one in found}.values())


def installed() -> tuple[Judge, ...]:
    """Those that are there, each with its version."""
    there = [name for name in PEERS if (HOME / name / "bin" / name).exists()]
    return tuple(Judge(name, _version(name), partial(_judged, name), _KINDS[name]) for name in there)


def _version(name: str) -> str:
    """That of the program, and a digest of how it is asked here."""
    here = Path(__file__)
    how = hashlib.sha256(here.read_bytes() + here.with_name("peers_files.py").read_bytes()).hexdigest()[:8]
    asked = f"from importlib.metadata import version; print(version({name!r}))"
    python = HOME / name / "bin" / "python"
    version = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    return f"{version}-{how}"
