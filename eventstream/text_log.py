"""`TextLog`: the run as a text log in one structured form, for people, beside the user's own log lines."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from eventstream.memory import Memory
from eventstream.mirrors import About
from eventstream.rotating import RotatingFile
from eventstream.step_times import StepTimes
from eventstream.text_blocks import Block, Course, header, one_line

__all__ = ["TextLog"]

#: Kinds whose numbers and samples are gathered into the block of their step.
_GATHERED = {"metrics", "losses", "curriculum", "data", "resources", "samples"}
#: Kinds that a training stops for.
_PAUSES = {"checkpoint", "samples", "embeddings"}
#: Memory is asked for at most so often.
_MEMORY_EVERY_S = 1.0
#: Of a configuration or another payload; the stream has it whole.
_LONGEST = 4000


class TextLog(logging.Handler):
    """Writes a run as a structured text log: a mirror of `Recorder`, and a handler of `logging` at the same time.

        [2025-07-09 14:30:25.123] [INFO] [training] Training progress
          - Epoch: 5/100, Batch: 25/50
          - Files processed: 800 (300 augmented)
          - Losses: {recon: 0.45, kl: 0.12}
          - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB
          - ETA: 2h 15min

    What is recorded of one step makes one block, written when another step begins, before the next line of `logging`,
    and at `flush` and `close`: the file lags the training by one step, its lines are in the order of time, and times
    are UTC. Numbers without a place in the form are fields of their own (`- grad_norm: 1.25`), with the split before
    the name; names that are not plain words stand in quotes. `at.load` reads the file back: the same numbers at the
    same steps. Numbers without a step are read under the last one.

    `epochs`, `batches` (of one epoch) and `total_steps` say how long the training is; what is not known is `?`, and
    `total_steps` is the plan's `max_steps` unless given. The ETA is the steps left times the recent time of a step,
    and the pauses to come (`eventstream.step_times`); it is absent until it is known. Memory is what
    `Recorder.resources` was given (`gpu_memory_gb`, `gpu_memory_total_gb`, `ram_gb`), else that of this process, asked
    at most once a second and never of the device. `digits` shortens numbers to that many significant digits; by
    default they are written whole, so that they read back exactly. `module` is the name in the headers.

    Beyond `max_bytes` (100 MB) the file becomes `train.log.1`, which is compressed beside the training, and `backups`
    (5) such files are kept. Line ends and control characters in messages are escapes: no message can forge a header.
    Tracebacks stand under their line, indented. After `close` a line of `logging` opens the file again.

    One file has one process: give it to the recorder of rank 0. Raises ValueError for sizes and counts below 1, and
    InputError where `path` is a folder.

    >>> import tempfile
    >>> from eventstream.recorder import Recorder
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Recorder(folder / "run", mirrors=[TextLog(folder / "train.log", epochs=100, batches=50)]) as rec:
    ...     rec.log(225, {"losses/recon": 0.45, "losses/kl": 0.12})
    >>> print(*(folder / "train.log").read_text().splitlines()[1:3], sep="\\n")
      - Epoch: 5/100, Batch: 25/50
      - Losses: {recon: 0.45, kl: 0.12}
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        epochs: int | None = None,
        batches: int | None = None,
        total_steps: int | None = None,
        digits: int | None = None,
        module: str = "training",
        max_bytes: int = 100_000_000,
        backups: int = 5,
        level: int | str = logging.NOTSET,
    ) -> None:
        counts = {"epochs": epochs, "batches": batches, "total_steps": total_steps, "digits": digits}
        for name, value in {**counts, "max_bytes": max_bytes, "backups": backups}.items():
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
        super().__init__(level)
        #: The newest file of the set.
        self.path = Path(path).absolute()
        if self.path.is_dir():
            raise InputError(f"{self.path}: is a folder; name the file that the log is written to, as in train.log")
        self._file = RotatingFile(self.path, max_bytes, backups)
        self._course = Course(epochs, batches, total_steps)
        self._number = "" if digits is None else f".{digits}g"
        self._module = module
        self._block, self._times = Block(), StepTimes()
        self._phase: object = None
        self._owner = os.getpid()
        self._memory, self._memory_at = Memory(), -_MEMORY_EVERY_S

    def begin(self, about: About) -> None:
        """Learn from the plan how long the training is, where nothing else was said; OSError for no file to write."""
        self._file.open()
        planned = about.plan.get("max_steps")
        if self._course.steps is None and type(planned) is int and planned > 0:
            self._course.total = planned

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record of the stream; OSError where the system refuses the file."""
        self.acquire()
        try:
            self._clock(record)
            if record["kind"] in _GATHERED:
                self._gather(record)
            else:
                self._write_block()
                self._file.write(_event_line(record, self._module).encode())
        finally:
            self.release()

    def _clock(self, record: Mapping[str, Any]) -> None:
        """Keep the time of steps, and know what they stopped for."""
        kind, split = record["kind"], record.get("split", "")
        if kind in _PAUSES or (kind == "metrics" and split not in ("", "train")):
            self._times.pause()
        elif kind in ("metrics", "losses") and record["step"] is not None:
            self._times.step(record["step"], record["time"])

    def _gather(self, record: Mapping[str, Any]) -> None:
        payload = record.get("payload")
        phase = payload.get("phase") if record["kind"] == "curriculum" and isinstance(payload, dict) else None
        if phase not in (None, self._phase):
            self._write_block()
            self._phase = phase
            line = header(record["time"], "INFO", self._module, f"Curriculum phase: {phase}")
            self._file.write(f"{line}\n".encode())
        if not self._block.add(record):
            self._write_block()
            self._block.add(record)

    def _write_block(self) -> None:
        block, self._block = self._block, Block()
        if not block or os.getpid() != self._owner:
            return  # what a forked child inherited is its parent's to write
        steps = self._course.steps
        eta_s = None if steps is None else self._times.remaining(steps)
        message = "Training progress" if block.trains else "Evaluation" if block.numbers else "Samples"
        lines = [header(block.time, "INFO", self._module, message)]
        lines += block.lines(self._course, self._memory_now() if block.trains else Memory(), eta_s, self._number)
        self._file.write(("\n".join(lines) + "\n").encode())

    def _memory_now(self) -> Memory:
        now = time.monotonic()
        if now - self._memory_at >= _MEMORY_EVERY_S:
            self._memory, self._memory_at = Memory.now(), now
        return self._memory

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line of `logging` in the same form; what fails goes the way of all handlers, to `handleError`."""
        try:
            self._write_block()
            self._file.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001 - as `logging` asks of its handlers: arguments of users raise anything
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """The header of a line of `logging`, and its traceback, indented, where it has one."""
        if self.formatter is not None:
            return super().format(record)
        lines = [header(record.created, record.levelname, record.name, record.getMessage())]
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        for text in filter(None, (record.exc_text, record.stack_info)):
            lines += [f"    | {one_line(line)}" for line in text.splitlines()]
        return "\n".join(lines)

    def flush(self) -> None:
        """Write what has been gathered of the current step."""
        self.acquire()
        try:
            self._write_block()
        finally:
            self.release()

    def close(self) -> None:
        """Write what has been gathered, and close the file when its backups are compressed."""
        self.acquire()
        try:
            self._write_block()
        finally:
            self._file.close()
            self.release()
            super().close()


def _event_line(record: Mapping[str, Any], module: str) -> str:
    level, message = _told(record["kind"], record.get("payload"))
    return header(record["time"], level, module, message) + "\n"


def _told(kind: str, payload: Any) -> tuple[str, str]:
    """Level and sentence of a record that is no block of numbers."""
    known = payload if isinstance(payload, dict) else {}
    if kind == "note":
        return str(known.get("level", "info")), str(known.get("text", ""))
    if kind == "checkpoint":
        size = known.get("bytes")
        return "INFO", f"Checkpoint saved: {known.get('path')}" + (f" ({size:,} bytes)" if type(size) is int else "")
    if kind == "end":
        status, error = known.get("status"), known.get("error")
        level = {"failed": "ERROR", "interrupted": "WARNING"}.get(str(status), "INFO")
        return level, f"Training {status}" + (f": {error}" if error else "")
    title = {"config": "Configuration"}.get(kind, kind)
    text = json.dumps(payload, ensure_ascii=False)
    return "INFO", f"{title}: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' ...'}"
