"""Text logs that print what a model was given: keys of inputs, what was not found or disabled, what was removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError
from parsers.content.lines import to_utf8
from parsers.finish import Reject
from parsers.places.beside import run_name
from parsers.registry import Format, formats
from parsers.run import Run
from parsers.schema import REJECTS
from parsers.tables.generic import Records
from parsers.text_logs.contract_lines import MARKED, STEP, Said, read_line
from parsers.text_logs.lines import Lines, text_lines

__all__ = ["is_part", "read", "sniff"]

NAME = "contract-dumps"
_HEAD = 1 << 16
#: Bytes searched for a first message.
_SEARCHED = 4 << 20
#: Only these are surely of a contract dump; a status alone needs the name of a tensor, which `read_line` looks at.
_MAYBE = re.compile(MARKED.encode())
#: So many lines that might say something are looked at to tell the format.
_TRIES = 200
#: Order of what is said of the log as a whole: after all of its lines.
_LAST = 1 << 60


def sniff(path: Path, head: bytes) -> bool:
    """Whether a message of a contract dump stands in the first 4 MiB of a text (`head` is looked at first)."""
    if head.lstrip()[:1] in (b"{", b"[") and _is_json(head):
        return False
    if _says(head):
        return True
    if len(head) < _HEAD or b"\0\0" in head or not path.match("*.[lto][oux]*"):
        return False
    with path.open("rb") as file:
        return _says(file.read(_SEARCHED))


def _is_json(head: bytes) -> bool:
    return re.match(rb'\s*(?:\{\s*"|\[\s*[\{\["\d\]-])', head) is not None


def _says(data: bytes) -> bool:
    data, place = to_utf8(data), 0
    for _ in range(_TRIES):
        match = _MAYBE.search(data, place)
        if match is None:
            return False
        begin, end = data.rfind(b"\n", 0, match.start()) + 1, data.find(b"\n", match.end())
        place = len(data) if end < 0 else end
        line = data[max(begin, match.start() - 2000) : min(place, match.end() + 20_000)]
        if any(said.names or said.status for said in read_line(line.decode("utf-8", "replace"))):
            return True
    return False


def is_part(path: Path) -> bool:
    """Whether `path` is a part of another log by the format that reads its numbers."""
    other = _other(path)
    return other is not None and other.is_part(path)


def _other(path: Path) -> Format | None:
    """The format that reads everything else in the file."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return next((f for f in formats() if f.name != NAME and not f.folder and f.sniff(path, head)), None)


@dataclass(slots=True)
class _Dump:
    """What was read so far; `step` is the last that a line told."""

    records: Records
    step: int | None = None
    forbidden: dict[str, None] = field(default_factory=dict)
    seen: int = 0

    def add(self, line: int, said: Said, text: str) -> None:
        if said.damage:
            self.records.reject(line, said.damage, text)
        if not said.names and not said.status:
            return
        self.seen += 1
        payload: dict[str, Any] = {"stage": said.stage}
        if said.names:
            payload["tensors"] = {name: {} for name in said.names}
        if said.status:
            payload["status"] = said.status
        if said.forbidden:
            self.forbidden[said.forbidden] = None
        self.records.event((line, 0, 0, self.step, None, None, ""), said.kind, payload | said.about)


def read(path: Path | str) -> Run:
    r"""The run of a text log with what it prints about inputs and outputs as events `inputs` and `outputs`.

    Read are `Input keys: [...]`, `Output keys: [...]`, `Calling Model with: [...]` and `Cleaned kwargs: [...]` (stage
    `forward`), `Found 'labels' in training_step inputs`, `Removing 'labels' from inputs` (stage `_prepare_inputs`),
    `FOUND LABELS IN FORWARD METHOD!`, and statuses of tensors (`Input IDs: NOT FOUND`, `... Status: DISABLED`). The
    stage is the one that the message or its prefix names, else empty. The step is the last that the log told before.
    Printed lists are never evaluated, only quoted names are taken out of them. Messages that a document quotes are
    marked `quoted`; lines of source code that would print them are passed over. A name that the log says it removes or
    must not see is forbidden for the stage `forward` in `run.plan`, and a note says so. Numbers and everything else
    of the log are read by the format that it has besides.

    Raises `InputError` when the file cannot be opened or holds no such message.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "train.log")
    ...     _ = path.write_text("Step 3\nFOUND LABELS IN FORWARD METHOD! Input keys: ['input_ids', 'labels']\n")
    ...     run = read(path)
    >>> run.events.select("step", "kind", "payload").row(0)
    (3, 'inputs', '{"stage":"forward","tensors":{"input_ids":{},"labels":{}}}')
    >>> run.plan
    {'inputs': {'forward': {'forbid': ['labels']}}}
    """
    path = Path(path) if isinstance(path, str) else path
    dump = _Dump(Records(str(path)))
    for lines in text_lines(path):
        if isinstance(lines, Reject):
            dump.records.rejects.append(lines)
            continue
        for line, text, step in _candidates(lines, dump.step):
            _take(dump, line, text, step)
    if not dump.seen and not dump.records.rejects:
        raise InputError(f"{path}: no message about inputs or outputs of a model in this file")
    _note(dump)
    return _joined(path, dump)


def _candidates(lines: Lines, before: int | None) -> Iterator[tuple[int, str, int | None]]:
    """Number and text of the lines that may say something, with the last step told; the last of all ends it."""
    step = pl.coalesce(pl.col("text").str.extract(STEP, 1), pl.col("text").str.extract(STEP, 2))
    told = lines.frame.lazy().with_columns(
        step=step.cast(pl.Int64, strict=False).forward_fill().fill_null(pl.lit(before, pl.Int64))
    )
    chosen = told.filter(pl.col("text").str.contains(MARKED) | (pl.col("order") == pl.col("order").max()))
    yield from chosen.select("line", pl.col("text").str.slice(0, 20_000), "step").collect().iter_rows()


def _take(dump: _Dump, line: int, text: str, step: int | None) -> None:
    dump.step = step
    for said in read_line(text):
        dump.add(line, said, text)


def _note(dump: _Dump) -> None:
    if dump.forbidden:
        names = ", ".join(map(repr, dump.forbidden))
        text = f"the log itself says that {names} must not reach forward; the plan forbids it there"
        dump.records.event((_LAST, 0, 0, None, None, None, ""), "note", {"text": text, "level": "info"})


def _joined(path: Path, dump: _Dump) -> Run:
    plan: Mapping[str, Any] = {}
    if dump.forbidden:
        plan = {"inputs": {"forward": {"forbid": list(dump.forbidden)}}}
    own = dump.records.run(run_name(path), NAME)
    other = _other(path)
    if other is None:
        return replace(own, plan=plan)
    try:
        run = other.read(path)
    except InputError as error:
        rejects = pl.DataFrame([(str(path), None, None, str(error), "")], schema=REJECTS, orient="row")
        return replace(own, plan=plan, rejects=pl.concat([own.rejects, rejects]))
    events = own.events.with_columns(run=pl.lit(run.name))
    return replace(
        run,
        format=NAME,
        events=pl.concat([run.events, events]),
        rejects=pl.concat([run.rejects, own.rejects]).unique(maintain_order=True),
        plan={**plan, **run.plan},
    )
