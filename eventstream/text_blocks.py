"""Lines of the structured text log: headers, escapes, and the fields under them, made of what was recorded."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from eventstream.memory import Memory
from eventstream.mirrors import full_tag, numbers

__all__ = ["Block", "Course", "eta_text", "header", "one_line"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BLANK_ENDS = re.compile(r"^\s+|\s+$")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: A component of a loss as it may stand between the braces, and a name that may stand bare before a colon.
_COMPONENT = re.compile(r"[A-Za-z_][A-Za-z0-9_./@#-]*")
_BARE = re.compile(r"[A-Za-z](?:[A-Za-z0-9 _./-]*[A-Za-z0-9_./-])?")
#: Fields with a form of their own: a number of such a name is put in quotes.
_OWN = ("epoch", "files processed", "losses", "memory", "eta", "samples saved")
_EPOCH = 1_000_000
#: Words of levels as `logging` has them; a note may name any.
_LEVELS = re.compile(r"[A-Za-z]{1,20}")


def one_line(text: str) -> str:
    r"""`text` with line ends and control characters as escapes, so that it stays one line whatever it holds.

    >>> one_line("lost\n[2025-07-09 14:30:25.123] [INFO] [x] forged\x1b[2J")
    'lost\\n[2025-07-09 14:30:25.123] [INFO] [x] forged\\x1b[2J'
    """
    return _CONTROL.sub(lambda found: _NAMED.get(found[0]) or _escaped(found), text)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}" for char in found[0])


def header(time_s: float, level: str, module: str, message: str) -> str:
    """`[YYYY-MM-DD HH:MM:SS.mmm] [LEVEL] [MODULE] message`, in UTC.

    >>> header(1752071425.123, "info", "trainer", "Training progress")
    '[2025-07-09 14:30:25.123] [INFO] [trainer] Training progress'
    """
    micros = round(time_s * 1e6)
    at = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)
    word = level.upper() if _LEVELS.fullmatch(level) else "INFO"
    name = one_line(module).replace("]", ")")[:80] or "training"
    return f"[{at:%Y-%m-%d %H:%M:%S}.{micros % _EPOCH // 1000:03d}] [{word}] [{name}] {one_line(message)}"


def eta_text(seconds: float) -> str:
    """A duration as the log prints it, in two units.

    >>> [eta_text(s) for s in (8100, 95_400, 754.6, 12.4, 0)]
    ['2h 15min', '1d 2h 30min', '12min 35s', '12s', '0s']
    """
    whole = round(seconds)
    if whole >= 3600:
        minutes = round(seconds / 60)
        days, hours = divmod(minutes // 60, 24)
        return (f"{days}d " if days else "") + f"{hours}h {minutes % 60}min"
    return f"{whole // 60}min {whole % 60}s" if whole >= 60 else f"{whole}s"


@dataclass(slots=True)
class Course:
    """What is known of the length of a training: epochs, batches of one, and steps in all; None where nobody said."""

    epochs: int | None = None
    batches: int | None = None
    total: int | None = None

    @property
    def steps(self) -> int | None:
        """Steps in all."""
        if self.total is not None or self.epochs is None or self.batches is None:
            return self.total
        return self.epochs * self.batches

    def place(self, step: int, epoch: float | None) -> str:
        """The field that says where the training is.

        Where the batches of an epoch are known, the epoch is counted from 1 by the step; elsewhere it is the one that
        was recorded (a fraction belongs to the epoch that is under way) and the batch is the step over the whole run.

        >>> Course(100, 50).place(225, None), Course(total=3000).place(12, None), Course(3).place(12, 0.4)
        ('Epoch: 5/100, Batch: 25/50', 'Epoch: 1/1, Batch: 12/3000', 'Epoch: 1/3, Batch: 12/?')
        """
        if self.batches:
            current = max(1, -(-step // self.batches))
            total = self.steps
            epochs = self.epochs or (None if total is None else -(-total // self.batches))
            return f"Epoch: {current}/{epochs or '?'}, Batch: {step - (current - 1) * self.batches}/{self.batches}"
        if epoch is None or epoch < 0:
            return f"Epoch: 1/1, Batch: {step}/{self.total or '?'}"
        return f"Epoch: {math.ceil(epoch)}/{self.epochs or '?'}, Batch: {step}/?"


@dataclass(slots=True)
class Block:
    """The numbers and samples of one step, gathered from its records until another step begins."""

    step: int | None = None
    time: float = 0.0
    epoch: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    #: Whether a number of the training itself is among them, and not of an evaluation alone.
    trains: bool = False

    def __bool__(self) -> bool:
        return bool(self.numbers or self.samples)

    def add(self, record: Mapping[str, Any]) -> bool:
        """Take a record in; False, with nothing taken, where it is another step's or says a number a second time."""
        if self and record["step"] != self.step:
            return False
        found = _tags(record)
        if not found.keys().isdisjoint(self.numbers):
            return False
        if not self:
            self.step, self.time, self.epoch = record["step"], record["time"], None
        self.epoch = record.get("epoch", self.epoch)
        self.trains = self.trains or (bool(found) and record.get("split", "train") == "train")
        self.numbers |= found
        if record["kind"] == "samples":
            self.samples += _files(record["payload"])
        return True

    def lines(self, course: Course, memory: Memory, eta_s: float | None, number: str) -> Iterator[str]:
        """The fields; the block's numbers are used up. Memory and ETA stand where numbers of the training do."""
        if self.step is not None and self.step >= 0:
            yield f"  - {course.place(self.step, self.epoch)}"
        taken = self.numbers
        yield from _files_processed(taken)
        losses = list(_components(taken, number))
        if losses:
            yield f"  - Losses: {{{', '.join(losses)}}}"
        yield from _memory(taken, memory if self.trains else Memory(), number)
        if self.trains and eta_s is not None:
            yield f"  - ETA: {eta_text(eta_s)}"
        for tag, value in taken.items():
            yield f"  - {_name(tag)}: {value:{number}}"
        if self.samples:
            yield f"  - Samples saved: {', '.join(self.samples)}"


def _tags(record: Mapping[str, Any]) -> dict[str, float]:
    split = record.get("split", "")
    if split == "train" and record["kind"] != "metrics":
        split = ""  # the log is the training's: its losses and files are not marked as such
    return {full_tag(name, split): value for name, value in numbers(record)}


def _files(payload: Any) -> Iterable[str]:
    files = payload.get("files") if isinstance(payload, dict) else None
    # A comma and a blank part one file from the next.
    return [one_line(str(file)).replace(", ", ",\\x20") for file in files] if isinstance(files, list) else []


def _whole(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value == int(value) and value >= 0


def _files_processed(taken: dict[str, float]) -> Iterator[str]:
    if _whole(taken.get("data/files")):
        text = f"  - Files processed: {int(taken.pop('data/files'))}"
        if _whole(taken.get("data/augmented")):
            text += f" ({int(taken.pop('data/augmented'))} augmented)"
        yield text


def _components(taken: dict[str, float], number: str) -> Iterator[str]:
    """What stands between the braces of `Losses`: a component that has its raw value alone goes by its bare name."""
    tags = [tag for tag in taken if tag.startswith("losses/") and _COMPONENT.fullmatch(tag, 7)]
    parts: dict[str, int] = {}
    for tag in tags:
        base = tag.rpartition("/")[0]
        parts[base] = parts.get(base, 0) + 1
    for tag in tags:
        base, _, part = tag.rpartition("/")
        alone = part == "raw" and parts[base] == 1 and base not in taken and len(base) > 7
        yield f"{(base if alone else tag)[7:]}: {taken[tag]:{number}}"
    for tag in tags:
        del taken[tag]


def _memory(taken: dict[str, float], measured: Memory, number: str) -> Iterator[str]:
    """What was recorded counts; what was not is measured. GPU figures stand together or not at all."""
    given = [taken.get(f"resources/{name}") for name in ("gpu_memory_gb", "gpu_memory_total_gb", "ram_gb")]
    parts = []
    if given[0] is not None and given[1] is not None:
        parts.append(f"GPU {given[0]:{number}}GB/{given[1]:{number}}GB")
        del taken["resources/gpu_memory_gb"], taken["resources/gpu_memory_total_gb"]
    elif given[0] is None and given[1] is None and measured.gpu_gb is not None:
        parts.append(f"GPU {measured.gpu_gb:.2f}GB/{measured.gpu_total_gb:.2f}GB")
    if given[2] is not None:
        parts.append(f"RAM: {taken.pop('resources/ram_gb'):{number}}GB")
    elif measured.ram_gb is not None:
        parts.append(f"RAM: {measured.ram_gb:.2f}GB")
    if parts:
        yield f"  - Memory: {', '.join(parts)}"


@lru_cache(maxsize=20_000)
def _name(tag: str) -> str:
    """A tag before its colon: in quotes where it is not plain words, with quotes and blanks at its ends escaped."""
    if _BARE.fullmatch(tag) and tag.lower() not in _OWN:
        return tag
    return '"' + _BLANK_ENDS.sub(_escaped, one_line(tag).replace('"', "\\x22")) + '"'
