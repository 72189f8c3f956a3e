"""The saves below a path, in the order of training: which file or folder is one checkpoint, and of which step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Save"]


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint of a series, unopened.

    `name` is its path below the folder asked for; `step` and `epoch` are what names and small files beside it tell
    (None where only the checkpoint itself can); `rank` is that of the process whose copy it is, None where there are
    no copies; `label` is `best`, `last`, `ema`, ... where the name says so.
    """

    path: Path
    name: str
    step: int | None = None
    epoch: float | None = None
    rank: int | None = None
    label: str = ""
