"""Our own verdict on a generated run, through the doors that everybody uses."""

from __future__ import annotations

import hashlib
import importlib
import time
import traceback
from pathlib import Path

from benchmarks.faults.score_found import Found, Told
from benchmarks.faults.score_judging import Judge
from benchmarks.faults.score_truth import Truth

__all__ = ["judge", "ours", "version"]

_CODE = ("analysis", "parsers", "eventstream", "aftertrain")


def version() -> str:
    """A digest of the code that judges: what it said is kept as long as no line of it changed."""
    digest = hashlib.sha256()
    for package in _CODE:
        folder = Path(str(importlib.import_module(package).__file__)).parent  # what is imported: checkout or wheel
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def judge(truth: Truth, logs: Path) -> Told:
    """What `at.diagnose(at.load(path))` tells. A log that we refuse is one that we cannot read."""
    import aftertrain as at

    began = time.perf_counter()
    try:
        diagnosis = at.diagnose(at.load(logs / truth.path))
    except at.InputError as error:
        return Told(truth.id, read=False, error=str(error), seconds=time.perf_counter() - began)
    except Exception as error:  # noqa: BLE001 a crash is a result too: it counts as nothing found, and is shown
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Told(truth.id, read=False, error=f"crash: {type(error).__name__} at {where}: {error}")
    found = tuple(
        Found(one.kind, one.severity, one.message, one.first_step, one.last_step, one.metric)
        for one in diagnosis.findings
    )
    unjudged = {one.kind: one.reason for one in diagnosis.not_applicable}
    return Told(truth.id, True, found, unjudged, seconds=time.perf_counter() - began)


def ours() -> Judge:
    """Ours, at the version of the code as it stands."""
    return Judge("aftertrain", version(), judge)
