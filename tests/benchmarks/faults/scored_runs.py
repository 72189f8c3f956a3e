"""Truths and findings made by hand, for the tests of the score."""

from __future__ import annotations

from typing import Any

from benchmarks.faults.score_found import Found, Told
from benchmarks.faults.score_truth import Truth, truth_of

_HEALTHY: dict[str, Any] = {
    "id": "run",
    "path": "runs/run",
    "split": "calibration",
    "family": "classifier",
    "optimizer": "adam",
    "schedule": "constant",
    "points": 100,
    "batch": 8,
    "format": "csv",
    "quirks": [],
    "fault": None,
    "variant": "",
    "magnitude": None,
    "size": None,
    "unit": None,
    "onset_step": None,
    "end_step": None,
    "last_step": 1000,
    "metric": None,
    "accepted": [],
}


def healthy(run: str = "run", **fields: Any) -> Truth:
    return truth_of({**_HEALTHY, "id": run, **fields})


def faulty(fault: str, magnitude: int, onset: int | None = 500, run: str = "run", **fields: Any) -> Truth:
    planted = {"fault": fault, "magnitude": magnitude, "onset_step": onset, "size": 2.0, "unit": "x"}
    return truth_of({**_HEALTHY, "id": run, **planted, **fields})


def finding(kind: str, first_step: int | None = 500, severity: str = "warning", *more: str) -> Found:
    return Found(kind, severity, f"{kind} at {first_step}", first_step, kinds=(kind, *more))


def told(*found: Found, run: str = "run", read: bool = True) -> Told:
    return Told(run, read, found)
