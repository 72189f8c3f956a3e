"""Every miss and every false alarm with its message, for those who mend the detectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.score import PLACED, Outcome, Score
from benchmarks.faults.score_found import Found
from benchmarks.faults.score_truth import OBVIOUS_TO_MIDDLE

__all__ = ["misses", "write_misses"]


def misses(score: Score) -> Iterator[dict[str, Any]]:
    """One record a miss at magnitude 1 to 4, a false alarm in a healthy run, a false finding in a faulty one.

    Also for what could not be read, and for a true finding that does not begin where the fault does ("misplaced"; at
    1 to 4). `what` says which; for a miss, `unjudged` is the reason that was given for not looking, and `instead` are
    all findings of the run.
    """
    for one in score.outcomes:
        truth = one.truth
        if not one.told.read:
            yield {**_run(one, "not read"), "error": one.told.error}
        if truth.fault is not None and not one.found and truth.magnitude in OBVIOUS_TO_MIDDLE:
            unjudged = one.told.unjudged.get(truth.fault)
            yield {**_run(one, "missed"), "unjudged": unjudged, "instead": [_said(found) for found in one.told.found]}
        if one.found and truth.magnitude in OBVIOUS_TO_MIDDLE and (one.onset_error is None or one.onset_error > PLACED):
            yield {**_run(one, "misplaced"), "onset_error": one.onset_error, **_said(one.true[0])}
        for found in one.false:
            yield {**_run(one, "false alarm" if truth.fault is None else "false finding"), **_said(found)}


def _run(one: Outcome, what: str) -> dict[str, Any]:
    truth = one.truth
    told = {
        name: getattr(truth, name)
        for name in (
            "id",
            "path",
            "fault",
            "variant",
            "magnitude",
            "size",
            "unit",
            "onset_step",
            "end_step",
            "last_step",
            "metric",
            "points",
            "family",
            "schedule",
            "format",
            "quirks",
        )
    }
    return {"what": what, **told}


def _said(found: Found) -> dict[str, Any]:
    return {
        "kind": found.name,
        "severity": found.severity,
        "on": found.metric,
        "first_step": found.first_step,
        "message": found.message,
    }


def write_misses(score: Score, path: Path) -> int:
    """One JSON line each; the number of lines."""
    rows = list(misses(score))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)
