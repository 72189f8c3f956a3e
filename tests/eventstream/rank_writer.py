"""What processes of the tests run beside each other; imports little, so that they start soon."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from eventstream.recorder import Recorder

__all__ = ["Rows", "write"]


def write(folder: Path, rank: int, count: int, gate: Any = None) -> None:
    """Record `count` times as one rank; with `gate`, at the same time as others."""
    with Recorder(folder, rank=rank, seal=False, segment_bytes=1 << 15) as rec:
        if gate is not None:
            gate.wait(120)
        for step in range(count):
            rec.log(step, {"loss": rank + step / count, "serial": float(rank * count + step)}, split="train")


class Rows:
    """A data set whose rows tell the recorder of themselves, and give (index, warnings, lost, process)."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> list[int]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.recorder.log(index, {"in_worker": 1.0})
            self.recorder.event("row", {"index": index})
            self.recorder.flush()
        return [index, len(said), self.recorder.lost, os.getpid()]
