"""The truth of a run, and where the generated logs stand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.ladder import ladder_of

__all__ = ["FOLDER", "HALVES", "INDEX", "PRACTICE", "SPLITS", "RunTruth", "complete", "folder_of", "write_index"]

#: Where the logs stand unless another folder is named (git ignores it), and the name of the list of all of them.
FOLDER = Path(__file__).parents[2] / ".work" / "faults"
INDEX = "index.json"
#: Of all runs one half is for setting thresholds and one for the score; `practice` runs are made on demand, to learn
#: from misses that the calibration half is too small to show.
HALVES, PRACTICE = ("calibration", "scored"), "practice"
SPLITS = (*HALVES, PRACTICE)


def folder_of(split: str) -> Path:
    """Where the runs of a split stand unless another folder is named: those for practice stand apart."""
    return FOLDER.with_name(f"{FOLDER.name}-{PRACTICE}") if split == PRACTICE else FOLDER


@dataclass
class RunTruth:
    """One line of `index.json`, and `truth.json` beside a run's log. `path` is relative to the folder of all runs.

    `fault` is None for a healthy run. `size` is the effect that was measured, `wanted` the ladder's; `end_step` is None
    where the fault lasts to the end. `accepted` are further kinds that are true of this run.
    """

    id: str
    path: str
    split: str
    family: str
    optimizer: str
    schedule: str
    points: int
    batch: int
    format: str
    quirks: list[str]
    fault: str | None
    variant: str
    magnitude: int | None
    size: float | None
    wanted: float | None
    unit: str | None
    onset_step: int | None
    end_step: int | None
    last_step: int | None
    metric: str | None
    accepted: list[str]
    every: int
    seed: int
    draws: int
    extra: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes `truth.json`: the last thing that is written of a run, so that it is whole where this is there."""
        text = json.dumps(_plain(asdict(self)), indent=1)
        (folder / "truth.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def complete(folder: Path) -> bool:
    """Whether a run was made wholly."""
    return (folder / "truth.json").exists()


def write_index(folder: Path, ids: Iterable[str]) -> int:
    """Writes the index with the truths of the runs that are complete, in the order of `ids`; returns how many.

    What the ladder accepts beside a fault is that of the ladder as it stands: it holds for runs that are there as well.
    """
    found = []
    for name in ids:
        path = folder / "runs" / name / "truth.json"
        if path.exists():
            found.append(_accepting(json.loads(path.read_text(encoding="utf-8"))))
    (folder / INDEX).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return len(found)


def _accepting(row: dict[str, Any]) -> dict[str, Any]:
    if row["fault"] is None:
        return row
    known = dict.fromkeys([*row["accepted"], *ladder_of(row["fault"], row["variant"]).accepted])
    return row | {"accepted": [one for one in known if one != row["fault"]]}
