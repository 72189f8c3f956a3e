"""Writers of logs: a trace in the format of a framework, as that framework (or its users) would have left it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.trace import Trace
from benchmarks.faults.writers.event_stream import write_stream
from benchmarks.faults.writers.json_lines import write_json_lines
from benchmarks.faults.writers.lightning_csv import write_lightning
from benchmarks.faults.writers.plain_text import write_text
from benchmarks.faults.writers.tensorboard_events import write_tensorboard
from benchmarks.faults.writers.trainer_state import write_trainer_state
from benchmarks.faults.writers.two_loggers import write_both

__all__ = ["FORMATS", "Format"]

Writer = Callable[[Trace, Path, np.random.Generator], Path]


@dataclass(frozen=True)
class Format:
    """A format: what writes it into a folder (giving back what is to be loaded), and what it can tell.

    `times`: rows have a time. `names`: any metric keeps its name. `records`: rows are lines of one text file.
    """

    write: Writer
    times: bool
    names: bool
    records: bool


FORMATS = {
    "event-stream": Format(write_stream, times=True, names=True, records=True),
    "jsonl": Format(write_json_lines, times=True, names=True, records=True),
    "lightning-csv": Format(write_lightning, times=False, names=True, records=True),
    "trainer-state": Format(write_trainer_state, times=False, names=False, records=False),
    "tensorboard": Format(write_tensorboard, times=True, names=True, records=False),
    "csv+tensorboard": Format(write_both, times=False, names=True, records=False),
    "text": Format(write_text, times=True, names=True, records=True),
}
